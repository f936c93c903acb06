"""Ten times the usual rate for two minutes: memory stays bounded, and freshness comes back.

The usual rate is a fifth of what the worker takes in on this machine at this moment, so that ten
times of it is twice what it can take: its backlog must stay in Kafka, not in memory. Co-plays come
as JSON from a set of messages made before, so that sending costs little; how often each was sent is
the oracle. All the while a catalogue's title is published every second, and timed until its
embedding can be read: new titles go before the backlog.
"""

import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import confluent_kafka
import numpy as np

from serve import vectors
from serve.connection import call
from streams.events import CatalogEntry, CoPlay, encode
from tests.faults.feed import Progress
from tests.faults.kills import positions_of
from tests.faults.oracle import Difference, Pair, edges_of
from tests.faults.report import Report
from tests.faults.rig import Fault, Process, Rig, open_rig, title_of, wait_until

TITLES = 400
MESSAGES = 20_000  # made before, and sent again and again
SLICE_S = 0.02
BURST = 60_000  # to measure what the worker takes in
USUAL_S = 10.0
FACTOR = 10
RSS_CAP_MB = 1024
MAX_BYTES = 2 * 10**9  # of what is sent in all
RECOVER_S = 5.0  # freshness once the backlog is gone


@dataclass(slots=True)
class Outcome:
    """Rates are events a second, memory is resident, `recover_s` starts where the overload ends."""

    capacity: float = 0.0
    usual: float = 0.0
    reached: float = 0.0
    sent: int = 0
    lost: float = 0.0
    doubled: float = 0.0
    rss_idle_mb: float = 0.0
    rss_max_mb: float = 0.0
    lag_max: int = 0
    recover_s: float = 0.0
    catalog_usual_s: float = 0.0
    catalog_overload_s: float = 0.0
    catalog_after_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def tell(self, report: Report) -> None:
        name = "overload"
        report.told(name, "capacity_events_per_s", round(self.capacity))
        report.told(name, "usual_events_per_s", round(self.usual))
        report.told(name, "overload_events_per_s", round(self.reached))
        report.told(name, "overload_events", self.sent)
        report.exactly(name, "overload_lost", self.lost)
        report.exactly(name, "overload_doubled", self.doubled)
        report.told(name, "overload_rss_idle_mb", round(self.rss_idle_mb))
        report.at_most(name, "overload_rss_max_mb", round(self.rss_max_mb), RSS_CAP_MB)
        report.told(name, "overload_lag_max", self.lag_max)
        report.told(name, "overload_recover_s", self.recover_s)
        report.told(name, "catalog_freshness_usual_s", self.catalog_usual_s)
        report.told(name, "catalog_freshness_overload_max_s", self.catalog_overload_s)
        report.at_most(name, "catalog_freshness_after_s", self.catalog_after_s, RECOVER_S)
        report.wrong += [f"{name}: {one}" for one in self.wrong]


class _Load:
    """Sends at a rate; knows how often each message was sent."""

    def __init__(self, rig: Rig, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._rig, self._rng = rig, rng
        self._topics = rig.settings.kafka
        now_ms = int(time.time() * 1000)
        a = rng.integers(0, TITLES - 1, MESSAGES)
        b = a + 1 + rng.integers(0, TITLES - 1 - a)
        weight = rng.integers(1, 5, MESSAGES)
        self.pairs: list[tuple[Pair, float]] = [
            ((min(x, y), max(x, y)), float(w))
            for x, y, w in zip(
                map(title_of, a.tolist()), map(title_of, b.tolist()), weight.tolist(), strict=True
            )
        ]
        self._raw = [encode(CoPlay(*pair, now_ms, w)) for pair, w in self.pairs]
        self.sent = 0
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": rig.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 20,
                "batch.size": 400_000,
                "queue.buffering.max.messages": 200_000,
                "message.timeout.ms": 300_000,
                "log_level": 0,
            }
        )
        self._probes: dict[str, float] = {}
        self.probed: list[float] = []
        self._number = 0

    def send(self, count: int) -> None:
        produce, raw, topic = self._producer.produce, self._raw, self._topics.coplays
        for n in range(self.sent, self.sent + count):
            while True:
                try:
                    produce(topic, raw[n % MESSAGES])
                    break
                except BufferError:
                    self._producer.poll(0.05)
        self.sent += count
        self._producer.poll(0)

    def flush(self) -> None:
        if self._producer.flush(300.0):
            raise Fault("the broker does not take what is sent")

    def probe(self) -> None:
        """Publish a title, once the one before can be read."""
        if self._probes:
            return
        self._number += 1
        title = f"probe{self._number}"
        entry = CatalogEntry(title, int(time.time() * 1000), {"genre": ["g1"]})
        self._probes[title] = time.monotonic()
        self._producer.produce(self._topics.catalog, encode(entry), title)

    def look(self) -> None:
        """Note how long each published title took."""
        space = self._rig.settings.redis.space
        for title, since in list(self._probes.items()):
            if call(self._rig.client, "HEXISTS", vectors.title_key(space, title), "vec"):
                self.probed.append(time.monotonic() - since)
                del self._probes[title]

    def slowest(self) -> float:
        """The slowest since the last call, one that is still on its way among them."""
        waiting = [time.monotonic() - since for since in self._probes.values()]
        found, self.probed = max([*self.probed, *waiting], default=0.0), []
        return round(found, 2)

    def expected(self) -> dict[Pair, float]:
        rounds, rest = divmod(self.sent, MESSAGES)
        weights: dict[Pair, float] = defaultdict(float)
        for n, (pair, weight) in enumerate(self.pairs):
            if times := rounds + (n < rest):
                weights[pair] += weight * times
        return weights


def run(folder: Path, *, seed: int, length_s: float, kafka: bool, progress: Progress) -> Outcome:
    """Overload a worker for `length_s` seconds, and wait until it has caught up."""
    outcome = Outcome()
    sections = {"kafka": {"max_batch": 20_000}, "checkpoint": {"interval_s": 5.0}}
    with open_rig(folder, titles=TITLES, apache=kafka, **sections) as rig:
        worker = rig.worker()
        rig.wait_live(worker)
        load = _Load(rig, seed)
        outcome.rss_idle_mb = worker.rss_bytes() / 1e6
        start = time.monotonic()
        load.send(BURST)
        load.flush()
        _wait_read(rig, worker, BURST)
        outcome.capacity = BURST / (time.monotonic() - start)
        outcome.usual = outcome.capacity * 2 / FACTOR
        progress("overload", 0, 3, f"{outcome.capacity:,.0f} events/s taken in")

        _drive(rig, worker, load, outcome.usual, USUAL_S, outcome)
        outcome.catalog_usual_s = load.slowest()
        progress("overload", 1, 3, f"usual: {outcome.usual:,.0f} events/s")

        before, start = load.sent, time.monotonic()
        wanted = min(outcome.usual * FACTOR, MAX_BYTES / 80 / length_s)
        _drive(rig, worker, load, wanted, length_s, outcome)
        outcome.reached = (load.sent - before) / (time.monotonic() - start)
        outcome.catalog_overload_s = load.slowest()
        load.flush()
        start = time.monotonic()
        progress("overload", 2, 3, f"overload: {outcome.reached:,.0f} events/s")

        _wait_read(rig, worker, load.sent, outcome)
        outcome.recover_s = round(time.monotonic() - start, 2)
        load.look()
        load.slowest()
        for _ in range(3):
            load.probe()
            load.flush()
            wait_until(lambda: load.look() or not load._probes, "a title after the overload")
        outcome.catalog_after_s = load.slowest()
        outcome.sent = load.sent
        worker.stop()
        _compare(rig, load, outcome)
        progress("overload", 3, 3, f"through after {outcome.recover_s:g} s")
    return outcome


def _drive(
    rig: Rig, worker: Process, load: _Load, rate: float, seconds: float, outcome: Outcome
) -> None:
    """Send at `rate`, or as fast as it goes."""
    start, first, looked = time.monotonic(), load.sent, 0.0
    while (passed := time.monotonic() - start) < seconds:
        due = int(rate * passed) - (load.sent - first)
        if due > 0:
            load.send(min(due, int(rate * SLICE_S * 5) + 1))
        if passed - looked > 0.2:
            looked = passed
            load.probe()
            load.look()
            _note(rig, worker, outcome)
        time.sleep(SLICE_S if due <= 0 else 0)


def _note(rig: Rig, worker: Process, outcome: Outcome) -> dict[str, Any]:
    if (code := worker.poll()) is not None:
        raise Fault(f"the worker ended with {code}:\n{worker.tail()}")
    outcome.rss_max_mb = max(outcome.rss_max_mb, worker.rss_bytes() / 1e6)
    beat = rig.beat()
    outcome.lag_max = max(outcome.lag_max, beat.get("lag", 0))
    return beat


def _wait_read(rig: Rig, worker: Process, coplays: int, outcome: Outcome | None = None) -> None:
    """Until so many co-plays have acted, and are embedded."""
    outcome = outcome or Outcome()
    topic = rig.settings.kafka.coplays

    def through() -> bool:
        beat = _note(rig, worker, outcome)
        return beat.get("events", {}).get(topic, {}).get("in", 0) >= coplays

    wait_until(through, f"{coplays} co-plays taken in", 900.0)
    rig.wait_settled(worker, 0)


def _compare(rig: Rig, load: _Load, outcome: Outcome) -> None:
    found = Difference()
    got, want = edges_of(rig.load().state, found), load.expected()
    for pair in got.keys() | want.keys():
        has, must = got.get(pair, 0.0), want.get(pair, 0.0)
        outcome.lost += max(must - has, 0.0)
        outcome.doubled += max(has - must, 0.0)
    messages = sum(at for (topic, _), at in positions_of(rig).items() if topic.endswith("coplays"))
    if messages != load.sent:
        outcome.wrong.append(f"{load.sent} co-plays were sent, {messages} are in the checkpoint")
