"""The whole way over real protocols: plays and catalog events in, embeddings out, and a kill."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np
import pytest

from serve.reader import EmbeddingReader
from streams import checkpoint
from streams.demo.stage import open_stage
from streams.embedded import spawn
from streams.events import CoPlay
from streams.producer import Producer
from streams.snapshot import load_snapshot
from streams.state import COPLAY, State
from tests.servers import wait_until
from tests.streams.small import TITLES, small_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stage")
    small_checkpoint(folder / "checkpoints")
    return folder


@pytest.fixture(scope="module")
def stage(folder):
    with open_stage(folder, cycle_s=1.0) as stage:
        yield stage


@pytest.fixture
def reader(stage) -> EmbeddingReader:
    return EmbeddingReader(stage.redis)


@pytest.fixture
def producer(stage):
    with Producer(stage.bootstrap) as producer:
        yield producer


def weight_of(state: State, pair: frozenset[str]) -> float:
    a, b = state.graph.ids["title"].find(sorted(pair))[:, None]
    return float(state.graph.weight(state.graph.relation_id(COPLAY.name), a, b)[0])


def upwell(stage, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streams.cli", *arguments]
    config = ["--config", str(stage.folder / "upwell.toml")]
    return subprocess.run([*command, *config], capture_output=True, text=True, check=False)


def test_every_title_of_the_checkpoint_is_published(reader):
    titles, matrix = reader.all()

    assert sorted(titles) == sorted(f"m{n}" for n in range(TITLES))
    assert np.isfinite(matrix).all()
    assert np.abs(matrix).sum(1).min() > 0


def test_a_new_title_is_visible_before_anyone_has_played_it(stage, reader, tmp_path):
    file = tmp_path / "new.jsonl"
    entry = {"title": "new", "name": "A New Film", "concepts": {"genre": ["Crime"]}}
    file.write_text(json.dumps(entry) + "\n")

    done = upwell(stage, "catalog", "publish", str(file), "--wait")

    assert done.returncode == 0, done.stderr
    assert reader.get_many(["new"]).found[0]
    similar = upwell(stage, "similar", "a new film", "--json")
    assert len(json.loads(similar.stdout)) == 10


def test_plays_change_the_embeddings_of_their_titles(stage, reader, producer):
    before = reader.get_many(["m1", "m2"])
    hour = 10_000_000

    for n, title in enumerate(["m1", "m2", "m1", "m2"]):
        play = {"user": "fan", "title": title, "time_ms": hour + n * 1000}
        producer.send(stage.settings.kafka.plays, key="fan", value=msgspec.json.encode(play))
    producer.flush()

    def moved() -> bool:
        after = reader.get_many(["m1", "m2"])
        return bool((after.versions.time_ms >= hour + 1000).all()) and not np.array_equal(
            after.matrix, before.matrix
        )

    wait_until(moved, "the co-play's titles are new")


def test_a_retired_title_is_gone(stage, reader):
    done = upwell(stage, "catalog", "retire", "m39", "--wait")

    assert done.returncode == 0, done.stderr
    assert not reader.get_many(["m39"]).found[0]


def test_status_says_that_nothing_is_wrong(stage):
    def fine() -> bool:
        return upwell(stage, "status").returncode == 0

    wait_until(fine, "status is fine")
    assert "freshness  " in upwell(stage, "status").stdout


def test_the_worker_answers_for_itself(stage):
    address = stage.url.removeprefix("http://")

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.read().decode()

    assert get("livez") == "ok\n"
    assert get("readyz") == "ok\n"
    metrics = get("metrics")
    assert "\nupwell_ready 1.0\n" in metrics
    for check in ("broker", "partitions", "ingest", "refresh", "training"):
        assert f'upwell_check_ok{{check="{check}"}} 1.0' in metrics
    for name in ("freshness_seconds_count", "store_edges", "lag_messages", "published_total"):
        assert re.search(rf"^upwell_{name}\S* [0-9.]", metrics, re.M), name
    assert "<title>Upwell</title>" in get("")
    assert json.loads(get("api/now"))["worker"] == "demo"
    assert json.loads(get("api/history"))


def test_top_prints_once_what_the_heartbeat_says(stage):
    def fine() -> bool:
        return upwell(stage, "top", "--once").returncode == 0

    wait_until(fine, "all is well")
    shown = upwell(stage, "top", "--once").stdout
    assert "worker demo, live" in shown
    assert "catalog event" in shown
    told = json.loads(upwell(stage, "top", "--json").stdout)
    assert told["phase"] == "live"
    assert upwell(stage, "top", "--once", "--worker", "other").returncode == 1


def test_a_killed_worker_loses_nothing_and_doubles_nothing(stage, folder, reader, producer):
    """The graph at the end against a plain fold of the same log, edge by edge."""
    rng = np.random.default_rng(8)
    settings, expected = stage.settings, defaultdict(float)
    before = load_snapshot(folder / "checkpoints", settings.graph).state
    wait_until(lambda: stage.heartbeat().get("settled"), "the worker is settled")

    def send(count: int) -> None:
        for _ in range(count):
            a, b = (f"m{n}" for n in rng.integers(3, 38) + np.array([0, 1]))
            pair = CoPlay(a, b, int(20_000_000 + rng.integers(10**6)), float(rng.integers(1, 9)))
            producer.send(settings.kafka.coplays, key=a, value=msgspec.json.encode(pair))
            expected[frozenset((a, b))] += pair.weight
        producer.flush()

    send(3000)
    stage.worker.kill(signal.SIGKILL)
    send(3000)
    log = folder / "worker.log"
    command = [sys.executable, "-m", "streams.cli", "worker", "--config", folder / "upwell.toml"]
    env = {"OMP_NUM_THREADS": "1"}
    with spawn("worker", command, log=log, env=env, grace_s=30) as worker:
        wait_until(
            lambda: (
                stage.heartbeat().get("pid") == worker.pid
                and stage.heartbeat().get("phase") == "live"
                and stage.heartbeat()["events"].get("coplays", {}).get("in", 0) >= 6000
            ),
            "the worker has caught up",
            within_s=60,
        )
        assert worker.stop() == 0, worker.tail()

    assert not checkpoint.newest(folder / "checkpoints")[1]
    after = load_snapshot(folder / "checkpoints", settings.graph).state
    for pair, weight in expected.items():
        assert weight_of(after, pair) == pytest.approx(weight_of(before, pair) + weight)
