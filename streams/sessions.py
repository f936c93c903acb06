"""The Faust app that turns plays into co-plays; the only file that knows Faust.

    plays ─▶ a batch of messages ─▶ streams/coplay.py, by user ─▶ coplays
                    │ unreadable            ▲ │
                    ▼                       │ ▼
               <plays>.dead           memory: user -> what is remembered, in a changelog

Faust brings the consumer group. What is written goes through one
confluent-kafka producer, a batch at a time and in this order: pairs and dead letters, and their
delivery; then the changelog, and its delivery; then the batch is acked. So whatever dies when, no
play is lost. A play is doubled only where a death falls between the first delivery and the second
(milliseconds); one that is read again later is known by its user's memory.

Three traps of Faust are walked around. `Stream.take` acks a batch even where its body raised: we
take without acks. A table puts its changelog into the partition of the batch's last event, and one
whose recovery is cut short by another rebalance goes on without what it had read until then: so
there is none, and memory is written, and read at the first batch of a partition, by ourselves.
Plays may be passed over when partitions move: streams/gaps.py finds them, and reads them again.
"""

import asyncio
import logging
import signal
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import faust
import msgspec
from yarl import URL

from streams import failpoints
from streams.coplay import Pairing, Recent, add_play, load_recent
from streams.dead_letters import write_dead
from streams.events import CoPlay, DeadLetter, Message, decode_plays, encode
from streams.gaps import read_range, with_missing
from streams.producer import Producer
from streams.topics import DEAD, TopicSpec, ensure_topics

log = logging.getLogger(__name__)

MAX_BATCH: Final = 512  # plays
MAX_WAIT_S: Final = 0.05  # for a batch to fill
PATIENCE_S: Final = 300.0  # with a broker that went away
REPORT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class SessionsConfig:
    """What a sessions worker needs.

    Attributes:
        bootstrap: brokers, HOST:PORT with commas between.
        group: consumer group, and prefix of the changelog's name.
        partitions: of topics that are made because they are missing.
        client: further settings of librdkafka (SASL, TLS).
        startup_timeout_s: until an unreachable broker is an error.
        session_timeout_s: after so long a dead worker's plays go to another. Apache Kafka takes no
            less than 6 by default; the embedded broker lets a first member wait for half of it.
    """

    bootstrap: str
    plays: str = "plays"
    coplays: str = "coplays"
    group: str = "upwell-sessions"
    partitions: int = 4
    rule: Pairing = field(default_factory=Pairing)
    max_skew_s: float = 3600.0
    client: Mapping[str, str] = field(default_factory=dict)
    startup_timeout_s: float = 30.0
    session_timeout_s: float = 6.0


@dataclass(slots=True)
class Counts:
    """What a worker has done since its start."""

    plays: int = 0
    pairs: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one batch makes.

    Attributes:
        pairs: the co-plays, in the order of the plays.
        recent: user -> the partition of its plays, and what is to be remembered, as JSON.
    """

    plays: int
    pairs: list[CoPlay]
    recent: dict[str, tuple[int, bytes]]
    dead: list[DeadLetter]


def pair_batch(
    messages: Sequence[Message],
    remembered: Callable[[str], bytes | None],
    rule: Pairing,
    *,
    max_skew_s: float = 3600.0,
) -> Outcome:
    """Pair one batch of plays, and change nothing but what is returned."""
    decoded = decode_plays(messages, max_skew_s=max_skew_s)
    recent: dict[str, Recent] = {}
    partition: dict[str, int] = {}
    pairs: list[CoPlay] = []
    for play, row in zip(decoded.plays, decoded.row, strict=True):
        user = play.user
        if (known := recent.get(user)) is None:
            known = recent[user] = load_recent(remembered(user))
        partition[user] = messages[row].partition
        pairs += add_play(known, play, rule)
    packed = {user: (partition[user], msgspec.json.encode(one)) for user, one in recent.items()}
    return Outcome(len(decoded.plays), pairs, packed, decoded.dead)


def deliver(producer: Producer, outcome: Outcome, *, coplays: str, changelog: str) -> None:
    """Write what a batch made, pairs before memory, and wait for both.

    Raises:
        BrokerUnreachable, DeliveryFailed: it did not arrive; the batch must not be acked.
    """
    for pair in outcome.pairs:
        producer.send(coplays, key=pair.a, value=encode(pair))
    if outcome.dead:
        write_dead(producer, outcome.dead, component="sessions")
    producer.flush()
    # The embedded broker takes the first message of a partition's last batch for its end, and a
    # recovery would stop there: so the last message of each partition is a batch of its own.
    last = {partition: user for user, (partition, _) in outcome.recent.items()}
    for in_last in (False, True):
        for user, (partition, raw) in outcome.recent.items():
            if (last[partition] == user) == in_last:
                producer.send(changelog, key=user, value=raw, partition=partition)
        producer.flush()


def create_app(
    config: SessionsConfig,
    producer: Producer,
    counts: Counts,
    failed: Callable[[BaseException], None],
    *,
    partitions: int,
    folder: str,
) -> faust.App:
    """The Faust app.

    Args:
        failed: told what ended the agent; Faust would start it anew, past the lost batch.
        partitions: how many the topic of plays has: the table must have as many.
        folder: for what Faust writes, which nobody needs again; else it takes the current one.
    """
    app = faust.App(
        config.group,
        broker=[URL(f"kafka://{address}") for address in config.bootstrap.split(",")],
        broker_credentials=_credentials(config.client),
        broker_commit_interval=0.5,
        broker_heartbeat_interval=config.session_timeout_s / 3,
        broker_max_poll_interval=2 * PATIENCE_S,
        broker_rebalance_timeout=max(config.session_timeout_s, 10.0),
        broker_session_timeout=config.session_timeout_s,
        consumer_auto_offset_reset="earliest",
        datadir=folder,
        store="memory://",
        topic_partitions=partitions,
        topic_disable_leader=True,
        web_enabled=False,
    )
    plays = app.topic(
        config.plays, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )
    memory: dict[bytes, bytes] = {}
    loaded: set[int] = set()
    generation = -1

    def recall(parts: set[int]) -> None:
        """Have all in memory that stands in the changelog for these partitions."""
        nonlocal generation
        if app.consumer_generation_id != generation:  # others may have written meanwhile
            generation = app.consumer_generation_id
            memory.clear()
            loaded.clear()
        changelog = changelog_of(config)
        for part in parts - loaded:
            for one in read_range(config.bootstrap, changelog, part, client=config.client):
                memory[one.key or b""] = one.value or b""
            loaded.add(part)

    @app.agent(plays)
    async def pair(stream: Any) -> None:
        try:
            await drain(stream, config, producer, memory, changelog_of(config), counts, recall)
        except Exception as error:  # noqa: BLE001 -- told on, and raised by `serve`
            failed(error)
            await asyncio.Event().wait()  # until the app stops

    return app


def changelog_of(config: SessionsConfig) -> str:
    """The topic that holds the memory of recent plays."""
    return f"{config.group}-recent-changelog"


async def drain(
    stream: Any,
    config: SessionsConfig,
    producer: Producer,
    memory: Any,
    changelog: str,
    counts: Counts,
    recall: Callable[[set[int]], None] = lambda _: None,
) -> None:
    """Pair the plays of `stream` until it ends; a failure ends it, with no ack.

    Args:
        memory: user, as UTF-8 -> `Recent` as JSON; written to once the changelog has it.
        recall: called before a batch of plays of these partitions is worked on.
    """

    def remembered(user: str) -> bytes | None:
        found: bytes | None = memory.get(user.encode())
        return found

    def read(partition: int, start: int, stop: int) -> list[Message]:
        return read_range(config.bootstrap, config.plays, partition, start, stop, config.client)

    def work(messages: list[Message]) -> Outcome:
        recall({message.partition for message in messages})
        whole, following = with_missing(messages, remembered, read)
        outcome = pair_batch(whole, remembered, config.rule, max_skew_s=config.max_skew_s)
        outcome.recent.update(following)
        failpoints.reach("sessions.paired")
        deliver(producer, outcome, coplays=config.coplays, changelog=changelog)
        failpoints.reach("sessions.written")
        return outcome

    async for events in stream.noack_take(MAX_BATCH, within=MAX_WAIT_S):
        # In a thread: waiting for delivery must not keep the loop from Kafka's heartbeats.
        outcome = await asyncio.to_thread(work, [_message(event) for event in events])
        for user, (_, packed) in outcome.recent.items():
            memory[user.encode()] = packed
        for event in events:
            await stream.ack(event)
        # Plays last: who sees them counted sees all that they made.
        counts.pairs += len(outcome.pairs)
        counts.dead += len(outcome.dead)
        counts.plays += outcome.plays


async def serve(config: SessionsConfig, stop: asyncio.Event, counts: Counts | None = None) -> None:
    """Turn plays into co-plays until `stop` is set.

    Raises:
        BrokerUnreachable: at the start, or for `PATIENCE_S` seconds later on.
        TopicError, DeliveryFailed: the broker refuses a topic, or a message.
    """
    failpoints.arm()
    counts = Counts() if counts is None else counts
    specs = [
        TopicSpec(config.plays, config.partitions),
        TopicSpec(config.plays + DEAD, 1),
        TopicSpec(config.coplays, config.partitions),
    ]
    there = await asyncio.to_thread(
        ensure_topics, config.bootstrap, specs, config.client, timeout_s=config.startup_timeout_s
    )
    partitions = there[config.plays]
    table = TopicSpec(changelog_of(config), partitions, compacted=True)
    await asyncio.to_thread(ensure_topics, config.bootstrap, [table], config.client)

    failures: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failures.append(error)
        stop.set()

    producer = Producer(config.bootstrap, config.client, timeout_s=PATIENCE_S)
    folder = tempfile.TemporaryDirectory(prefix="upwell-sessions-", ignore_cleanup_errors=True)
    app = create_app(config, producer, counts, failed, partitions=partitions, folder=folder.name)
    reporter = asyncio.create_task(_report(counts))
    try:
        await app.start()
        log.info("pairing plays of %r into %r", config.plays, config.coplays)
        await stop.wait()
    finally:
        reporter.cancel()
        await app.stop()
        folder.cleanup()
    if failures:
        raise failures[0]


def run_sessions(config: SessionsConfig, counts: Counts | None = None) -> None:
    """Turn plays into co-plays until SIGTERM or SIGINT; raises as `serve` does."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stop.set)
        await serve(config, stop, counts)

    asyncio.run(main())


async def _report(counts: Counts) -> None:
    before = 0
    while True:
        await asyncio.sleep(REPORT_S)
        if counts.plays != before:
            log.info("%d plays, %d pairs, %d dead so far", counts.plays, counts.pairs, counts.dead)
        before = counts.plays


def _message(event: Any) -> Message:
    """A message of Faust's consumer as ours; its time is in seconds."""
    one = event.message
    headers = one.headers.items() if isinstance(one.headers, Mapping) else one.headers
    return Message(
        one.topic,
        one.partition,
        one.offset,
        one.key,
        one.value,
        int(time.time() * 1000) if one.timestamp is None else round(one.timestamp * 1000),
        list(headers) if headers else None,
    )


def _credentials(client: Mapping[str, str]) -> Any:
    """librdkafka's settings for SASL and TLS, as Faust wants them; None where there are none."""
    protocol = client.get("security.protocol", "PLAINTEXT")
    context = None
    if protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=client.get("ssl.ca.location"))
        if certificate := client.get("ssl.certificate.location"):
            key, password = client.get("ssl.key.location"), client.get("ssl.key.password")
            context.load_cert_chain(certificate, key, password)
    if protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=client.get("sasl.username"),
            password=client.get("sasl.password"),
            mechanism=client.get("sasl.mechanism", "PLAIN"),
            ssl_context=context,
        )
    return context
