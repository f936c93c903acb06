"""One HTTP server a process: health, metrics, the live page and its stream of events.

    GET /livez /readyz   200 "ok", or 503 and what is wrong, a line each
    GET /metrics         Prometheus's text format
    GET /events          server-sent events, for as long as the client listens
    GET /...             the page and its data

It answers GET and HEAD alone, and changes nothing. On a loopback address it refuses requests that
name another host, so that no web site can make a browser read it under a name of its own.
"""

import ipaddress
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from typing import Any, Final

from streams.health import Health, wrong
from streams.registry import CONTENT_TYPE, Registry

log = logging.getLogger(__name__)

MAX_CLIENTS: Final = 64  # connections at once: each has a thread
PATIENCE_S: Final = 20.0  # with a client that neither asks nor reads
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back: a body, or `stream`, which yields parts until the client goes away."""

    body: bytes = b""
    type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    stream: Iterator[bytes] | None = None


Route = Callable[[], Answer]


def health_routes(health: Health) -> dict[str, Route]:
    """`/livez` and `/readyz`."""

    def livez() -> Answer:
        return _verdict(wrong(health.troubles()))

    def readyz() -> Answer:
        return _verdict({} if health.unready is None else {"ready": health.unready})

    return {"/livez": livez, "/readyz": readyz}


def metrics_route(registry: Registry) -> Route:
    """`/metrics`."""
    return lambda: Answer(registry.expose(), CONTENT_TYPE)


def _verdict(troubles: Mapping[str, str]) -> Answer:
    if not troubles:
        return Answer(b"ok\n")
    lines = "".join(f"{name}: {why}\n" for name, why in troubles.items())
    return Answer(lines.encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)


class Server:
    """Answers from threads of its own, from its making until `close`.

    Args:
        port: 0: a free one; `address` says which.

    Raises:
        OSError: the address cannot be had; it is named.
    """

    def __init__(self, host: str, port: int, routes: Mapping[str, Route]) -> None:
        try:
            self._server = _Threads(host, port, dict(routes))
        except OSError as error:
            raise OSError(
                f"{host}:{port} cannot be listened on: {error.strerror or error}; "
                "name another with operate.host and operate.port"
            ) from error
        self.port = int(self._server.server_address[1])
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        thread.start()

    def add(self, routes: Mapping[str, Route]) -> None:
        """Answer these paths, too."""
        self._server.routes.update(routes)

    def close(self) -> None:
        """Listen no more; streams end with the process."""
        self._server.shutdown()
        self._server.server_close()


class _Threads(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, routes: dict[str, Route]) -> None:
        self.address_family = AF_INET6 if ":" in host else AF_INET
        self.routes = routes
        self.names = {host, "localhost", "127.0.0.1", "::1"} if _loopback(host) else None
        self._free = threading.BoundedSemaphore(MAX_CLIENTS)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a client went away: %s", client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "upwell", ""
    timeout = PATIENCE_S
    server: _Threads

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)

    def _answer(self, *, body: bool) -> None:
        answer = self._find()
        self.send_response(answer.status)
        for name, value in {**_HEADERS, "Content-Type": answer.type}.items():
            self.send_header(name, value)
        if answer.stream is None:
            self.send_header("Content-Length", str(len(answer.body)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if not body:
            return
        if answer.stream is None:
            self.wfile.write(answer.body)
            return
        stream = answer.stream
        try:
            for part in stream:
                self.wfile.write(part)
        except OSError:
            log.debug("a client of the stream went away")
        finally:
            if hasattr(stream, "close"):
                stream.close()

    def _find(self) -> Answer:
        names, host = self.server.names, self.headers.get("Host", "")
        if names is not None and host and _without_port(host) not in names:
            return _refusal(
                HTTPStatus.MISDIRECTED_REQUEST, f"this is a loopback address, not {host!r}"
            )
        path = self.path.partition("?")[0]
        route = self.server.routes.get(path)
        if route is None:
            known = " ".join(sorted(self.server.routes))
            return _refusal(HTTPStatus.NOT_FOUND, f"nothing is at {path!r}; there are {known}")
        try:
            return route()
        except Exception as error:  # a bad answer must not end the server
            log.exception("no answer to %s", path)
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))


def _refusal(status: HTTPStatus, why: str) -> Answer:
    return Answer(f"{why}\n".encode(), status=status)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
