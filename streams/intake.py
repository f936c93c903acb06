"""The ingest thread: takes batches from Kafka, folds them into the state, sets the bad ones aside.

A batch counts as in once it is folded: in = applied + dead, by topic, in messages. Dead letters are
with the broker before the positions move, so that a checkpoint never passes over one.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from serve import vectors
from streams import failpoints
from streams.dead_letters import set_aside
from streams.events import (
    CatalogEntry,
    DeadLetter,
    DecodedCatalog,
    DecodedCoPlays,
    Message,
    Retirement,
    decode_catalog,
    decode_coplays,
)
from streams.ingest import Batch, Ingest
from streams.metrics import Metrics
from streams.producer import DeliveryFailed, Producer
from streams.settings import KafkaSettings
from streams.state import State
from streams.topics import BrokerUnreachable
from streams.traces import Step, Traces

log = logging.getLogger(__name__)

COMPONENT = "worker"
RETRY_S = 0.5
NEWEST = 12
TAIL = 64
WARN_S = 60.0  # a warning that may come with each batch comes so often

_partition_of = attrgetter("partition")


class Intake:
    """One thread runs `run`; the others may ask for `lag` and `commit`.

    Attributes:
        caught_up: set once the topics are read up to where they ended at the start.
        on_catalog: called after catalog events were folded in.
        newest: the titles that the catalogue has won last, oldest first, as JSON.
        turned_s: when the thread last took a turn, monotonic.
        traces: told of each batch, where there are any.
        ahead: events by topic whose writer's clock runs ahead of the broker's.
        last_error: what is wrong with the broker now, or None.
    """

    def __init__(
        self,
        ingest: Ingest,
        producer: Producer,
        state: State,
        metrics: Metrics,
        kafka: KafkaSettings,
    ) -> None:
        self._ingest, self._producer = ingest, producer
        self._state, self._metrics, self._kafka = state, metrics, kafka
        self._stop = threading.Event()
        self.caught_up = threading.Event()
        self.on_catalog: Callable[[], None] = lambda: None
        self.last_error: str | None = None
        self.newest: deque[dict[str, Any]] = deque(maxlen=NEWEST)
        self.turned_s = time.monotonic()
        self.traces: Traces | None = None
        self._read_up_to_ms: dict[tuple[str, int], int] = {}
        self.ahead: dict[str, int] = {}
        self._warned_s = -WARN_S

    @classmethod
    def open(cls, kafka: KafkaSettings, state: State, metrics: Metrics) -> "Intake":
        """Connect, and read on from the state's positions.

        Raises:
            BrokerUnreachable, TopicError: as `Ingest` does.
        """
        client = kafka.client()
        ingest = Ingest(
            kafka.bootstrap,
            [kafka.catalog, kafka.coplays],  # a new title goes before a backlog of co-plays
            state.positions,
            client,
            group=f"{kafka.group}-worker",
            timeout_s=kafka.startup_timeout_s,
            max_bytes=kafka.max_inflight_mb * 2**20,
        )
        return cls(ingest, Producer(kafka.bootstrap, client), state, metrics, kafka)

    def run(self) -> None:
        """Read until stopped; a broker that is away is waited for.

        Raises:
            OffsetLost, IngestFailed: reading on would lose events.
        """
        try:
            while not self._stop.is_set():
                self.turned_s = time.monotonic()
                if self._ingest.caught_up:
                    self.caught_up.set()
                try:
                    batch = self._ingest.consume(self._kafka.max_batch, self._kafka.poll_s)
                except BrokerUnreachable as error:
                    self.last_error = str(error)
                    log.warning("%s", error)
                    continue
                if len(batch):
                    self.last_error = None
                    self.take(batch)
        finally:
            self._ingest.close()

    def take(self, batch: Batch) -> None:
        """Decode and fold in one batch, and set its dead letters aside first."""
        failpoints.reach("ingest.read")
        start, read_s = time.perf_counter(), time.time()
        read_ms = int(read_s * 1000)
        if not self.caught_up.is_set():
            failpoints.reach("recovery.replaying")
        kafka, skew_s = self._kafka, self._kafka.max_skew_s
        catalog = batch.messages.get(kafka.catalog, [])
        coplays = batch.messages.get(kafka.coplays, [])
        # The broker's own stamps are never in doubt: with a wrong clock here all would be dead.
        clock = {topic: read_ms if topic in batch.own_stamps else None for topic in batch.messages}
        entries = decode_catalog(catalog, max_skew_s=skew_s, now_ms=clock.get(kafka.catalog))
        pairs = decode_coplays(coplays, max_skew_s=skew_s, now_ms=clock.get(kafka.coplays))
        dead = [*entries.dead, *pairs.dead]
        self._set_aside(dead)
        decoded_s = time.time()
        with self._state.lock:
            self._state.dirty.read_ms = read_ms
            if entries.entries:
                self._note_new(entries.entries, read_ms)
                refused = self._state.apply_catalog(entries.entries, entries.append_ms)
                letters = [
                    DeadLetter(catalog[entries.row[row]], "ValueError", why, "catalog")
                    for row, why in refused.items()
                ]
                self._set_aside(letters)  # under the lock: rare, and no checkpoint may pass it
                dead += letters
            if len(pairs.pairs):
                self._state.apply_coplays(pairs.pairs, pairs.append_ms)
            self._see(catalog, coplays, entries, pairs)
            self._state.positions.update(batch.positions)
        folded_s = time.time()
        failpoints.reach("ingest.folded")
        if entries.entries:
            self.on_catalog()
        self._count(batch.messages, dead)
        self._metrics.batch(time.perf_counter() - start)
        if self.traces is not None:
            fold = Step("fold", decoded_s, folded_s)
            self.traces.batch(len(batch), [Step("decode", read_s, decoded_s), fold])

    def lag(self) -> dict[tuple[str, int], int]:
        """Messages not yet read, by (topic, partition)."""
        return {} if self._stop.is_set() else self._ingest.lag(timeout_s=0.5)

    def read_up_to_ms(self, lag: Mapping[tuple[str, int], int], floor_ms: int) -> int | None:
        """Every event appended before this moment has been read; None where nothing waits.

        Args:
            lag: messages not yet read, by (topic, partition).
            floor_ms: the answer for a partition that has not given a message yet.
        """
        behind = [key for key, messages in lag.items() if messages]
        return min((self._read_up_to_ms.get(key, floor_ms) for key in behind), default=None)

    def broker_trouble(self, limit_s: float) -> str | None:
        """What is wrong where no broker has answered for more than `limit_s`, or None."""
        if self._stop.is_set() or self._ingest.down_s <= limit_s or self._ingest.answers():
            return None
        return (
            f"no broker at {self._kafka.bootstrap} has answered for {self._ingest.down_s:.0f} s; "
            "is it running, and is kafka.bootstrap right?"
        )

    def commit(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Tell Kafka how far a durable checkpoint reaches."""
        if not self._stop.is_set():
            self._ingest.commit(positions)

    def stop(self) -> None:
        self._stop.set()

    def _set_aside(self, letters: Sequence[DeadLetter]) -> None:
        if not letters:
            return
        log.warning("%d messages set aside; the first: %s", len(letters), letters[0].reason)
        try:
            while not self._stop.is_set():
                try:
                    set_aside(self._producer, letters, component=COMPONENT)
                except (BrokerUnreachable, DeliveryFailed) as error:
                    self.last_error = str(error)
                    log.warning("dead letters wait: %s", error)
                    self._ingest.keep_alive()
                    time.sleep(RETRY_S)
                else:
                    return
        finally:
            self._ingest.go_on()
        raise DeliveryFailed(f"stopped while {len(letters)} dead letters were not delivered")

    def _note_new(self, entries: Sequence[CatalogEntry], read_ms: int) -> None:
        catalog = self._state.catalog
        self.newest.extend(
            {"title": one.title, "name": one.name, "read_ms": read_ms}
            for one in entries
            if not (
                one.title in catalog
                or isinstance(one, Retirement)
                or one.title.startswith(vectors.RESERVED)  # a canary
            )
        )

    def _see(
        self,
        catalog: Sequence[Message],
        coplays: Sequence[Message],
        entries: DecodedCatalog,
        pairs: DecodedCoPlays,
    ) -> None:
        """Move the watermarks, and flag clocks that run ahead."""
        partitions = np.fromiter(map(_partition_of, coplays), np.int32, len(coplays))
        self._state.seen(self._kafka.coplays, partitions[pairs.pairs.row], pairs.pairs.time_ms)
        if entries.entries:
            partitions = np.array([catalog[row].partition for row in entries.row], np.int32)
            times = np.array([entry.time_ms for entry in entries.entries], np.int64)
            self._state.seen(self._kafka.catalog, partitions, times)
        for topic, ahead in ((self._kafka.catalog, entries), (self._kafka.coplays, pairs)):
            if not ahead.ahead:
                continue
            self.ahead[topic] = self.ahead.get(topic, 0) + ahead.ahead
            if time.monotonic() > self._warned_s + WARN_S:
                self._warned_s = time.monotonic()
                log.warning(
                    "%d events of %r so far were stamped after their append, and count as of it: "
                    "a writer's clock runs ahead",
                    self.ahead[topic],
                    topic,
                )

    def _count(self, messages: Mapping[str, Sequence[Message]], dead: Sequence[DeadLetter]) -> None:
        for topic, found in messages.items():
            # Of the last few: a partition that is not among them keeps an earlier, safe value.
            for one in found[-TAIL:]:
                self._read_up_to_ms[topic, one.partition] = one.timestamp_ms
            bad = sum(letter.message.topic == topic for letter in dead)
            self._metrics.events(topic, read=len(found), applied=len(found) - bad, dead=bad)
