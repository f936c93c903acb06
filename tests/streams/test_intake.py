"""From a batch to the state: watermarks, clocks that are wrong, and dead letters that wait."""

import json
import threading
import time

import pytest

from streams.events import Message
from streams.ingest import Batch
from streams.intake import Intake
from streams.metrics import Metrics
from streams.settings import GraphSettings, KafkaSettings
from streams.state import State
from streams.topics import BrokerUnreachable
from tests.servers import wait_until

NOW = 1_700_000_000_000


class StillIngest:
    """An ingest that is told to keep its clients alive, and to go on."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def keep_alive(self) -> None:
        self.told.append("keep alive")

    def go_on(self) -> None:
        self.told.append("go on")


class Letters:
    """A producer of dead letters whose broker is away at first."""

    def __init__(self, away: int = 0) -> None:
        self.away, self.sent, self.arrived = away, [], []

    def send(self, topic, *, key, value, **_):
        self.sent.append((topic, value))

    def flush(self):
        if self.away:
            self.away -= 1
            self.sent.clear()
            raise BrokerUnreachable("nowhere:1", 1.0)
        self.arrived += self.sent
        self.sent = []


@pytest.fixture
def intake() -> Intake:
    state = State.empty(GraphSettings())
    return Intake(StillIngest(), Letters(), state, Metrics(), KafkaSettings())


def batch_of(*events: dict, topic: str = "coplays", at: int = NOW, own: bool = False) -> Batch:
    """A batch of one event a partition."""
    messages = [
        Message(topic, part, 7, event.get("title", "k").encode(), json.dumps(event).encode(), at)
        for part, event in enumerate(events)
    ]
    positions = {(topic, part): 8 for part in range(len(events))}
    return Batch({topic: messages}, positions, own_stamps={topic} if own else set())


def pair(time_ms: int, a: str = "1") -> dict:
    return {"a": a, "b": "2", "time_ms": time_ms}


def title(time_ms: int, genre: str) -> dict:
    return {"title": "m", "time_ms": time_ms, "concepts": {"genre": [genre]}}


def test_watermarks_are_the_newest_event_of_each_partition_and_the_low_one_is_their_least(intake):
    intake.take(batch_of(pair(50), pair(90), pair(70)))
    intake.take(batch_of(pair(40), pair(20), pair(80)))

    state = intake._state
    assert state.event_ms == {("coplays", 0): 50, ("coplays", 1): 90, ("coplays", 2): 80}
    assert state.low_watermark_ms("coplays") == 50
    assert state.low_watermark_ms("catalog") is None


def test_watermarks_stand_in_the_checkpoint(intake, tmp_path):
    intake.take(batch_of(title(60, "Drama"), topic="catalog"))

    meta = json.loads(json.dumps(intake._state.save(tmp_path)))
    loaded = State.load(tmp_path, meta, GraphSettings())
    del meta["event_ms"]  # as an older version wrote it
    older = State.load(tmp_path, meta, GraphSettings())

    assert loaded.event_ms == {("catalog", 0): 60}
    assert older.event_ms == {}


@pytest.mark.parametrize("skew_s", [-3600, 3600])
def test_a_clock_that_is_an_hour_off_freezes_no_title(intake, skew_s):
    intake.take(batch_of(title(NOW - 10 + skew_s * 1000, "Crime"), topic="catalog", at=NOW - 10))
    intake.take(batch_of(title(NOW, "Drama"), topic="catalog"))

    graph = intake._state.graph
    heads, tails, _ = graph.edges(graph.relation_id("genre"))
    assert len(heads) == 1
    assert graph.ids["concept"].names(tails) == ["genre:Drama"]
    assert intake.ahead == ({"catalog": 1} if skew_s > 0 else {})


def test_an_event_of_a_clock_that_runs_ahead_moves_no_watermark_past_its_append(intake):
    intake.take(batch_of(pair(NOW + 3_000_000)))

    assert intake._state.event_ms == {("coplays", 0): NOW}
    assert intake.ahead == {"coplays": 1}


def test_a_stamp_of_years_ahead_is_dead_and_the_title_goes_on(intake):
    ahead = int(time.time() * 1000) + 10**11
    dead = batch_of(title(ahead, "Crime"), topic="catalog", at=ahead, own=True)

    intake.take(dead)
    intake.take(batch_of(title(NOW, "Drama"), topic="catalog", own=True))

    ((topic, value),) = intake._producer.arrived
    assert (topic, value) == ("catalog.dead", dead.messages["catalog"][0].value)
    assert "m" in intake._state.catalog
    assert intake._state.low_watermark_ms("catalog") == NOW
    assert intake._state.positions == {("catalog", 0): 8}


def test_the_brokers_own_stamps_are_believed_whatever_the_clock_here_says(intake):
    ahead = int(time.time() * 1000) + 10**11

    intake.take(batch_of(title(ahead, "Crime"), topic="catalog", at=ahead))

    assert "m" in intake._state.catalog
    assert intake._producer.arrived == []


def test_a_catalog_event_that_came_too_late_is_counted(intake):
    intake.take(batch_of(title(NOW, "Drama"), topic="catalog"))
    intake.take(batch_of(title(NOW - 1, "Crime"), topic="catalog"))

    assert intake._state.stale == 1


def test_while_dead_letters_wait_the_clients_are_served_and_positions_stay(intake, monkeypatch):
    monkeypatch.setattr("streams.intake.RETRY_S", 0.01)
    intake._producer.away = 3
    thread = threading.Thread(target=intake.take, args=(batch_of(pair(1), pair(1, a="2")),))

    thread.start()
    wait_until(lambda: not thread.is_alive())

    assert intake._ingest.told == ["keep alive"] * 3 + ["go on"]
    assert len(intake._producer.arrived) == 1
    assert intake._state.positions == {("coplays", 0): 8, ("coplays", 1): 8}
