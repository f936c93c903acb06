"""What the page is fed: the last heartbeat, its history, titles and map, to any number of clients.

    GET /api/now      the last heartbeat, as JSON
    GET /api/history  a point a second, of the last `HISTORY` seconds
    GET /events       server-sent events: `now` (a heartbeat and its point), `titles`, `map`

A client that is slow misses heartbeats, not the newest of them: only the last of each kind is kept.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

from streams.console.server import Answer, Route
from streams.console.titles import Watcher

HISTORY: Final = 900  # points
KEEPALIVE_S: Final = 10.0  # a proxy or a client that waits for longer would give up
_POINT = ("events_per_s", "published_per_s", "lag", "dirty", "training")
_SKIPPED = ("newest",)  # the page has it from `titles`


class Feed:
    """Holds what is shown. Any thread may push; each client's thread has a stream of its own."""

    def __init__(self, watcher: Watcher | None = None) -> None:
        self._watcher = watcher
        self._changed = threading.Condition()
        self._last: dict[str, tuple[int, bytes]] = {}  # kind -> number of its last change, JSON
        self._number = 0
        self._history: deque[dict[str, Any]] = deque(maxlen=HISTORY)

    def routes(self) -> dict[str, Route]:
        """The paths that it answers."""
        return {
            "/api/now": lambda: self._json("now"),
            "/api/history": self._history_answer,
            "/events": lambda: Answer(type="text/event-stream", stream=self._stream()),
        }

    def push(self, heartbeat: Mapping[str, Any]) -> None:
        """A heartbeat of the worker came."""
        at = point(heartbeat)
        with self._changed:
            self._history.append(at)
        if self._watcher is not None:
            self._watcher.newest = heartbeat.get("newest", ())
        told = {key: value for key, value in heartbeat.items() if key not in _SKIPPED}
        self.tell("now", {**told, "point": at})

    def recall(self, history: list[dict[str, Any]]) -> None:
        """Take over the history that the worker has kept, where ours is younger."""
        with self._changed:
            first = self._history[0]["t"] if self._history else float("inf")
            older = [one for one in history if one["t"] < first]
            self._history = deque([*older, *self._history], maxlen=HISTORY)

    def tell(self, kind: str, value: Any) -> None:
        """`value` is the newest of its kind."""
        raw = json.dumps(value, separators=(",", ":")).encode()
        with self._changed:
            self._number += 1
            self._last[kind] = self._number, raw
            self._changed.notify_all()

    def _json(self, kind: str) -> Answer:
        with self._changed:
            _, raw = self._last.get(kind, (0, b"null"))
        return Answer(raw, "application/json")

    def _history_answer(self) -> Answer:
        with self._changed:
            points = list(self._history)
        return Answer(json.dumps(points, separators=(",", ":")).encode(), "application/json")

    def _stream(self) -> Iterator[bytes]:
        if self._watcher is not None:
            self._watcher.begin()
        try:
            yield b"retry: 1000\n\n"
            sent = 0
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._number > sent, KEEPALIVE_S)  # noqa: B023
                    news = sorted(
                        (number, kind, raw)
                        for kind, (number, raw) in self._last.items()
                        if number > sent
                    )
                for number, kind, raw in news:
                    yield b"event: %s\ndata: %s\n\n" % (kind.encode(), raw)
                    sent = number
                if not news:
                    yield b": still here\n\n"
        finally:
            if self._watcher is not None:
                self._watcher.end()


def point(heartbeat: Mapping[str, Any]) -> dict[str, Any]:
    """One point of the history: seconds by kind and percentile, rates, backlog."""
    fresh = heartbeat.get("freshness_recent_s", {})
    return {
        "t": round(time.time(), 1),
        **{
            f"{kind}_{name}": fresh[kind][name]
            for kind in ("catalog", "coplay")
            if kind in fresh
            for name in ("p50", "p99")
        },
        **{name: _short(heartbeat.get(name, 0)) for name in _POINT},
    }


def _short(value: Any) -> Any:
    return round(value, 1) if isinstance(value, float) else value
