"""How a client of Kafka reads for us: its settings, and its messages as ours.

librdkafka fetches ahead in threads of its own, into one queue a client, whose bytes are bounded
here. It never commits by itself, and never jumps over an offset that is lost.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError

from streams.events import Message


def fetch_config(
    bootstrap: str,
    group: str,
    queue_bytes: int,
    client: Mapping[str, str],
    on_error: Callable[[KafkaError], None],
) -> dict[str, Any]:
    """The settings of a consumer that partitions are assigned to.

    Args:
        group: under whose name offsets are committed.
        queue_bytes: what it may have fetched ahead.
        client: further settings, which go before these (SASL, TLS).
        on_error: told what goes wrong with a connection.
    """
    return {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",  # a lost offset is an error, not a jump
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 20,
        "fetch.error.backoff.ms": 50,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "queued.max.messages.kbytes": max(queue_bytes // 1024, 1),
        "queued.min.messages": 1_000_000,  # the bytes are the bound
        "fetch.max.bytes": max(min(queue_bytes, 50 * 2**20), 2**20),
        "fetch.message.max.bytes": max(min(queue_bytes, 16 * 2**20), 2**20),
        "fetch.queue.backoff.ms": 10,  # a full queue would else stop it for a second
        "error_cb": on_error,
        "log_level": 0,  # what it would write to stderr, on_error is told
        **client,
    }


def from_kafka(message: confluent_kafka.Message) -> Message:
    """A message of the client as ours; one without a timestamp is as old as this moment."""
    kind, timestamp_ms = message.timestamp()
    if kind == confluent_kafka.TIMESTAMP_NOT_AVAILABLE:
        timestamp_ms = int(time.time() * 1000)
    return Message(
        message.topic(),  # type: ignore[arg-type] # None only where there is an error
        message.partition(),  # type: ignore[arg-type]
        message.offset(),  # type: ignore[arg-type]
        message.key(),
        message.value(),
        timestamp_ms,
        message.headers(),  # type: ignore[arg-type]
    )
