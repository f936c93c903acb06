"""Sessions: when a batch counts as done, and plays become co-plays over a real broker."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from streams.coplay import Pairing
from streams.dead_letters import read_dead
from streams.embedded import Broker
from streams.events import Message, Play, decode_coplays, encode
from streams.ingest import Ingest
from streams.producer import Producer
from streams.sessions import Counts, SessionsConfig, drain, pair_batch, serve
from streams.topics import BrokerUnreachable, TopicSpec, ensure_topics
from tests.servers import wait_until

NOW = 1_700_000_000_000
RULE = Pairing()


def play(user: str, title: str, second: int) -> bytes:
    return encode(Play(user, title, NOW + second * 1000))


def message(value: bytes, offset: int = 0, partition: int = 0) -> Message:
    return Message("plays", partition, offset, b"u", value, NOW + 1_000_000)


def test_a_batch_pairs_each_user_with_what_is_remembered_of_them() -> None:
    first = pair_batch([message(play("u", "a", 0), partition=3)], lambda _: None, RULE)
    memory = {user: raw for user, (_, raw) in first.recent.items()}
    plays = [play("u", "b", 1), play("v", "c", 2), play("u", "c", 3), play("u", "c", 3)]

    second = pair_batch([message(one) for one in plays], memory.get, RULE)

    assert (first.plays, first.pairs) == (1, [])
    assert first.recent["u"][0] == 3
    assert second.plays == 4
    assert [pair.a + pair.b for pair in second.pairs] == ["ab", "ac", "bc"]
    assert second.recent.keys() == {"u", "v"}
    assert json.loads(second.recent["v"][1])[2] == [[NOW + 2000, "c", 1.0]]


def test_a_batch_with_unreadable_plays_pairs_the_rest() -> None:
    found = pair_batch([message(b"{"), message(play("u", "a", 0), 1)], lambda _: None, RULE)

    assert found.plays == 1
    assert [letter.message.offset for letter in found.dead] == [0]


class Journal(Producer):
    """Notes what is written, and when; fails where it is told to."""

    def __init__(self, lines: list[str], fail_at_flush: int = 0) -> None:
        self.lines, self.flushes, self.fail = lines, 0, fail_at_flush

    def send(self, topic: str, **message) -> None:
        self.lines.append(f"{topic} {message['key']} -> {message.get('partition', '')}")

    def flush(self) -> None:
        self.flushes += 1
        if self.flushes == self.fail:
            raise BrokerUnreachable("nowhere", 1.0)
        self.lines.append("flush")


class Stream:
    """One batch of two plays, as Faust's stream gives it; notes what is acked."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    async def noack_take(self, max_: int, within: float) -> AsyncIterator[list[SimpleNamespace]]:
        plays = [play("u", "a", 0), play("u", "b", 1)]
        fields = {"topic": "plays", "partition": 2, "key": b"u", "timestamp": NOW / 1000 + 9}
        yield [
            SimpleNamespace(message=SimpleNamespace(offset=i, value=value, headers={}, **fields))
            for i, value in enumerate(plays)
        ]

    async def ack(self, event: SimpleNamespace) -> None:
        self.lines.append(f"ack {event.message.offset}")


def drain_one_batch(fail_at_flush: int, memory: dict[bytes, bytes]) -> list[str]:
    lines: list[str] = []
    journal = Journal(lines, fail_at_flush)
    config = SessionsConfig("unused")
    batch = drain(Stream(lines), config, journal, memory, "log", Counts())
    if fail_at_flush:
        with pytest.raises(BrokerUnreachable):
            asyncio.run(batch)
    else:
        asyncio.run(batch)
    return lines


def test_pairs_are_delivered_before_memory_and_memory_before_the_ack() -> None:
    memory: dict[bytes, bytes] = {}

    lines = drain_one_batch(0, memory)

    assert [line for line in lines if line != "flush"] == [
        "coplays a -> ",
        "log u -> 2",
        "log \0next 2 -> 2",
        "ack 0",
        "ack 1",
    ]
    assert lines[1] == lines[-3] == "flush"
    assert memory.keys() == {b"u", b"\0next 2"}
    assert memory[b"\0next 2"] == b"2"


@pytest.mark.parametrize("flush", [1, 2, 3])
def test_a_batch_that_was_not_delivered_is_neither_remembered_nor_acked(flush: int) -> None:
    memory: dict[bytes, bytes] = {}

    lines = drain_one_batch(flush, memory)

    assert not any("ack" in line for line in lines)
    assert memory == {}


def config_of(broker: Broker, name: str) -> SessionsConfig:
    return SessionsConfig(
        broker.address,
        plays=f"{name}-plays",
        coplays=f"{name}-coplays",
        group=name,
        partitions=2,
        session_timeout_s=2.0,  # the embedded broker lets the first member wait for half of it
    )


def write(config: SessionsConfig, plays: list[bytes]) -> None:
    with Producer(config.bootstrap) as producer:
        for value in plays:
            key = json.loads(value)["user"] if value.endswith(b"}") else "u"
            producer.send(config.plays, key=key, value=value)


def read(config: SessionsConfig, count: int) -> list[str]:
    """The next `count` pairs since the beginning, sorted."""
    found: list[str] = []
    with Ingest(config.bootstrap, [config.coplays]) as ingest:

        def enough() -> bool:
            messages = ingest.consume(1000, 0.1).messages.get(config.coplays, [])
            pairs = decode_coplays(messages).pairs
            found.extend(a + b for a, b in zip(pairs.a, pairs.b, strict=True))
            return len(found) >= count

        wait_until(enough, f"{count} pairs", within_s=60)
    return sorted(found)


# In a process of its own: Faust leaves event loops open, which a test run takes for a leak.
PROGRAM = """
import sys
from streams.sessions import SessionsConfig, run_sessions
name = sys.argv[2]
run_sessions(
    SessionsConfig(
        sys.argv[1],
        plays=f"{name}-plays",
        coplays=f"{name}-coplays",
        group=name,
        partitions=2,
        session_timeout_s=2.0,
    )
)
"""


@contextmanager
def worker(broker: Broker, name: str, signum: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """A sessions worker; told to stop at the end, which it must do cleanly."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, broker.address, name],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    ) as process:
        try:
            yield
            process.send_signal(signum)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, b"")


def test_plays_become_coplays_and_a_worker_goes_on_where_another_stopped(broker: Broker) -> None:
    config = config_of(broker, "relay")
    topics = [TopicSpec(config.plays, 2), TopicSpec(config.coplays, 2)]
    ensure_topics(broker.address, topics)
    write(config, [play("u", "a", 0), b"{", play("v", "x", 0), play("u", "b", 1)])

    with worker(broker, "relay"):
        assert read(config, 1) == ["ab"]
        wait_until(lambda: len(read_dead(broker.address, config.plays)))
    write(config, [play("u", "c", 2), play("v", "y", 1), play("u", "b", 1)])
    with worker(broker, "relay", signal.SIGINT):
        assert read(config, 4) == ["ab", "ac", "bc", "xy"]

    (letter,) = read_dead(broker.address, config.plays)
    assert letter.reason == "Input data was truncated"


def test_a_broker_that_is_not_there_is_named() -> None:
    config = SessionsConfig("127.0.0.1:1", startup_timeout_s=0.3)

    with pytest.raises(BrokerUnreachable, match=r"127.0.0.1:1 "):
        asyncio.run(serve(config, asyncio.Event()))
