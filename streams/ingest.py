"""Reading `coplays` and `catalog` from given offsets on, in batches.

The offsets are the caller's truth (they stand in its checkpoint): partitions are assigned, not
subscribed to, and Kafka's own committed offsets are written for dashboards only. No group deals out
partitions, so new ones of a topic are looked for here.

Each topic has a consumer of its own, with its own queue. So a catalog event never waits behind a
backlog of co-plays: each batch takes what the catalog has, and then co-plays for the rest.

What is in flight is bounded in bytes, `max_bytes`: a half for the queues, in equal parts, and a
32nd for the messages of one batch, since readers wait while one is folded in; what it is decoded
into takes up to four times as much (from Arrow; from JSON up to ten, but then `max_messages` is
what bounds it). One message may be larger, and comes alone. A paused topic fetches nothing more.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import confluent_kafka
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from streams.events import Message
from streams.fetch import fetch_config
from streams.topics import BrokerUnreachable, TopicError, partitions, wait_for_broker

log = logging.getLogger(__name__)

Positions = dict[tuple[str, int], int]

LOOK_S: Final = 30.0  # a topic's new partitions are found within that
MAX_BYTES: Final = 256 * 2**20  # in flight
_CHUNK: Final = 500  # the client's objects die young so: else the garbage collector takes half
_DOWN = {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE}


class OffsetLost(RuntimeError):
    """An offset that is to be read next is not in the topic (any more): nothing may be skipped."""


class IngestFailed(RuntimeError):
    """A partition that cannot be read: which, and why. No retry will help."""


@dataclass(slots=True)
class Batch:
    """Messages by topic, each in order within its partition, and the offsets after them.

    Attributes:
        nbytes: of the messages' values.
        own_stamps: topics whose messages bear their writers' clocks, not the broker's.
    """

    messages: dict[str, list[Message]] = field(default_factory=dict)
    positions: Positions = field(default_factory=dict)
    nbytes: int = 0
    own_stamps: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return sum(map(len, self.messages.values()))


class Ingest:
    """All partitions of some topics, from given offsets on. For one thread.

    Args:
        bootstrap: brokers, HOST:PORT with commas between.
        topics: in order of urgency: a batch takes from the first ones first.
        positions: next offset by (topic, partition); a partition without one is read from its
            beginning.
        client: further settings of librdkafka (SASL, TLS).
        group: under whose name `commit` writes.
        timeout_s: until an unreachable broker is an error at the start.
        max_bytes: of what is in flight: see above.

    Raises:
        BrokerUnreachable: no broker answered within `timeout_s` seconds.
        TopicError: a topic does not exist.
    """

    def __init__(
        self,
        bootstrap: str,
        topics: Iterable[str],
        positions: Mapping[tuple[str, int], int] | None = None,
        client: Mapping[str, str] | None = None,
        *,
        group: str = "upwell-worker",
        timeout_s: float = 30.0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.bootstrap = bootstrap
        self._names = list(topics)
        self._queue_bytes = max_bytes // 2 // max(len(self._names), 1)
        self._batch_bytes = max_bytes // 32
        # Of a message, lately; at first few are taken at once, to see how large they are.
        self._mean_bytes = dict.fromkeys(self._names, self._batch_bytes / 8)
        self._client = dict(client or {})
        self._group = group
        self._position: Positions = {}
        self._paused: set[str] = set()
        self._waiting: set[str] = set()
        self._held: dict[str, list[confluent_kafka.Message]] = {name: [] for name in self._names}
        self._unread: set[tuple[str, int]] = set()  # partitions whose end was not seen yet
        self._untried: set[tuple[str, int]] = set()  # partitions that have given nothing yet
        self._down_since: float | None = None
        self._reported = False
        self._consumers: dict[str, confluent_kafka.Consumer] = {}
        self._look_s = time.monotonic() + LOOK_S
        admin = wait_for_broker(bootstrap, client, timeout_s=timeout_s)
        counts = partitions(admin, self._names)
        if absent := sorted(set(self._names) - counts.keys()):
            raise TopicError(f"no topic {absent[0]!r} at {bootstrap}; make it, or start its writer")
        for name in self._names:
            self._consumers[name] = self._consumer(name, counts[name], positions or {})

    def consume(self, max_messages: int, timeout_s: float) -> Batch:
        """The next messages: what the first topics have at once, then what the last one has.

        Waits up to `timeout_s` for the first message, and not for more than are there then.

        Raises:
            BrokerUnreachable: all connections are down, once an outage. Call again: it recovers
                by itself, and nothing is lost.
            OffsetLost: a partition does not hold the offset that is next.
            IngestFailed: a partition cannot be read.
        """
        if time.monotonic() > self._look_s and self._down_since is None:
            self._take_new_partitions()
        batch = Batch()
        for name, held in self._held.items():
            if held and name not in self._paused:
                self._held[name] = []
                self._take(name, held, batch)
        deadline = time.monotonic() + timeout_s
        while True:
            for name in self._names:
                # A paused topic is polled too: its client must keep up with the broker.
                while (room := self._room(name, max_messages, batch)) > 0 and (
                    found := self._consumers[name].consume(room, timeout=0)
                ):
                    self._take(name, found, batch)
            left_s = deadline - time.monotonic()
            if len(batch) or left_s <= 0:
                break
            # The last topic is the busy one: wait there, but look at the others all the while.
            busy = self._names[-1]
            room = max(self._room(busy, max_messages, batch), 1)
            if found := self._consumers[busy].consume(room, timeout=min(left_s, 0.005)):
                self._take(busy, found, batch)
                break
        if len(batch):
            # What was fetched before the outage may come after its error, which comes only once.
            if self._reported:
                self._down_since, self._reported = None, False
        elif self._down_since is not None and not self._reported:
            self._reported = True
            raise BrokerUnreachable(self.bootstrap, time.monotonic() - self._down_since)
        elif self._untried:
            self._check_offsets()
        return batch

    @property
    def caught_up(self) -> bool:
        """Whether each partition was once read up to its end, since the start."""
        return not self._unread

    def positions(self) -> Positions:
        """Next offset by (topic, partition), of what `consume` has returned."""
        return dict(self._position)

    def lag(self, *, timeout_s: float = 5.0) -> dict[tuple[str, int], int]:
        """Messages not yet returned, by (topic, partition), as of the last fetch.

        A partition of which nothing was fetched yet is asked for, for `timeout_s` at most; the
        embedded broker's answer to that is too low (it counts the last batch as one message).
        """
        behind = {}
        for (name, part), position in self.positions().items():  # it may grow meanwhile
            low, high = self._watermarks(name, part)
            if high < 0:
                low, high = self._watermarks(name, part, timeout_s=timeout_s)
            behind[name, part] = max(high - max(position, low, 0), 0)
        return behind

    def pause(self, topic: str) -> None:
        """Fetch nothing more of `topic`, whose queue is dropped, until `resume`."""
        if topic not in self._paused:
            consumer = self._consumers[topic]
            consumer.pause(consumer.assignment())
            self._paused.add(topic)

    def resume(self, topic: str) -> None:
        """Go on with `topic` where `consume` left off."""
        if topic in self._paused:
            consumer = self._consumers[topic]
            consumer.resume(consumer.assignment())
            self._paused.discard(topic)

    def keep_alive(self) -> None:
        """Serve the clients while no batch can be taken: paused, they fetch nothing."""
        for name, consumer in self._consumers.items():
            if name not in self._waiting:
                consumer.pause(consumer.assignment())
                self._waiting.add(name)
            # What was on its way comes with the next batch.
            self._held[name] += consumer.consume(_CHUNK, timeout=0)

    def go_on(self) -> None:
        """End what `keep_alive` began; a topic that `pause` stopped stays so."""
        for name in self._waiting - self._paused:
            consumer = self._consumers[name]
            consumer.resume(consumer.assignment())
        self._waiting.clear()

    def commit(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Tell Kafka how far a durable checkpoint reaches: for dashboards. Failures are logged."""
        for name, consumer in self._consumers.items():
            offsets = [
                TopicPartition(topic, part, offset)
                for (topic, part), offset in positions.items()
                if topic == name and offset >= 0
            ]
            if not offsets:
                continue
            try:
                consumer.commit(offsets=offsets, asynchronous=True)
            except KafkaException as error:
                log.warning("offsets of %s were not committed: %s", name, error.args[0].str())

    @property
    def down_s(self) -> float:
        """For how many seconds no broker has answered; 0 while one does, or is not missed."""
        return 0.0 if self._down_since is None else time.monotonic() - self._down_since

    def answers(self, *, timeout_s: float = 1.0) -> bool:
        """Ask a broker: an idle topic's messages do not tell that an outage is over."""
        for name, part in sorted(self.positions())[:1]:
            if self._watermarks(name, part, timeout_s=timeout_s)[1] < 0:
                return False
            self._down_since, self._reported = None, False
        return True

    def close(self) -> None:
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _consumer(
        self, name: str, count: int, positions: Mapping[tuple[str, int], int]
    ) -> confluent_kafka.Consumer:
        config = fetch_config(
            self.bootstrap, self._group, self._queue_bytes, self._client, self._on_error
        )
        consumer = confluent_kafka.Consumer(config)
        assigned = []
        for part in range(count):
            offset = positions.get((name, part), OFFSET_BEGINNING)
            self._position[name, part] = max(offset, 0)
            self._unread.add((name, part))
            self._untried.add((name, part))
            assigned.append(TopicPartition(name, part, offset))
        consumer.assign(assigned)
        return consumer

    def _take_new_partitions(self) -> None:
        """Read partitions that a topic was given since, from their beginning."""
        self._look_s = time.monotonic() + LOOK_S
        for name, consumer in self._consumers.items():
            known = [part for topic, part in self._position if topic == name]
            try:
                there = consumer.list_topics(name, timeout=1.0).topics[name]
            except (KafkaException, KeyError):  # no broker just now: later
                continue
            new = sorted(set(there.partitions) - set(known)) if there.error is None else []
            if not new:
                continue
            log.info("topic %r has %d partitions more", name, len(new))
            for part in new:
                self._position[name, part] = 0
                self._unread.add((name, part))
                self._untried.add((name, part))
            added = [TopicPartition(name, part, OFFSET_BEGINNING) for part in new]
            consumer.incremental_assign(added)
            if name in self._paused | self._waiting:
                consumer.pause(added)

    def _room(self, name: str, max_messages: int, batch: Batch) -> int:
        """How many messages the batch may take of a topic at once, as far as sizes are known."""
        left = self._batch_bytes - batch.nbytes
        if left <= 0 or self._held[name]:
            return 0
        fitting = int(left / self._mean_bytes[name]) + 1
        return min(max_messages - len(batch), _CHUNK, fitting)

    def _fitting(
        self, name: str, found: list[confluent_kafka.Message], batch: Batch
    ) -> list[confluent_kafka.Message]:
        """As many as the batch has bytes for, and one at least; the rest is held for the next."""
        sizes = list(map(len, found))
        self._mean_bytes[name] = max(1.0, sum(sizes) / len(sizes))
        if batch.nbytes + sum(sizes) > self._batch_bytes:
            fits = batch.nbytes + np.cumsum(sizes) <= self._batch_bytes
            count = max(int(fits.sum()), 0 if len(batch) else 1)
            found, self._held[name] = found[:count], found[count:]
            sizes = sizes[:count]
        batch.nbytes += sum(sizes)
        return found

    def _take(self, name: str, found: list[confluent_kafka.Message], batch: Batch) -> None:
        found = self._fitting(name, found, batch)
        into = batch.messages.setdefault(name, [])
        append, last, kinds = into.append, dict[int, int](), 0
        for one in found:
            if one.error() is not None:
                self._fail(one)
                continue
            # As `from_kafka` does, without its call: this loop is the ingest's hottest one.
            kind, stamp = one.timestamp()
            part: Any = one.partition()
            offset: Any = one.offset()
            last[part] = offset
            kinds |= kind
            append(
                Message(
                    name,
                    part,
                    offset,
                    one.key(),
                    one.value(),
                    stamp if kind else int(time.time() * 1000),
                    one.headers(),  # type: ignore[arg-type]
                )
            )
        if kinds & confluent_kafka.TIMESTAMP_CREATE_TIME:
            batch.own_stamps.add(name)
        self._position.update(((name, part), offset + 1) for part, offset in last.items())
        if not into:
            del batch.messages[name]
        elif self._untried:
            self._untried.difference_update((name, part) for part in last)
        batch.positions = dict(self._position)

    def _fail(self, message: confluent_kafka.Message) -> None:
        error: Any = message.error()
        where = f"partition {message.partition()} of {message.topic()!r}"
        if error.code() == KafkaError._PARTITION_EOF:
            key = (message.topic() or "", message.partition() or 0)
            self._unread.discard(key)
            self._untried.discard(key)
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise OffsetLost(_lost(where, message.offset() or 0, error.str()))
        elif error.code() in _DOWN:
            self._on_error(error)
        elif error.retriable():
            log.warning("%s: %s; it is tried again", where, error.str())
        else:
            raise IngestFailed(f"{where} cannot be read: {error.str()}")

    def _check_offsets(self) -> None:
        """Some brokers answer a fetch past the end with silence: a log that has begun anew."""
        for name, part in sorted(self._untried):
            position, (_, high) = self._position[name, part], self._watermarks(name, part)
            if 0 <= high < position:
                where = f"partition {part} of {name!r}"
                raise OffsetLost(_lost(where, position, f"it ends at {high}"))

    def _watermarks(
        self, name: str, part: int, *, timeout_s: float | None = None
    ) -> tuple[int, int]:
        """First and next offset of a partition as of the last fetch, or asked for; -1: unknown."""
        consumer, partition = self._consumers[name], TopicPartition(name, part)
        try:
            if timeout_s is None:
                found = consumer.get_watermark_offsets(partition, cached=True)
            else:
                found = consumer.get_watermark_offsets(partition, timeout=timeout_s)
        except KafkaException:  # no broker just now
            found = None
        return (-1, -1) if found is None else (found[0], found[1])

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and self._down_since is None:
            self._down_since = time.monotonic()


def _lost(where: str, offset: int, why: str) -> str:
    return (
        f"{where} does not hold offset {offset} ({why}); what lies between is gone. "
        "Start from an empty checkpoint folder, or restore the topic"
    )
