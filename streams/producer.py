"""Writing to Kafka: every message is known to have arrived, or an error names what did not.

Keys go to partitions as Java's clients put them (murmur2), so that a key's events stand in one
partition whoever wrote them. The producer is idempotent: its retries make no message twice.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from streams.events import CatalogEntry, Play, Retirement, check_entry, encode
from streams.topics import BrokerUnreachable

Headers = Sequence[tuple[str, bytes | None]]

log = logging.getLogger(__name__)

PURGES = 5  # a message that is just moving between two of the client's queues escapes one


class DeliveryFailed(RuntimeError):
    """Messages that the broker did not take: how many, of which topic, why."""


class TooLarge(ValueError):
    """A message that is larger than this broker takes."""


class Producer:
    """A thin producer. Not to be shared by threads that both `flush`.

    Args:
        bootstrap: brokers, HOST:PORT with commas between.
        client: further settings of librdkafka (SASL, TLS).
        timeout_s: how long a message may take to arrive; then it has failed.
        linger_s: how long a message waits for others to share its batch.
    """

    def __init__(
        self,
        bootstrap: str,
        client: Mapping[str, str] | None = None,
        *,
        timeout_s: float = 30.0,
        linger_s: float = 0.002,
    ) -> None:
        self.bootstrap = bootstrap
        self._timeout_s = timeout_s
        self._failed: list[tuple[str, KafkaError]] = []
        self.delivered = 0
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": linger_s * 1000,
                "message.timeout.ms": int(timeout_s * 1000),
                "message.max.bytes": 100_000_000,  # the broker's own limit decides
                "queue.buffering.max.messages": 500_000,
                "log_level": 0,  # what it would write to stderr, delivery reports say
                **(client or {}),
            }
        )

    def send(
        self,
        topic: str,
        *,
        key: bytes | str | None,
        value: bytes | None,
        headers: Headers | None = None,
        timestamp_ms: int | None = None,
        partition: int | None = None,
        delivered: Callable[[], None] | None = None,
    ) -> None:
        """Queue one message; waits where the queue is full. `flush` says whether it arrived.

        Args:
            delivered: called (from `send` or `flush`) once the broker has it.

        Raises:
            TooLarge: the message is larger than a client may send.
        """
        options: dict[str, Any] = {}
        if headers is not None:
            options["headers"] = list(headers)
        if timestamp_ms is not None:
            options["timestamp"] = timestamp_ms
        if partition is not None:
            options["partition"] = partition

        def report(error: KafkaError | None, _: object) -> None:
            if error is not None:
                self._failed.append((topic, error))
                return
            self.delivered += 1
            if delivered is not None:
                delivered()

        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=report, **options)
            except BufferError:
                if time.monotonic() > deadline:
                    raise self._unreachable() from None
                self._producer.poll(0.05)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise TooLarge(f"{topic}: a message of {len(value or b'')} bytes") from error
                raise
            else:
                break
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until each message queued so far has arrived.

        Raises:
            BrokerUnreachable: they found no broker in time; they are given up.
            TooLarge: the broker refused one for its size.
            DeliveryFailed: it refused some for another reason.
        """
        left = self._producer.flush(self._timeout_s + 1.0)
        given_up = left
        for _ in range(PURGES):
            if not given_up:
                break
            self._producer.purge()
            given_up = self._producer.flush(1.0)
        failed, self._failed = self._failed, []
        if not left and not failed:
            return
        lost = {KafkaError._MSG_TIMED_OUT, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}
        if left or all(error.code() in lost for _, error in failed):
            raise self._unreachable()
        topic, first = failed[0]
        text = f"{len(failed)} messages were not taken; the first, to {topic!r}: {first.str()}"
        if first.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            raise TooLarge(text)
        raise DeliveryFailed(text)

    def publish_catalog(
        self,
        topic: str,
        entries: Iterable[CatalogEntry],
        *,
        delivered: Callable[[], None] | None = None,
    ) -> int:
        """Send catalog entries and retirements, and wait; returns how many.

        Raises:
            ValueError: an entry that readers would set aside; those before it are sent.
        """
        sent = 0
        for entry in entries:
            check_entry(entry)
            if isinstance(entry, Retirement):
                self.send(
                    topic,
                    key=entry.title,
                    value=None,
                    timestamp_ms=entry.time_ms,
                    delivered=delivered,
                )
            else:
                self.send(topic, key=entry.title, value=encode(entry), delivered=delivered)
            sent += 1
        self.flush()
        return sent

    def publish_plays(self, topic: str, plays: Iterable[Play]) -> int:
        """Send plays without waiting; returns how many. Call `flush` at the end."""
        sent = 0
        for play in plays:
            self.send(topic, key=play.user, value=encode(play))
            sent += 1
        return sent

    def poll(self) -> None:
        """Serve delivery reports, where nothing is sent for a while."""
        self._producer.poll(0)

    @property
    def failed(self) -> int:
        """Messages that did not arrive; the next `flush` raises for them."""
        return len(self._failed)

    @property
    def waiting(self) -> int:
        """Messages that are queued or in flight."""
        return len(self._producer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.flush()
        else:
            self._producer.purge()

    def _unreachable(self) -> BrokerUnreachable:
        return BrokerUnreachable(self.bootstrap, self._timeout_s)
