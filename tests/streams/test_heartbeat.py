"""What the ingest notes for the heartbeat: newest titles, and up to when all has been read."""

import msgspec
import numpy as np
import pytest

from serve.vectors import RESERVED
from streams.events import Message
from streams.heartbeat import resident_bytes
from streams.ingest import Batch
from streams.intake import NEWEST, Intake
from streams.metrics import Metrics
from streams.settings import GraphSettings, KafkaSettings
from streams.state import State

NOW_MS = 1_700_000_000_000


@pytest.fixture
def intake() -> Intake:
    """An ingest whose batches a test brings: it asks neither a broker nor a producer."""
    return Intake(None, None, State.empty(GraphSettings()), Metrics(), KafkaSettings())


def batch_of(*entries: tuple[str, int, int], topic: str = "catalog") -> Batch:
    """Catalog events: title, partition, append time."""
    messages = [
        Message(
            topic,
            partition,
            row,
            title.encode(),
            msgspec.json.encode({"title": title, "time_ms": NOW_MS, "concepts": {}}),
            append_ms,
        )
        for row, (title, partition, append_ms) in enumerate(entries)
    ]
    return Batch({topic: messages}, {(topic, 0): len(messages)})


def test_the_newest_titles_are_those_that_were_not_in_the_catalogue(intake):
    intake.take(batch_of(("a", 0, NOW_MS), ("b", 0, NOW_MS), (f"{RESERVED}1", 0, NOW_MS)))
    intake.take(batch_of(("b", 0, NOW_MS), ("c", 0, NOW_MS)))

    assert [one["title"] for one in intake.newest] == ["a", "b", "c"]
    intake.take(batch_of(*((f"t{n}", 0, NOW_MS) for n in range(NEWEST))))
    assert [one["title"] for one in intake.newest] == [f"t{n}" for n in range(NEWEST)]


def test_all_is_read_up_to_the_last_message_of_the_partition_that_is_behind_the_most(intake):
    intake.take(batch_of(("a", 0, NOW_MS), ("b", 1, NOW_MS + 50), ("c", 0, NOW_MS + 70)))

    lag = {("catalog", 0): 3, ("catalog", 1): 1, ("catalog", 2): 0}
    assert intake.read_up_to_ms(lag, floor_ms=7) == NOW_MS + 50
    assert intake.read_up_to_ms({("catalog", 0): 3}, floor_ms=7) == NOW_MS + 70
    assert intake.read_up_to_ms({("catalog", 3): 1}, floor_ms=7) == 7
    assert intake.read_up_to_ms({("catalog", 3): 0}, floor_ms=7) is None


def test_a_batch_is_timed_and_its_titles_know_when_it_was_read(intake):
    intake.take(batch_of(("a", 0, NOW_MS)))

    taken = intake._state.dirty.take(9)
    assert (taken.when_ms[:, :2] >= NOW_MS).all()
    assert (np.diff(taken.when_ms[:, :2]) >= 0).all()
    assert "\nupwell_batch_seconds_count 1.0\n" in intake._metrics.expose().decode()


def test_a_process_knows_how_much_memory_it_has():
    assert resident_bytes() > 10_000_000
