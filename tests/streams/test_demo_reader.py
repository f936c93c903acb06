"""The outside reader, as a process, against a real broker and a real Redis."""

import json
import signal
import sys
import time
import uuid
from unittest.mock import Mock

import numpy as np
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from serve.connection import RedisFailed, connect
from serve.publisher import Publisher
from serve.vectors import title_key, updates_key
from streams.demo.freshness import KINDS, Freshness, read_samples
from streams.demo.reader import Embeddings, Progress, main, read_progress
from streams.embedded import spawn
from tests.servers import wait_until

DIM = 4
SPACE = "main"


class World:
    """Kafka and Redis as the worker would use them, and a reader that watches."""

    def __init__(self, broker, redis_url, folder):
        mark = uuid.uuid4().hex[:8]
        self.coplays, self.catalog = f"coplays-{mark}", f"catalog-{mark}"
        self.out = folder / "samples"
        self.seq = 0
        self.client = connect(redis_url)
        self.publisher = Publisher(self.client, SPACE)
        self.publisher.create_space(DIM)
        self.publisher.switch()
        admin = AdminClient({"bootstrap.servers": broker.address})
        made = admin.create_topics([NewTopic(name, 2, 1) for name in (self.coplays, self.catalog)])
        for future in made.values():
            future.result()
        self.producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 0})
        command = [sys.executable, "-m", "streams.demo.reader", "--redis", redis_url]
        command += ["--bootstrap", broker.address, "--out", self.out]
        command += ["--coplays", self.coplays, "--catalog", self.catalog]
        self.command, self.log = command, folder / "reader.log"

    def start(self):
        self.child = spawn("reader", self.command, log=self.log)
        wait_until(lambda: read_progress(self.out), "reader ready")

    def send(self, topic, key, value):
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.producer.produce(topic, raw, key)
        self.producer.flush()

    def publish(self, titles, time_ms, seq=None):
        self.seq = seq or self.seq + 1
        times = np.full(len(titles), time_ms, np.int64)
        matrix = np.ones((len(titles), DIM), np.float32)
        self.publisher.publish(titles, matrix, seq=self.seq, step=1, time_ms=times)

    def saw(self, **want):
        """Wait until the reader's summary says so."""

        def holds():
            progress = read_progress(self.out)
            return all(getattr(progress, name) == value for name, value in want.items())

        wait_until(holds, lambda: f"{want} (have {read_progress(self.out)})")

    def end(self):
        self.child.kill(signal.SIGTERM)
        return read_progress(self.out)


@pytest.fixture
def world(broker, redis_url, tmp_path):
    made = World(broker, redis_url, tmp_path)
    yield made
    if hasattr(made, "child"):
        made.child.stop()
    made.client.close()


def test_freshness_is_from_the_append_to_the_last_title_seen(world):
    world.publish(["old"], 10)
    world.start()

    world.send(world.catalog, "new", {"title": "new", "time_ms": 50, "concepts": {}})
    world.send(world.coplays, "old", {"a": "old", "b": "new", "time_ms": 60, "weight": 1.0})
    world.saw(events={"catalog": 1, "coplay": 1}, waiting={"catalog": 1, "coplay": 1})
    world.publish(["new"], 55)
    world.saw(waiting={"catalog": 0, "coplay": 1})
    world.publish(["old", "new"], 60)
    world.saw(waiting={"catalog": 0, "coplay": 0})
    now_ms = time.time() * 1000
    progress = world.end()

    samples = read_samples(world.out)
    assert [KINDS[kind] for kind in samples["kind"]] == ["catalog", "coplay"]
    assert np.all(samples["seconds"] > 0)
    assert np.all(samples["append_ms"] + samples["seconds"] * 1000 <= now_ms + 1)
    assert progress.freshness_s["coplay"]["count"] == 1
    assert (progress.torn, progress.seq_regressions, progress.unreadable) == (0, 0, 0)
    assert progress.done


def test_what_never_becomes_visible_is_counted_at_the_end(world):
    world.start()

    world.send(world.coplays, "a", {"a": "a", "b": "b", "time_ms": 60})
    world.send(world.coplays, "a", b"not JSON")
    world.send(world.catalog, "a", b"null")
    world.publish(["a"], 60)
    world.saw(events={"catalog": 0, "coplay": 1}, unreadable=2, updates=1)
    progress = world.end()

    assert progress.waiting == {"catalog": 0, "coplay": 1}
    assert len(read_samples(world.out)) == 0


def test_sigterm_ends_it_after_a_last_look(world):
    world.start()

    world.publish([f"t{n}" for n in range(3000)], 60)
    progress = world.end()

    assert world.child.poll() == 0
    assert (progress.updates, progress.reads, progress.done) == (3000, 3000, True)


def test_torn_vectors_and_seqs_that_go_back_are_counted(world):
    world.publish(["short", "nan", "back", "gone"], 10, seq=7)
    world.start()
    world.publish(["short", "nan", "back", "gone"], 10, seq=8)
    world.saw(reads=4)

    world.client.hset(title_key(SPACE, "short"), "vec", b"xyz")
    world.client.hset(title_key(SPACE, "nan"), "vec", np.full(DIM, np.nan, "<f4").tobytes())
    world.client.hset(title_key(SPACE, "back"), "seq", 7)
    for title in ("short", "nan", "back"):
        world.client.xadd(updates_key(SPACE), {"title": title, "seq": 9, "time_ms": 10})
    world.publisher.retire(["gone"], seq=9, time_ms=20)
    world.saw(torn=2, seq_regressions=1, gone=1)


@pytest.mark.parametrize("what", ["retired", "torn"])
def test_a_look_that_finds_no_vector_at_all_is_one_like_others(world, what):
    world.publish(["alone"], 10)
    world.start()

    if what == "retired":
        world.publisher.retire(["alone"], seq=9, time_ms=20)
        world.saw(gone=1, reads=1)
    else:
        world.client.hset(title_key(SPACE, "alone"), "vec", b"xyz")
        world.client.xadd(updates_key(SPACE), {"title": "alone", "seq": 9, "time_ms": 10})
        world.saw(torn=1, reads=1)
    world.publish(["new"], 30, seq=10)

    world.saw(reads=2)
    assert not world.end().seq_regressions


def test_updates_that_could_not_be_read_back_are_read_by_the_next_look(world, monkeypatch):
    progress, freshness = Progress(), Freshness()
    embeddings = Embeddings(world.client, SPACE, progress)
    world.publish(["a", "b"], 10)
    with monkeypatch.context() as broken:
        broken.setattr("streams.demo.reader.call_all", Mock(side_effect=RedisFailed("away")))
        with pytest.raises(RedisFailed):
            embeddings.look(freshness, wait=False)
    assert (progress.updates, progress.reads) == (0, 0)

    embeddings.look(freshness, wait=False)

    assert (progress.updates, progress.reads) == (2, 2)


@pytest.mark.parametrize("dead", ["--redis", "--bootstrap"])
def test_a_server_that_is_not_there_is_named(world, dead, capsys):
    addresses = {"--redis": "redis://127.0.0.1:1/0", "--bootstrap": "127.0.0.1:1"}
    arguments = [str(part) for part in world.command[3:]]
    arguments[arguments.index(dead) + 1] = addresses[dead]

    code = main([*arguments, "--timeout", "0.3"])

    assert code == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
    assert read_progress(world.out) is None
