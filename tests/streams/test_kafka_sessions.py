"""Sessions on real Apache Kafka: killed at each step of a batch, they lose nothing.

A batch is written as pairs, then memory, then acked. Of a death between the first and the second
the pairs come twice, and that is all that may come twice.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from streams.coplay import Pairing, Recent, add_play
from streams.embedded import Child, spawn
from streams.events import Play, decode_coplays
from streams.ingest import Ingest
from streams.producer import Producer
from streams.topics import TopicSpec, ensure_topics
from tests.kafka.node import Kafka
from tests.servers import wait_until
from tests.streams.test_sessions import NOW, config_of

# Dies by its own SIGKILL when `flush` has returned so many times: 3 a batch (pairs, memory twice).
PROGRAM = """
import json, os, signal, sys
from streams import sessions
from streams.producer import Producer

bootstrap, name, client, die_after = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

class Mortal(Producer):
    flushes = 0

    def flush(self):
        super().flush()
        self.flushes += 1
        if self.flushes == die_after:
            os.kill(os.getpid(), signal.SIGKILL)

sessions.Producer = Mortal
sessions.run_sessions(
    sessions.SessionsConfig(
        bootstrap,
        plays=f"{name}-plays",
        coplays=f"{name}-coplays",
        group=name,
        partitions=2,
        client=json.loads(client),
        session_timeout_s=2.0,
    )
)
"""
PAIRS, MEMORY = 1, 3  # flushes of a batch after which these are delivered


@contextmanager
def sessions(
    address: str,
    name: str,
    folder: Path,
    *,
    client: dict[str, str] | None = None,
    die_after: int = 0,
) -> Iterator[Child]:
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        address,
        name,
        json.dumps(client or {}),
        str(die_after),
    ]
    env = {"PYTHONPATH": os.getcwd()}
    with spawn("sessions", command, log=folder / "sessions.log", env=env, cwd=folder) as child:
        yield child


@pytest.fixture
def numbers() -> Iterator[int]:
    return iter(range(10**6))


def plays_of(numbers: Iterator[int], count: int) -> list[Play]:
    """The next plays of some users: each is paired with those before it."""
    return [
        Play(f"u{n % 7}", f"m{n * 31 % 97}", NOW + n * 1000)
        for n, _ in zip(numbers, range(count), strict=False)
    ]


def write(address: str, topic: str, plays: list[Play], client: dict[str, str]) -> None:
    with Producer(address, client) as producer:
        producer.publish_plays(topic, plays)


def expected(plays: list[Play]) -> Counter[tuple[str, str, int]]:
    """A plain fold of the same plays."""
    recent: dict[str, Recent] = {}
    return Counter(
        (pair.a, pair.b, pair.time_ms)
        for play in plays
        for pair in add_play(recent.setdefault(play.user, Recent(plays=[])), play, Pairing())
    )


def read(ingest: Ingest, topic: str, into: Counter[tuple[str, str, int]]) -> None:
    """Take in what is there now."""
    pairs = decode_coplays(ingest.consume(5000, 0.1).messages.get(topic, [])).pairs
    into.update(zip(pairs.a, pairs.b, pairs.time_ms.tolist(), strict=True))


def ends_of(address: str, topic: str) -> dict[tuple[str, int], int]:
    """Where the partitions of a topic of two end, by the broker's own word."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "ends"})
    try:
        return {
            (topic, part): consumer.get_watermark_offsets(TopicPartition(topic, part), 10)[1]
            for part in range(2)
        }
    finally:
        consumer.close()


def wait_for_end(child: Child) -> None:
    wait_until(lambda: child.poll() is not None, "the worker's death", within_s=40)


def test_killed_at_each_step_no_play_is_lost_and_only_what_memory_missed_is_doubled(
    kafka: Kafka, tmp_path, numbers
) -> None:
    config = config_of(kafka, "steps")
    ensure_topics(kafka.address, [TopicSpec(one, 2) for one in (config.plays, config.coplays)])
    plays: list[Play] = []
    found: Counter[tuple[str, str, int]] = Counter()
    at_risk: Counter[tuple[str, str, int]] = Counter()

    with Ingest(kafka.address, [config.coplays]) as ingest:

        def drain() -> Counter[tuple[str, str, int]]:
            """What has come since the last call."""
            before, ends = found.copy(), ends_of(kafka.address, config.coplays)

            def at_end() -> bool:
                read(ingest, config.coplays, found)
                return all(ingest.positions()[key] >= end for key, end in ends.items())

            wait_until(at_end, "what was delivered is read")
            return found - before

        for die_after in (PAIRS, MEMORY, PAIRS):
            more = plays_of(numbers, 200)
            plays += more
            write(kafka.address, config.plays, more, {})
            with sessions(kafka.address, "steps", tmp_path, die_after=die_after) as child:
                wait_for_end(child)
            delivered = drain()
            if die_after == PAIRS:
                at_risk += delivered
        with sessions(kafka.address, "steps", tmp_path) as child:
            wait_until(
                lambda: (
                    read(ingest, config.coplays, found) or not expected(plays) + at_risk - found
                ),
                "all pairs",
                within_s=90,
            )
            assert child.stop() == 0, child.tail()
        drain()

    assert at_risk
    assert found == expected(plays) + at_risk


def test_faust_too_goes_over_tls_and_a_password(kafka: Kafka, tmp_path, numbers) -> None:
    address, client = kafka.secure_address, kafka.secure_client
    config = config_of(kafka, "secure")
    ensure_topics(address, [TopicSpec(one, 2) for one in (config.plays, config.coplays)], client)
    plays = plays_of(numbers, 50)
    write(address, config.plays, plays, client)
    found: Counter[tuple[str, str, int]] = Counter()

    with (
        sessions(address, "secure", tmp_path, client=client) as child,
        Ingest(address, [config.coplays], None, client) as ingest,
    ):
        wait_until(
            lambda: read(ingest, config.coplays, found) or not expected(plays) - found,
            "all pairs",
            within_s=90,
        )
        assert child.stop() == 0, child.tail()

    assert found == expected(plays)
    assert [path.name for path in tmp_path.iterdir()] == ["sessions.log"]
