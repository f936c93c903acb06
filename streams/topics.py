"""Topics: wait for the broker, and make the topics that are missing.

A topic that is there stays as it is: an operator's partitions and retention go before ours. Ours
stamp a message when it is appended, which freshness is measured from; where a broker does not know
that setting, the stamp is the producer's.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

log = logging.getLogger(__name__)

DEAD = ".dead"  # suffix of the topic that takes a topic's unreadable messages
MAX_DEAD_BYTES = 32 * 2**20  # a dead letter may be dead for its size


_START_IT = "start it, or name another: UPWELL_KAFKA__BOOTSTRAP=host:port"
_LOG_IN = (
    "set kafka.security_protocol, kafka.sasl_username, kafka.sasl_password_file and "
    "kafka.ssl_ca_file to what its listener wants"
)


class BrokerUnreachable(ConnectionError):
    """No broker answers: at which address, for how long, and what to do. May be tried again."""

    def __init__(
        self, bootstrap: str, waited_s: float, why: str = "", remedy: str = _START_IT
    ) -> None:
        detail = f" ({why})" if why else ""
        super().__init__(
            f"no Kafka broker answers at {bootstrap} since {waited_s:.0f} s{detail}; {remedy}"
        )
        self.bootstrap = bootstrap


class TopicError(RuntimeError):
    """A topic that could not be made: which, and why."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to be made where it is missing.

    Attributes:
        compacted: the last message of each key stays for ever.
    """

    name: str
    partitions: int = 4
    compacted: bool = False
    replication: int = 1

    def config(self) -> dict[str, str]:
        config = {"message.timestamp.type": "LogAppendTime"}
        if self.compacted:
            config["cleanup.policy"] = "compact"
        if self.name.endswith(DEAD):
            config["max.message.bytes"] = str(MAX_DEAD_BYTES)
            config["message.timestamp.type"] = "CreateTime"  # a dead letter keeps its own
        return config


def wait_for_broker(
    bootstrap: str, client: Mapping[str, str] | None = None, *, timeout_s: float = 30.0
) -> AdminClient:
    """Wait, with growing pauses, until a broker answers.

    Raises:
        BrokerUnreachable: none did within `timeout_s` seconds.
    """
    start = time.monotonic()
    pause_s = 0.1
    # Of a broker that is there: a wrong password, an unknown authority. Kept from try to try, as
    # the last one may be too short for the broker to say it again.
    refusals: list[str] = []

    def on_error(error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
            refusals.append(error.str())

    config: dict[str, Any] = {"bootstrap.servers": bootstrap, "log_level": 0, "error_cb": on_error}
    while True:
        admin = AdminClient({**config, **(client or {})})
        left_s = timeout_s - (time.monotonic() - start)
        try:
            admin.list_topics(timeout=max(min(left_s, 5.0), 0.1))
        except KafkaException as error:
            admin.poll(0)  # calls on_error
            why = refusals[-1] if refusals else error.args[0].str()
        else:
            return admin
        left_s = timeout_s - (time.monotonic() - start)
        if left_s <= 0:
            remedy = _LOG_IN if refusals else _START_IT
            raise BrokerUnreachable(bootstrap, timeout_s, why, remedy)
        log.warning(
            "no Kafka broker answers at %s (%s); trying again for %.0f s", bootstrap, why, left_s
        )
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 2, 2.0)


def ensure_topics(
    bootstrap: str,
    specs: Sequence[TopicSpec],
    client: Mapping[str, str] | None = None,
    *,
    timeout_s: float = 30.0,
) -> dict[str, int]:
    """Make the topics that are missing; returns how many partitions each of them has.

    Raises:
        BrokerUnreachable: no broker answered within `timeout_s` seconds.
        TopicError: the broker refused to make one.
    """
    start = time.monotonic()
    admin = wait_for_broker(bootstrap, client, timeout_s=timeout_s)
    names = [spec.name for spec in specs]
    there = partitions(admin, names)
    missing = [spec for spec in specs if spec.name not in there]
    for spec, config in ((spec, spec.config()) for spec in missing):
        _create(admin, spec, config)
    while missing and len(there) < len(set(names)):
        if time.monotonic() - start > timeout_s:
            raise TopicError(f"topics {sorted(set(names) - there.keys())} did not appear")
        time.sleep(0.02)
        there = partitions(admin, names)
    return there


def partitions(admin: AdminClient, names: Sequence[str]) -> dict[str, int]:
    """How many partitions each of these topics has; without those that do not exist."""
    try:
        topics = admin.list_topics(timeout=10.0).topics
    except KafkaException as error:
        raise TopicError(f"the broker does not list its topics: {error.args[0].str()}") from error
    return {
        name: len(topics[name].partitions)
        for name in names
        if name in topics and topics[name].error is None and topics[name].partitions
    }


def _create(admin: AdminClient, spec: TopicSpec, config: dict[str, str]) -> None:
    new = NewTopic(
        spec.name,
        num_partitions=spec.partitions,
        replication_factor=spec.replication,
        config=config,
    )
    try:
        admin.create_topics([new], request_timeout=10.0)[spec.name].result()
    except KafkaException as error:
        code = error.args[0].code()
        if code != KafkaError.TOPIC_ALREADY_EXISTS:  # another of our programs was faster
            raise TopicError(
                f"topic {spec.name!r} cannot be made: {error.args[0].str()}; make it yourself, "
                f"with {spec.partitions} partitions"
            ) from error
