"""The worker on Apache Kafka, killed again and again: each co-play acts exactly once."""

import json
import signal
import sys
import threading
from collections import defaultdict
from contextlib import contextmanager

import numpy as np
import pytest
from redis import Redis

from serve.reader import EmbeddingReader
from serve.status import read_status
from streams import checkpoint
from streams.embedded import spawn
from streams.events import CoPlay, encode
from streams.producer import Producer
from streams.settings import load_settings
from streams.snapshot import load_snapshot
from streams.topics import ensure_topics
from streams.wiring import topics_of
from tests.kafka.node import Kafka
from tests.servers import wait_until
from tests.streams.small import TITLES, small_checkpoint
from tests.streams.test_worker import weight_of

EVENTS, KILLS, BAD = 6_000, 2, 40


@contextmanager
def worker(folder):
    command = [sys.executable, "-m", "streams.cli", "worker", "--config", folder / "upwell.toml"]
    env = {"OMP_NUM_THREADS": "1"}
    with spawn("worker", command, log=folder / "worker.log", env=env, grace_s=30) as child:
        yield child


def settings_of(folder, kafka: Kafka, redis_url: str):
    values = {
        "kafka": {"bootstrap": kafka.address, "group": "exactly", "max_batch": 200}
        | {one: f"exactly-{one}" for one in ("plays", "coplays", "catalog")},
        "redis": {"url": redis_url},
        "training": {"cycle_s": 2.0},
        "checkpoint": {"folder": str(folder / "checkpoints"), "interval_s": 0.3},
    }
    lines = []
    for name, section in values.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    (folder / "upwell.toml").write_text("\n".join(lines))
    return load_settings(folder / "upwell.toml")


def test_a_worker_that_is_killed_again_and_again_folds_each_event_once(
    kafka: Kafka, redis_url: str, redis_client: Redis, tmp_path
) -> None:
    """The graph at the end against a plain fold of the same log, edge by edge."""
    rng = np.random.default_rng(5)
    small_checkpoint(tmp_path / "checkpoints")
    settings = settings_of(tmp_path, kafka, redis_url)
    before = load_snapshot(settings.checkpoint.folder, settings.graph).state
    ensure_topics(kafka.address, topics_of(settings.kafka))
    topic, expected = settings.kafka.coplays, defaultdict(float)
    done = threading.Event()

    def send() -> None:
        """All the while, so that a kill finds the worker at anything."""
        bad_at = set(rng.choice(EVENTS, BAD, replace=False).tolist())
        with Producer(kafka.address, timeout_s=120) as producer:
            for n in range(EVENTS):
                a, b = (f"m{m}" for m in rng.integers(0, TITLES - 1) + np.array([0, 1]))
                pair = CoPlay(a, b, 20_000_000 + n, float(rng.integers(1, 9)))
                producer.send(topic, key=a, value=encode(pair))
                expected[frozenset((a, b))] += pair.weight
                if n in bad_at:
                    producer.send(topic, key=None, value=b"{")
                if n % 20 == 0:
                    done.wait(0.1)  # about 200 events a second
        done.set()

    def beat() -> dict:
        return read_status(redis_client).get(settings.worker.id, {})

    def live(pid: int) -> bool:
        return beat().get("pid") == pid and beat().get("phase") == "live"

    sender = threading.Thread(target=send)
    sender.start()
    seqs = []
    for _ in range(KILLS):
        with worker(tmp_path) as child:
            number = max(
                (int(one.name) for one in settings.checkpoint.folder.glob("0*")), default=0
            )
            wait_until(lambda child=child: child.poll() is not None or live(child.pid), within_s=60)
            wait_until(
                lambda number=number: (settings.checkpoint.folder / f"{number + 2:08d}").exists()
            )
            seqs.append(beat().get("seq", 0))
            done.wait(float(rng.uniform(0, 0.6)))
            child.kill(signal.SIGKILL)
    sender.join()
    with worker(tmp_path) as child:
        wait_until(
            lambda: live(child.pid) and beat()["lag"] == 0 and beat()["settled"], within_s=60
        )
        assert child.stop() == 0, child.tail()

    assert not checkpoint.newest(settings.checkpoint.folder)[1]
    after = load_snapshot(settings.checkpoint.folder, settings.graph).state
    for pair, weight in expected.items():
        assert weight_of(after, pair) == pytest.approx(weight_of(before, pair) + weight), pair
    assert seqs == sorted(seqs)
    published = EmbeddingReader(redis_client).get_many([f"m{n}" for n in range(TITLES)])
    assert published.found.all()
    assert published.versions.seq.max() <= after.seq
