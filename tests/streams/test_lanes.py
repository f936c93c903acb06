"""The two lanes against a real Redis: what is dirty goes out, and nothing is lost with Redis."""

import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.folder import load_model
from model.inference import Embedder
from serve.connection import RedisFailed
from serve.publisher import Publisher
from serve.reader import EmbeddingReader
from streams import failpoints
from streams.dirty import CLEAN, DirtySet
from streams.embedded import RedisServer
from streams.events import CatalogEntry, CoPlays, Retirement
from streams.metrics import STAGES, Metrics
from streams.refresh import RefreshLane
from streams.settings import GraphSettings, RefreshSettings, TrainingSettings
from streams.snapshot import Snapshot, load_snapshot, save_snapshot
from streams.training import TrainingLane
from tests.servers import connect, wait_until
from tests.streams.small import TITLES, small_checkpoint

NOW_MS = 1_000_000


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("lanes")
    small_checkpoint(root)
    return root


@pytest.fixture
def snapshot(checkpoints) -> Snapshot:
    return load_snapshot(checkpoints, GraphSettings())


@pytest.fixture
def lane(snapshot, redis_client) -> RefreshLane:
    embedder = Embedder(snapshot.model)
    embedder.full(snapshot.state.graph)
    publisher = Publisher(redis_client, "main")
    lane = RefreshLane(
        snapshot.state, embedder, publisher, Metrics(), RefreshSettings(), step=snapshot.step
    )
    lane.open_space()
    lane.tick()
    return lane


def training_of(
    snapshot: Snapshot, lane: RefreshLane, refused: Path, **settings: object
) -> TrainingLane:
    return TrainingLane(
        snapshot.state,
        lane,
        snapshot.trainer,
        Metrics(),
        TrainingSettings(min_fresh=10, **settings),
        model=snapshot.model,
        step=snapshot.step,
        refused=refused,
    )


def play(snapshot: Snapshot, pairs: int) -> None:
    rng = np.random.default_rng(1)
    a = rng.integers(0, TITLES, pairs)
    b = (a + 1 + rng.integers(0, TITLES - 1, pairs)) % TITLES
    columns = CoPlays(
        [f"m{n}" for n in a],
        [f"m{n}" for n in b],
        np.ones(pairs, np.float32),
        np.full(pairs, NOW_MS),
        np.zeros(pairs, np.int32),
    )
    snapshot.state.apply_coplays(columns, np.full(pairs, NOW_MS))


def publish(snapshot: Snapshot, *entries: CatalogEntry) -> None:
    snapshot.state.apply_catalog(list(entries), np.full(len(entries), NOW_MS))


def test_the_space_is_live_once_every_title_is_in_it(lane, redis_client):
    titles, matrix = EmbeddingReader(redis_client).all()

    assert len(titles) == TITLES
    assert np.isfinite(matrix).all()
    assert lane.settled


def test_a_new_title_goes_out_with_the_next_tick(lane, snapshot, redis_client):
    publish(snapshot, CatalogEntry(title="new", time_ms=NOW_MS, concepts={"genre": ["Crime"]}))

    lane.tick()

    batch = EmbeddingReader(redis_client).get_many(["new"])
    assert batch.found[0]
    assert batch.versions.time_ms[0] == NOW_MS


def test_a_refresh_gives_what_a_full_inference_gives(lane, snapshot, redis_client):
    play(snapshot, 30)
    publish(snapshot, CatalogEntry(title="new", time_ms=NOW_MS, concepts={"genre": ["Crime"]}))

    lane.tick()

    full = Embedder(snapshot.model)
    full.full(snapshot.state.graph)
    new = snapshot.state.graph.ids["title"].find(["new"])
    published = EmbeddingReader(redis_client).get_many(["new"]).matrix
    np.testing.assert_allclose(published, full.vectors(new), atol=1e-4)  # float32, two layers


def test_a_retired_title_goes_and_may_come_again(lane, snapshot, redis_client):
    reader = EmbeddingReader(redis_client)
    publish(snapshot, Retirement(title="m1", time_ms=NOW_MS))
    lane.tick()
    gone = reader.get_many(["m1"]).found[0]

    publish(snapshot, CatalogEntry(title="m1", time_ms=NOW_MS + 1, concepts={"genre": ["Drama"]}))
    lane.tick()

    assert not gone
    assert reader.get_many(["m1"]).found[0]


def test_a_retired_titles_slot_means_the_next_title_and_nothing_of_the_last(lane, snapshot):
    old = snapshot.state.graph.ids["title"].find(["m1"])
    before = lane.embedder.vectors(old)
    play(snapshot, 200)

    publish(
        snapshot,
        Retirement(title="m1", time_ms=NOW_MS),
        CatalogEntry(title="other", time_ms=NOW_MS, concepts={"genre": ["Western"]}),
    )
    lane.tick()

    new = snapshot.state.graph.ids["title"].find(["other"])
    assert new.tolist() == old.tolist()
    assert not np.allclose(lane.embedder.vectors(new), before)
    assert not any(np.isin(old, [*pairs.a, *pairs.b]) for pairs in snapshot.state.fresh)


def meanwhile(monkeypatch, point: str, work) -> None:
    """Have `work` done once, as another thread would, when the lane passes `point`."""
    left = [work]

    def reach(name: str) -> None:
        if name == point and left:
            left.pop()()

    monkeypatch.setattr(failpoints, "reach", reach)


def test_a_title_that_is_retired_while_its_vector_is_on_the_way_does_not_stop_the_lane(
    lane, snapshot, redis_client, monkeypatch
):
    publish(snapshot, CatalogEntry(title="m3", time_ms=NOW_MS, concepts={"genre": ["Crime"]}))
    meanwhile(
        monkeypatch,
        "refresh.taken",
        lambda: publish(snapshot, Retirement("m3", NOW_MS + 1)),
    )

    lane.tick()
    lane.tick()

    assert not EmbeddingReader(redis_client).get_many(["m3"]).found[0]
    assert lane.settled


def test_a_retirement_stands_in_the_checkpoint_until_redis_has_it(
    lane, snapshot, monkeypatch, tmp_path
):
    publish(snapshot, Retirement("m3", NOW_MS))
    meanwhile(
        monkeypatch,
        "retire.before",
        lambda: save_snapshot(tmp_path, snapshot, keep=1),
    )

    lane.tick()

    assert load_snapshot(tmp_path, GraphSettings()).state.retired == {"m3": NOW_MS}
    assert snapshot.state.retired == {}


def test_a_title_that_comes_back_while_its_retirement_fails_is_not_taken_out(
    lane, snapshot, redis_client, monkeypatch
):
    def fail() -> None:
        publish(snapshot, CatalogEntry(title="m3", time_ms=NOW_MS + 1, concepts={}))
        raise RedisFailed("just then")

    publish(snapshot, Retirement("m3", NOW_MS))
    meanwhile(monkeypatch, "retire.before", fail)

    with pytest.raises(RedisFailed):
        lane.tick()
    lane.tick()

    assert EmbeddingReader(redis_client).get_many(["m3"]).found[0]
    assert lane.settled


def test_what_an_older_copy_of_redis_brings_back_is_taken_out_again(lane, snapshot, redis_client):
    key = "upwell:main:t:m3"
    old = redis_client.dump(key)
    publish(snapshot, Retirement("m3", NOW_MS))
    lane.tick()
    redis_client.restore(key, 0, old, replace=True)
    came_back = EmbeddingReader(redis_client).get_many(["m3"]).found[0]

    lane.open_space()
    lane.tick()
    lane.tick()

    assert came_back
    assert not EmbeddingReader(redis_client).get_many(["m3"]).found[0]
    assert len(EmbeddingReader(redis_client).all()[0]) == TITLES - 1


def test_a_space_that_cannot_be_opened_is_opened_by_the_lane(snapshot, redis_client):
    embedder = Embedder(snapshot.model)
    embedder.full(snapshot.state.graph)
    lane = RefreshLane(
        snapshot.state,
        embedder,
        Publisher(redis_client, "main"),
        Metrics(),
        RefreshSettings(),
        step=0,
    )
    lane.open_later(RedisFailed("no answer"))
    thread = threading.Thread(target=lane.run)
    thread.start()

    wait_until(lambda: lane.settled, "all is published")
    lane.stop()
    thread.join()

    assert len(EmbeddingReader(redis_client).all()[0]) == TITLES


def test_a_flushed_redis_is_filled_again_without_anyone_asking(lane, redis_client):
    thread = threading.Thread(target=lane.run)
    thread.start()

    redis_client.flushall()

    def filled() -> bool:
        return bool(redis_client.exists("upwell:current")) and lane.settled

    wait_until(filled, "the space is live again")
    lane.stop()
    thread.join()
    assert len(EmbeddingReader(redis_client).all()[0]) == TITLES


def test_while_redis_is_away_titles_stay_dirty_and_go_out_when_it_is_back(snapshot):
    server = RedisServer()
    with server:
        client = connect(server.url, timeout_s=0.2, retries=0)
        embedder = Embedder(snapshot.model)
        embedder.full(snapshot.state.graph)
        publisher = Publisher(client, "main")
        lane = RefreshLane(
            snapshot.state, embedder, publisher, Metrics(), RefreshSettings(), step=0
        )
        lane.open_space()
        lane.tick()
        port = server.port
    thread = threading.Thread(target=lane.run)
    thread.start()
    publish(snapshot, CatalogEntry(title="new", time_ms=NOW_MS, concepts={"genre": ["Crime"]}))
    lane.wake()
    wait_until(lambda: lane.last_error is not None, "the lane has noticed")

    with RedisServer(port=port) as again:
        reader = EmbeddingReader(connect(again.url))
        wait_until(lambda: lane.settled, "all is published again", within_s=30)
        found = reader.get_many(["new", "m3"]).found
        lane.stop()
        thread.join()

    assert found.all()


def test_a_cycle_hands_new_weights_to_the_lane(lane, snapshot, redis_client, tmp_path):
    play(snapshot, 400)
    training = training_of(snapshot, lane, tmp_path)

    training.cycle()
    lane.tick()

    told = training.last_cycles[-1]
    assert (told["verdict"], told["step"] > 0) in [("passed", True), ("refused", False)]
    steps = EmbeddingReader(redis_client).get_many(["m3", "m4"]).versions.step
    assert steps.tolist() == [told["step"]] * 2


def test_too_few_fresh_co_plays_wait_for_the_next_cycle(lane, snapshot, tmp_path):
    play(snapshot, 5)
    training = training_of(snapshot, lane, tmp_path)

    training.cycle()

    assert training.cycles == 0
    assert snapshot.state.fresh_count() == 5


def test_a_failed_cycle_is_told_and_the_next_one_runs(lane, snapshot, tmp_path, monkeypatch):
    play(snapshot, 50)
    training = training_of(snapshot, lane, tmp_path, cycle_s=0.05)
    monkeypatch.setattr(
        snapshot.trainer, "cycle", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no memory"))
    )
    thread = threading.Thread(target=training.run)
    thread.start()

    wait_until(lambda: training.cycles >= 1, "the cycle was told")
    training.stop()
    thread.join()

    assert training.last_cycles[0]["verdict"] == "failed"
    assert training.last_cycles[0]["reason"] == "no memory"


def test_a_refused_model_is_kept_and_readers_never_see_it(lane, snapshot, redis_client, tmp_path):
    play(snapshot, 400)
    snapshot.trainer.config = replace(snapshot.trainer.config, lr=50.0)  # it falls apart
    before = EmbeddingReader(redis_client).all()[1]

    training = training_of(snapshot, lane, tmp_path)
    training.cycle()
    lane.tick()

    assert training.last_cycles[-1]["verdict"] == "refused"
    assert training.last_cycles[-1]["reason"]
    (kept,) = tmp_path.iterdir()
    assert load_model(kept)[1]["reason"] == training.last_cycles[-1]["reason"]
    assert EmbeddingReader(redis_client).get_many(["m3"]).versions.step[0] == 0
    assert EmbeddingReader(redis_client).all()[1].shape == before.shape


def test_the_stages_of_a_titles_freshness_add_up_to_it(snapshot, lane):
    now_ms = int(time.time() * 1000)
    snapshot.state.dirty.read_ms = now_ms - 1000
    pair = CoPlays(
        ["m1"], ["m2"], np.ones(1, np.float32), np.full(1, NOW_MS), np.zeros(1, np.int32)
    )
    snapshot.state.apply_coplays(pair, np.full(1, now_ms - 3000))
    entry = CatalogEntry("m3", NOW_MS, {"genre": ["Drama"]})
    snapshot.state.apply_catalog([entry], np.full(1, now_ms - 5000))

    lane.tick()

    found = sums(lane)
    assert found["coplay", "read"] == pytest.approx(2 * 2.0)
    assert found["catalog", "read"] == pytest.approx(4.0)
    assert found["catalog", "applied"] >= 1.0
    for kind, titles in (("coplay", 2), ("catalog", 1)):
        stages = sum(found[kind, stage] for stage in STAGES)
        assert stages == pytest.approx(found[(kind,)], abs=0.002 * titles)


def test_dirt_of_a_checkpoint_counts_and_has_no_stages(snapshot, lane, tmp_path):
    play(snapshot, 5)
    snapshot.state.dirty.save(tmp_path / "dirty.npy")
    snapshot.state.dirty = DirtySet.load(tmp_path / "dirty.npy")
    assert lane.oldest_ms() == NOW_MS

    lane.tick()

    found = sums(lane)
    assert found["coplay",] > 0
    assert found["coplay", "read"] == 0
    assert lane.oldest_ms() == CLEAN


def sums(lane: RefreshLane) -> dict[tuple[str, ...], float]:
    """Seconds by (kind,) and by (kind, stage), as Prometheus reads them."""
    text = lane._metrics.expose().decode()
    lines = re.findall(
        r'^upwell_(?:freshness|stage)_seconds_sum\{kind="(\w+)"(?:,stage="(\w+)")?\} (\S+)$',
        text,
        re.M,
    )
    return {tuple(filter(None, labels)): float(value) for *labels, value in lines}
