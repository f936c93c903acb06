"""The heartbeat title's way through a real broker and a real Redis, and its figures."""

import json
import re
import sys
import urllib.request

import numpy as np
import pytest

from serve.publisher import Publisher
from serve.vectors import RESERVED
from streams.canary import Canary
from streams.embedded import free_port, spawn
from streams.ingest import Ingest
from streams.metrics import CanaryMetrics
from streams.producer import Producer
from streams.settings import CanarySettings
from streams.topics import TopicSpec, ensure_topics
from tests.servers import wait_until

SETTINGS = CanarySettings(interval_s=0.2, patience_s=60)


@pytest.fixture
def topic(broker, request) -> str:
    name = f"canary-{abs(hash(request.node.name))}"
    ensure_topics(broker.address, [TopicSpec(name, 1)])
    return name


@pytest.fixture
def producer(broker):
    with Producer(broker.address) as producer:
        yield producer


@pytest.fixture
def publisher(redis_client) -> Publisher:
    made = Publisher(redis_client, "main")
    made.create_space(3)
    made.switch()
    return made


def figure(text: str, name: str) -> float:
    found = re.search(rf"^upwell_canary_{name} (\S+)$", text, re.M)
    return float(found[1]) if found else -1.0


def show(publisher: Publisher, title: str, time_ms: int, seq: int) -> None:
    """What a worker does with a heartbeat."""
    vector, times = np.ones((1, 3), np.float32), np.array([time_ms])
    publisher.publish([title], vector, seq=seq, step=1, time_ms=times)


def test_heartbeats_go_in_and_are_read_back_until_it_stops(
    broker, topic, publisher, redis_url, tmp_path
):
    """In a process of its own: Faust leaves event loops open, which a test run takes for a leak."""
    port, found = free_port(), []
    env = {
        "UPWELL_KAFKA__BOOTSTRAP": broker.address,
        "UPWELL_KAFKA__CATALOG": topic,
        "UPWELL_REDIS__URL": redis_url,
        "UPWELL_CANARY__PORT": str(port),
        "UPWELL_CANARY__INTERVAL_S": "0.2",
    }
    command = [sys.executable, "-m", "streams.cli", "canary"]

    def told() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()

    with (
        Ingest(broker.address, [topic]) as ingest,
        spawn("canary", command, log=tmp_path / "canary.log", env=env, grace_s=30) as child,
    ):

        def through() -> bool:
            """Do a worker's work on what has come in; whether enough has."""
            assert child.poll() is None, child.tail()
            for message in ingest.consume(99, 0.05).messages.get(topic, []):
                found.append(message)
                if message.value is not None:
                    entry = json.loads(message.value)
                    show(publisher, entry["title"], entry["time_ms"], len(found))
            return len(found) > 2 and figure(told(), "seen_total") >= 3

        wait_until(through, "three heartbeats were seen", within_s=90)
        text = told()
        assert child.stop() == 0, child.tail()
        wait_until(lambda: _drained(ingest, topic, found), "the title is retired")

    assert figure(text, "seconds_count") == figure(text, "seen_total")
    assert figure(text, "lost_total") == 0
    (title,) = {message.key.decode() for message in found}
    assert title.startswith(RESERVED)
    assert json.loads(found[0].value)["concepts"] == {}


def _drained(ingest: Ingest, topic: str, found: list) -> bool:
    """Read on; whether the last message takes the title away."""
    found += ingest.consume(99, 0.05).messages.get(topic, [])
    return found[-1].value is None


def test_a_heartbeat_that_is_not_read_back_is_lost(topic, producer, publisher, redis_client):
    metrics = CanaryMetrics()
    canary = Canary(producer, redis_client, topic, SETTINGS, metrics)

    beat = canary.send()
    assert beat is not None
    seen = canary.seen(beat)
    canary.note(beat, seen=seen)

    assert not seen
    text = metrics.expose().decode()
    assert figure(text, "lost_total") == 1
    assert figure(text, "sent_total") == 1


def test_a_later_heartbeat_in_redis_shows_an_earlier_one(topic, producer, publisher, redis_client):
    canary = Canary(producer, redis_client, topic, SETTINGS, CanaryMetrics())
    first, second = canary.send(), canary.send()
    assert first.time_ms < second.time_ms

    show(publisher, canary.title, first.time_ms, 1)

    assert canary.seen(first)
    assert not canary.seen(second)
