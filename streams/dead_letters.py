"""Messages that could not be used: set aside in `<topic>.dead`, listed, and sent again after a fix.

A dead letter keeps its key, value, headers and timestamp, and gets the headers that Kafka Connect
gives one, so that tools which know those know ours:

    __connect.errors.topic, .partition, .offset    where it stood
    __connect.errors.stage                         where it failed: `decode`, `catalog`
    __connect.errors.connector.name                which program of ours
    __connect.errors.exception.class.name          class of the error
    __connect.errors.exception.message             why

A letter that was sent again gets a mark: a message in the dead topic whose only header,
`upwell.redriven`, is `partition:offset` of the letter. So `redrive` sends none twice, unless it
dies between a letter and its mark. A worker that was killed sets aside again what it reads again:
of such copies the first one stands for all. Failures of the environment (Redis, a disk) are no dead
letters.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from streams.events import DeadLetter, Message
from streams.fetch import from_kafka
from streams.producer import Producer, TooLarge
from streams.topics import DEAD, partitions, wait_for_broker

log = logging.getLogger(__name__)

PREFIX: Final = "__connect.errors."
REDRIVEN: Final = "upwell.redriven"
TRUNCATED: Final = "upwell.truncated"
_CUT: Final = 65_536  # bytes kept of a value that the dead topic does not take


def write_dead(producer: Producer, letters: Sequence[DeadLetter], *, component: str) -> None:
    """Queue dead letters; they are safe once `producer.flush` returns."""
    for letter in letters:
        message = letter.message
        try:
            _send(producer, letter, message.value, component)
        except TooLarge:
            _send(producer, letter, (message.value or b"")[:_CUT], component)


def set_aside(producer: Producer, letters: Sequence[DeadLetter], *, component: str) -> None:
    """Write dead letters and wait until the broker has them: then their offsets may pass.

    A letter whose value is too large for the dead topic is cut, and says so in a header.

    Raises:
        BrokerUnreachable, DeliveryFailed: they did not arrive; none may count as done.
    """
    if not letters:
        return
    write_dead(producer, letters, component=component)
    try:
        producer.flush()
    except TooLarge:
        # Which ones arrived is not known: all again, the long ones cut. A reader sees some twice.
        for letter in letters:
            value = letter.message.value
            cut = value if value is None or len(value) <= _CUT else value[:_CUT]
            _send(producer, letter, cut, component)
        producer.flush()


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter as it stands in its topic.

    Attributes:
        partition, offset: of the letter itself, in the dead topic.
        topic: where it came from; `source` is `partition:offset` there.
        headers: the original ones.
        redriven: it has been sent again.
    """

    partition: int
    offset: int
    topic: str
    source: str
    stage: str
    error: str
    reason: str
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: list[tuple[str, bytes | None]]
    truncated: bool
    redriven: bool

    @property
    def id(self) -> str:
        return f"{self.partition}:{self.offset}"


def read_dead(
    bootstrap: str,
    topic: str,
    client: Mapping[str, str] | None = None,
    *,
    timeout_s: float = 30.0,
) -> list[Dead]:
    """All dead letters of `topic`, one a message, in order of their partition and offset.

    Args:
        topic: the original topic, without `.dead`.

    Raises:
        BrokerUnreachable: no broker answered within `timeout_s` seconds.
    """
    messages = list(_read_all(bootstrap, topic + DEAD, client, timeout_s))
    marks = {
        (value or b"").decode()
        for message in messages
        for name, value in message.headers or []
        if name == REDRIVEN
    }
    letters = [
        _dead(message, f"{message.partition}:{message.offset}" in marks)
        for message in sorted(messages, key=lambda one: (one.partition, one.offset))
        if not any(name == REDRIVEN for name, _ in message.headers or [])
    ]
    first: dict[object, Dead] = {}
    for letter in letters:
        # The timestamp tells a topic that has begun anew from the one before.
        known = letter.source.replace(":", "").isdigit()
        message = (letter.topic, letter.source, letter.timestamp_ms) if known else letter.id
        copy = first.setdefault(message, letter)
        if letter.redriven and not copy.redriven:
            first[message] = replace(copy, redriven=True)
    return list(first.values())


def redrive(
    producer: Producer,
    bootstrap: str,
    topic: str,
    client: Mapping[str, str] | None = None,
    *,
    chosen: Callable[[Dead], bool] = lambda _: True,
) -> int:
    """Send dead letters of `topic` to it again, each once; returns how many were sent now.

    A truncated letter cannot be sent: it is passed over, and a line is logged.

    Raises:
        BrokerUnreachable, DeliveryFailed: as for `set_aside`; call it again.
    """
    sent = cut = 0
    for letter in read_dead(bootstrap, topic, client):
        if letter.redriven or not chosen(letter):
            continue
        if letter.truncated:
            cut += 1
            continue
        producer.send(topic, key=letter.key, value=letter.value, headers=letter.headers or None)
        producer.flush()
        producer.send(
            topic + DEAD,
            key=letter.key,
            value=None,
            headers=[(REDRIVEN, letter.id.encode())],
            partition=letter.partition,
        )
        producer.flush()
        sent += 1
    if cut:
        log.warning("%d dead letters of %s were cut when they came in: not sent again", cut, topic)
    return sent


def _send(producer: Producer, letter: DeadLetter, value: bytes | None, component: str) -> None:
    message = letter.message
    told = {
        "topic": message.topic,
        "partition": str(message.partition),
        "offset": str(message.offset),
        "stage": letter.stage,
        "connector.name": component,
        "exception.class.name": letter.error,
        "exception.message": letter.reason,
    }
    headers = [
        *(message.headers or []),
        *((PREFIX + name, text.encode(errors="replace")) for name, text in told.items()),
    ]
    if value != message.value:
        headers.append((TRUNCATED, str(len(message.value or b"")).encode()))
    producer.send(
        message.topic + DEAD,
        key=message.key,
        value=value,
        headers=headers,
        timestamp_ms=message.timestamp_ms if message.timestamp_ms > 0 else None,
    )


def _dead(message: Message, redriven: bool) -> Dead:
    headers = message.headers or []
    told = {
        name.removeprefix(PREFIX): (value or b"").decode(errors="replace")
        for name, value in headers
        if name.startswith(PREFIX)
    }
    return Dead(
        partition=message.partition,
        offset=message.offset,
        topic=told.get("topic", message.topic.removesuffix(DEAD)),
        source=f"{told.get('partition', '?')}:{told.get('offset', '?')}",
        stage=told.get("stage", "?"),
        error=told.get("exception.class.name", "?"),
        reason=told.get("exception.message", "?"),
        key=message.key,
        value=message.value,
        timestamp_ms=message.timestamp_ms,
        headers=[one for one in headers if not one[0].startswith(PREFIX) and one[0] != TRUNCATED],
        truncated=any(name == TRUNCATED for name, _ in headers),
        redriven=redriven,
    )


def _read_all(
    bootstrap: str, topic: str, client: Mapping[str, str] | None, timeout_s: float
) -> Iterator[Message]:
    """Each message that stands in `topic` now; none where there is no such topic."""
    admin = wait_for_broker(bootstrap, client, timeout_s=timeout_s)
    count = partitions(admin, [topic]).get(topic, 0)
    if not count:
        return
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "upwell-dead-letters",  # named, but never joined nor committed to
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,  # for more, at a topic's end
            "log_level": 0,
            **(client or {}),
        }
    )
    try:
        left = set(range(count))  # to be read to their end, which the client reports
        consumer.assign([TopicPartition(topic, part, OFFSET_BEGINNING) for part in left])
        deadline = time.monotonic() + timeout_s
        while left:
            # `consume` waits for as many as are asked for: a short time for what is there.
            found = consumer.consume(1000, timeout=0.05)
            if found:
                deadline = time.monotonic() + timeout_s
            elif time.monotonic() > deadline:
                raise TimeoutError(f"{topic} was not read to its end within {timeout_s:.0f} s")
            for one in found:
                if (error := one.error()) is None:
                    yield from_kafka(one)
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(one.partition() or 0)
                elif not error.retriable():
                    raise KafkaException(error)
    finally:
        consumer.close()
