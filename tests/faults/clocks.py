"""Clocks that are wrong: an hour ahead, an hour behind, and far in the future.

    ahead by less than an hour    taken, and counted as of its append: the broker's clock decides
    behind                        taken; an older catalog event than the one that stands is ignored
    ahead by more, or absurd      set aside, with a reason that says by how much

What is asked: none of them freezes its title. After each, an event of a right clock must win: its
name must be read from Redis, and a retirement must take the title out.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

from serve import vectors
from serve.connection import call
from streams.dead_letters import read_dead
from streams.events import CatalogEntry, CoPlay, encode
from streams.producer import Producer
from streams.wire import MAX_TIME_MS
from tests.faults.feed import Progress
from tests.faults.rig import Fault, Rig, open_rig, wait_until

HOUR_MS = 3_600_000
SKEWS_MS = {
    "an hour behind": -HOUR_MS,
    "most of an hour ahead": HOUR_MS - 60_000,
    "two hours ahead": 2 * HOUR_MS,
    "a year ahead": 365 * 24 * HOUR_MS,
    "at the end of time": MAX_TIME_MS,
}
FLAGGED = ("two hours ahead", "a year ahead", "at the end of time")
SEEN_S = 30.0


@dataclass(slots=True)
class Outcome:
    """`flagged`: events set aside for their time, of `to_flag`; `frozen` must be 0."""

    skews: int = 0
    to_flag: int = 0
    flagged: int = 0
    frozen: int = 0
    wrong: list[str] = field(default_factory=list)


def run(folder: Path, *, kafka: bool, progress: Progress) -> Outcome:
    """One title for each skew: events of the wrong clock, then of the right one."""
    outcome = Outcome()
    with open_rig(folder, titles=20, apache=kafka) as rig, Producer(rig.bootstrap) as producer:
        worker = rig.worker()
        rig.wait_live(worker)
        for n, (name, skew_ms) in enumerate(SKEWS_MS.items()):
            outcome.skews += 1
            _skewed(rig, producer, f"m{n}", skew_ms)
            outcome.to_flag += 2 * (name in FLAGGED)
            if why := _frozen(rig, producer, f"m{n}"):
                outcome.frozen += 1
                outcome.wrong.append(f"{name}: {why}")
            progress("clocks", n + 1, len(SKEWS_MS), name)
        kafka_ = rig.settings.kafka
        letters = [one for topic in (kafka_.catalog, kafka_.coplays) for one in _dead(rig, topic)]
        outcome.flagged = sum("after the append" in one for one in letters)
        if outcome.flagged != outcome.to_flag or len(letters) != outcome.to_flag:
            outcome.wrong.append(f"set aside: {letters}")
        worker.stop()
    return outcome


def _skewed(rig: Rig, producer: Producer, title: str, skew_ms: int) -> None:
    """A catalog event and a co-play by a clock that is off by so much."""
    time_ms = min(int(time.time() * 1000) + skew_ms, MAX_TIME_MS)
    kafka = rig.settings.kafka
    entry = CatalogEntry(title, time_ms, {"genre": ["g1"]}, name="wrong clock")
    producer.send(kafka.catalog, key=title, value=encode(entry))
    producer.send(kafka.coplays, key=title, value=encode(CoPlay("m15", title, time_ms, 2.0)))
    producer.flush()


def _frozen(rig: Rig, producer: Producer, title: str) -> str:
    """Empty where an event of a right clock changes the title, and a retirement takes it out."""
    kafka, key = rig.settings.kafka, vectors.title_key(rig.settings.redis.space, title)
    entry = CatalogEntry(title, int(time.time() * 1000) + 1, {"genre": ["g2"]}, name="right clock")
    try:
        producer.send(kafka.catalog, key=title, value=encode(entry))
        producer.flush()
        wait_until(
            lambda: call(rig.client, "HGET", key, "name") == b"right clock", "its new name", SEEN_S
        )
        ahead_ms = int(call(rig.client, "HGET", key, "time_ms")) - int(time.time() * 1000)
        if ahead_ms > 0:
            return f"published as of {ahead_ms} ms from now"
        producer.send(kafka.catalog, key=title, value=None)
        producer.flush()
        wait_until(lambda: not call(rig.client, "HEXISTS", key, "vec"), "its retirement", SEEN_S)
    except Fault as error:
        return str(error)
    return ""


def _dead(rig: Rig, topic: str) -> list[str]:
    return [one.reason for one in read_dead(rig.bootstrap, topic)]
