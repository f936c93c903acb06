"""The way to Redis: connecting with patience, and errors that say where and what to do.

Every failure that leaves this package is a `RedisFailed`, so that no caller needs to know the
client. Its text names host and port, never a password.
"""

import contextlib
import logging
import ssl
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Self

import redis
from redis import Redis
from redis.backoff import EqualJitterBackoff, NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from serve.topology import address, address_of, make_client

Client = Redis  # for signatures outside of this package, which alone knows the library

_PLAIN_HINT = "; where it speaks no TLS, its URL begins with redis:// (not rediss://)"
# A cluster in which a slot has no node for a while will have one again.
_NO_ANSWER = (redis.ConnectionError, redis.TimeoutError, RedisClusterException, ClusterDownError)
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0

log = logging.getLogger(__name__)


class RedisFailed(RuntimeError):
    """Redis could not do what was asked: where, why, and what to do."""


class RedisUnreachable(RedisFailed):
    """Nobody answered, in time: worth another try."""


class RedisRefused(RedisFailed):
    """Redis answered, and does not let us in: user, password, rights or certificate are wrong."""


class SpaceLost(RedisFailed):
    """What was published is gone, or older than it was (a flush, a restore, a failover).

    Make the space again, and publish everything.
    """


class Closing(ABC):
    """What is closed at the end of a `with`."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(
    url: str,
    *,
    timeout_s: float = 2.0,
    startup_timeout_s: float = 30.0,
    retries: int = 5,
    on_wait: Callable[[str], None] | None = None,
    **options: Any,
) -> Redis:
    """A client that has been answered, and that tries a failed call again with growing pauses.

    Args:
        url: redis://[user:password@]host:port/db; rediss:// for TLS; others in serve/topology.py.
        timeout_s: longest wait for one reply, and for a connection.
        startup_timeout_s: how long to try before the first answer.
        retries: further tries of a later call.
        on_wait: told once why we wait, and in which words.
        options: of `redis.Redis`, such as `ssl_ca_certs`.

    Raises:
        RedisUnreachable: no answer within `startup_timeout_s`.
        RedisRefused: it does not let us in; that is not tried again.
        ValueError: `url` is none, or names a file that cannot be read.
    """
    options.setdefault("protocol", 2)
    options |= {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    where = address(url)
    backoff = EqualJitterBackoff(cap=1.0, base=0.05)
    deadline = time.monotonic() + startup_timeout_s
    pause = FIRST_PAUSE_S
    told = False
    while True:
        try:
            # Here, we do the waiting; the client that we hand out does its own.
            with _translated(where), make_client(url, Retry(NoBackoff(), 0), options) as first:
                call(first, "PING")
            with _translated(where):
                return make_client(url, Retry(backoff, retries), options)
        except RedisUnreachable as error:
            if time.monotonic() + pause > deadline:
                # A server without TLS waits for the rest of what it takes for a line of text.
                silent = url.startswith("rediss") and "Timeout connecting" in str(error)
                hint = _PLAIN_HINT if silent else ""
                raise RedisUnreachable(
                    f"{error} (tried for {startup_timeout_s:g} s){hint}"
                ) from error
            if not told:
                told = True
                (on_wait or log.warning)(f"{error}; trying for {startup_timeout_s:g} s")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def call(client: Redis, *command: Any) -> Any:
    """The answer to one command; raises RedisFailed."""
    with _translated(client):
        return client.execute_command(*command)  # type: ignore[no-untyped-call]


def call_many(client: Redis, commands: Iterable[Sequence[Any]]) -> list[Any]:
    """The answers to commands sent at once; that of a failed one is its `redis.RedisError`.

    It is not raised, since the client would put the command into its text, megabytes of vectors
    and all.

    Raises:
        RedisFailed: the connection failed.
    """
    with _translated(client), client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call]
        answers: list[Any] = pipe.execute(raise_on_error=False)
        return answers


def call_all(client: Redis, commands: Iterable[Sequence[Any]]) -> list[Any]:
    """As `call_many`, but the first failed command raises RedisFailed."""
    answers = call_many(client, commands)
    for answer in answers:
        if isinstance(answer, RedisError):
            raise translate(answer, address_of(client))
    return answers


def call_stream(
    client: Redis, commands: Iterable[Sequence[Any]], *, under_way: int
) -> Generator[Any, None, None]:
    """The answers to commands in their order; that of a failed one is its `redis.RedisError`.

    While the server works on one, the next are packed and sent: neither waits for the other. After
    a broken connection those without an answer are sent again, so they must bear being done twice.
    Not for a cluster. Who stops early does not know what became of the `under_way` after the last.

    Args:
        under_way: commands that may be sent before the first answer is read.

    Raises:
        RedisFailed: the connection failed, and so did all further tries.
    """
    with _translated(client):
        connection: Any = client.connection_pool.get_connection()
    pending: deque[list[bytes]] = deque()  # packed commands without an answer, oldest first
    sent = 0  # how many of them are on their way

    def lost(_: Exception) -> None:
        nonlocal sent
        connection.disconnect()
        sent = 0

    def send() -> None:
        nonlocal sent
        while sent < len(pending):
            connection.send_packed_command(pending[sent])
            sent += 1

    def receive() -> Any:
        nonlocal sent
        send()
        try:
            answer = connection.read_response()
        except ResponseError as error:
            answer = error
        pending.popleft()
        sent -= 1
        return answer

    def attempt(step: Callable[[], Any]) -> Any:
        with _translated(client):
            return connection.retry.call_with_retry(step, lost)

    try:
        for command in commands:
            pending.append(connection.pack_command(*command))
            attempt(send)
            if len(pending) == under_way:
                yield attempt(receive)
        while pending:
            yield attempt(receive)
    finally:
        if pending:
            connection.disconnect()  # or its next user would read our answers
        client.connection_pool.release(connection)


@contextlib.contextmanager
def _translated(at: Redis | str) -> Iterator[None]:
    """Turn the library's errors into ours; `at`: whom we speak with, or the address."""
    try:
        yield
    except (RedisError, RedisClusterException) as error:
        where = at if isinstance(at, str) else address_of(at)
        raise translate(error, where) from error


def translate(error: RedisError | RedisClusterException, where: str) -> RedisFailed:
    """Our error for one of the client's."""
    text = str(error)
    if certificate := _certificate_problem(error):
        return RedisRefused(
            f"Redis at {where}: its certificate is not accepted ({certificate}); "
            "name its authority with ssl_ca_certs=FILE in the URL"
        )
    if isinstance(error, AuthenticationError) or text.startswith(("NOAUTH", "WRONGPASS")):
        return RedisRefused(
            f"Redis at {where} refuses user or password ({text.rstrip('.')}); "
            "check the URL: redis://USER:PASSWORD@HOST:PORT/DB"
        )
    if isinstance(error, NoPermissionError) or text.startswith("NOPERM"):
        return RedisRefused(
            f"Redis at {where} lets us in, but grants too little: {text}; "
            "deploy/redis.acl lists the rights that are needed"
        )
    if isinstance(error, BusyLoadingError):
        return RedisUnreachable(f"Redis at {where} is still loading its data")
    if isinstance(error, _NO_ANSWER):
        return RedisUnreachable(f"no answer from Redis at {where} ({_reason(error)}){_hint(error)}")
    return RedisFailed(f"Redis at {where}: {text}")


def _certificate_problem(error: BaseException | None) -> str:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return ""


def _hint(error: RedisError | RedisClusterException) -> str:
    """What a connection that ends at once may mean."""
    text = _reason(error)
    if text.startswith("TLS: WRONG_VERSION_NUMBER"):
        return _PLAIN_HINT
    if "closed by server" in text or "Connection reset" in text:
        return "; where it speaks TLS, its URL begins with rediss:// (not redis://)"
    return ""


def _reason(error: RedisError | RedisClusterException) -> str:
    """Why, in the words of the system below, without the address that it repeats."""
    below = error.__cause__ or error.__context__
    if isinstance(below, ssl.SSLError):
        return f"TLS: {below.reason or below}"
    if isinstance(below, OSError) and below.strerror:
        return below.strerror
    return str(error).rstrip(".")
