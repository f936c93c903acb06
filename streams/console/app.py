"""The page, put together: its files, its feed, and whom it reads.

In a worker, `in_worker` hangs the page on the server that answers for health, and each heartbeat is
pushed. Elsewhere, `Console` is a server of its own that reads heartbeats from Redis, and asks the
worker's server once for the history before its own.
"""

import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from serve.connection import Client, RedisFailed, connect
from serve.reader import EmbeddingReader
from serve.status import read_status
from streams.console.copy import TitleCopy
from streams.console.feed import Feed
from streams.console.server import Answer, Route, Server
from streams.console.titles import TitleWatch, Watcher
from streams.settings import RedisSettings, Settings

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5
_HISTORY_S: Final = 2.0  # patience with the worker's server
_FILES: Final = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


def file_routes() -> dict[str, Route]:
    """The page's own files, which are read once."""

    def route(name: str, kind: str) -> Route:
        body = Path(__file__).with_name(name).read_bytes()
        return lambda: Answer(body, kind)

    return {path: route(name, kind) for path, (name, kind) in _FILES.items()}


def make_feed(redis: RedisSettings) -> Feed:
    """A feed whose titles come from Redis, over a connection of its own."""

    def watch() -> TitleWatch:
        return TitleWatch(lambda: TitleCopy(EmbeddingReader(_client(redis))), feed.tell)

    feed = Feed(Watcher(watch))
    return feed


def in_worker(server: Server, settings: Settings) -> Feed:
    """Serve the page beside health and metrics; push each heartbeat into what is returned."""
    feed = make_feed(settings.redis)
    server.add({**file_routes(), **feed.routes()})
    return feed


class Console:
    """The page on a server of its own, from its making until `close`.

    Args:
        worker: which worker's heartbeat is shown; none: the first that has one.

    Raises:
        RedisFailed: Redis does not answer, or does not let us in.
        OSError: the address cannot be had.
    """

    def __init__(self, settings: Settings, host: str, port: int, worker: str | None = None) -> None:
        self._client: Client = _client(settings.redis)
        self._worker = worker
        self._stop = threading.Event()
        self.feed = make_feed(settings.redis)
        self.server = Server(host, port, {**file_routes(), **self.feed.routes(), **self._health()})
        self._recalled: str | None = None
        self._written_ms = 0
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.server.close()

    def look(self) -> None:
        """Take in the worker's heartbeat, where there is a new one."""
        found = worker_of(read_status(self._client), self._worker)
        if found is None or found["written_ms"] == self._written_ms:
            return
        self._written_ms = found["written_ms"]
        address = found.get("address")
        if address and address != self._recalled:
            self._recalled = address
            self.feed.recall(_history(address))
        self.feed.push(found)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                self.look()
            except RedisFailed as error:
                log.warning("no heartbeat can be read: %s", error)

    def _health(self) -> Mapping[str, Route]:
        def alive() -> Answer:
            if self._thread.is_alive():
                return Answer(b"ok\n")
            return Answer(b"the reading thread has ended\n", status=HTTPStatus.SERVICE_UNAVAILABLE)

        return {"/livez": alive}


def worker_of(
    heartbeats: Mapping[str, Mapping[str, Any]], named: str | None = None
) -> dict[str, Any] | None:
    """The heartbeat of the worker that is `named`, or of the first; its id stands in `worker`."""
    for name, one in sorted(heartbeats.items()):
        if one.get("role") == "worker" and named in (None, name):
            return {**one, "worker": name}
    return None


def _client(redis: RedisSettings) -> Client:
    return connect(
        redis.url.get_secret_value(),
        timeout_s=redis.timeout_s,
        startup_timeout_s=min(redis.startup_timeout_s, 5.0),
    )


def _history(address: str) -> list[dict[str, Any]]:
    """What the worker remembers; nothing where its server cannot be reached from here."""
    try:
        url = f"http://{address}/api/history"
        with urllib.request.urlopen(url, timeout=_HISTORY_S) as answer:
            found: list[dict[str, Any]] = json.loads(answer.read())
            return found
    except (OSError, ValueError, urllib.error.URLError) as error:
        log.debug("no history from %s: %s", address, error)
        return []
