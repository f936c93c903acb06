"""Plays that a consumer group passed over: found by their offsets, and read again.

A group's committed offset is no proof that all before it was worked on: when partitions move
between workers under way, Faust may drop what it has fetched and go on behind it. So a worker
writes, into the same changelog as its memory and with each batch, the offset after the batch:

    "\\x00next <partition>" -> offset, as text       no user's id holds a control character

Whoever takes the partition over compares. Where the first play that it is given lies behind that
offset, the plays between are read again, by a client of this file's own, and go first. Plays that
were worked on are known by their users' memory: to read too many does no harm.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import confluent_kafka
from confluent_kafka import KafkaError, TopicPartition

from streams.events import Message
from streams.fetch import from_kafka

log = logging.getLogger(__name__)

PATIENCE_S: Final = 60.0  # with a broker that does not answer

Read = Callable[[int, int, int], list[Message]]
"""From a partition, a first offset and the one to stop before, to what lies there."""


def next_key(partition: int) -> str:
    """Under which the offset after the last batch of a partition is remembered."""
    return f"\0next {partition}"


def with_missing(
    messages: Sequence[Message], remembered: Callable[[str], bytes | None], read: Read
) -> tuple[list[Message], dict[str, tuple[int, bytes]]]:
    """A batch with what was passed over before it, and what is to be remembered of its offsets.

    Args:
        messages: in order within each partition.
        remembered: `next_key` -> what was written under it.

    Returns:
        The plays, and `next_key` -> (partition, offset after the last of them, as text).
    """
    whole: list[Message] = []
    following: dict[int, int] = {}
    for message in messages:
        part = message.partition
        if part not in following:
            raw = remembered(next_key(part))
            following[part] = message.offset if raw is None else int(raw)
        if message.offset > following[part]:
            found = read(part, following[part], message.offset)
            log.info(  # it is mended here: nobody has to do a thing
                "partition %d: plays %d to %d were passed over; %d of them stand, and go first",
                part,
                following[part],
                message.offset - 1,
                len(found),
            )
            whole += found
        whole.append(message)
        following[part] = max(following[part], message.offset + 1)
    return whole, {next_key(part): (part, str(at).encode()) for part, at in following.items()}


def read_range(
    bootstrap: str,
    topic: str,
    partition: int,
    start: int = 0,
    stop: int = 2**62,
    client: Mapping[str, str] | None = None,
) -> list[Message]:
    """The messages of a partition from `start` on, before `stop`; those that still stand.

    Raises:
        TimeoutError: no broker answered for `PATIENCE_S` seconds.
    """
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "upwell-gaps",  # named, but never joined nor committed to
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",  # what retention took is gone
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
            "log_level": 0,
            **(client or {}),
        }
    )
    found: list[Message] = []
    try:
        consumer.assign([TopicPartition(topic, partition, start)])
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for one in consumer.consume(1000, timeout=0.05):
                deadline = time.monotonic() + PATIENCE_S
                if (error := one.error()) is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        return found
                    continue
                message = from_kafka(one)
                if message.offset >= stop:
                    return found
                found.append(message)
                if message.offset == stop - 1:
                    return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic}: messages from {start} on were not read in time")
    finally:
        consumer.close()
