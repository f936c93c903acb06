"""The canary: a heartbeat title goes in through Kafka, and is read back from Redis.

    timer ─▶ catalog (Kafka) ─▶ worker ─▶ Redis ─▶ agent: is its `time_ms` as late as that?

It proves from outside that the whole way works, whatever the worker thinks of itself: its metrics
are what an alert should hang on. One title stands for each canary, with an id that begins with
`serve.vectors.RESERVED`. It has no concept and nobody plays it, so that it has no edge in the graph
and no training pair; who offers titles to people leaves it out (serve/local_copy.py). It is retired
when the canary stops.

Faust brings the timer, the channel and the agent: a heartbeat that takes long delays no other one.
"""

import asyncio
import logging
import secrets
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import faust

from serve import vectors
from serve.connection import Client, RedisFailed, call_all, connect
from serve.vectors import RESERVED
from streams.console.server import Server, metrics_route
from streams.events import CatalogEntry, encode
from streams.metrics import CanaryMetrics
from streams.producer import DeliveryFailed, Producer
from streams.settings import CanarySettings, Settings
from streams.topics import BrokerUnreachable

log = logging.getLogger(__name__)

LOOK_S: Final = 0.02  # between two looks at Redis: a measurement is too late by so much at most
_AT_ONCE: Final = 64  # heartbeats that are waited for together


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat: its event time, and when it was handed to Kafka (monotonic)."""

    time_ms: int
    sent_s: float


class Canary:
    """Sends heartbeats of one title, and looks for them; its methods block.

    Attributes:
        title: the reserved id.
    """

    def __init__(
        self,
        producer: Producer,
        redis: Client,
        topic: str,
        settings: CanarySettings,
        metrics: CanaryMetrics,
        *,
        title: str | None = None,
    ) -> None:
        self._producer, self._redis, self._topic = producer, redis, topic
        self._settings, self._metrics = settings, metrics
        self._last_ms = 0
        self.title = title or f"{RESERVED}{secrets.token_hex(4)}"

    def send(self) -> Beat | None:
        """Send one heartbeat; None where Kafka does not take it, which counts as lost."""
        # Two of one millisecond could not be told apart.
        self._last_ms = max(int(time.time() * 1000), self._last_ms + 1)
        beat = Beat(self._last_ms, time.monotonic())
        entry = CatalogEntry(self.title, beat.time_ms, {}, "Upwell canary")
        self._metrics.sent()
        try:
            self._producer.send(self._topic, key=self.title, value=encode(entry))
            self._producer.flush()
        except (BrokerUnreachable, DeliveryFailed) as error:
            log.warning("no heartbeat went out: %s", error)
            self._metrics.lost()
            return None
        return beat

    def seen(self, beat: Beat) -> bool:
        """Whether Redis shows the heartbeat, or one after it."""
        try:
            current = call_all(self._redis, [("GET", vectors.CURRENT)])[0]
            if current is None:
                return False
            key = vectors.title_key(current.decode(), self.title)
            ((vector, time_ms),) = call_all(self._redis, [("HMGET", key, "vec", "time_ms")])
        except RedisFailed as error:
            log.debug("cannot look: %s", error)
            return False
        return vector is not None and int(time_ms) >= beat.time_ms

    def note(self, beat: Beat, *, seen: bool) -> None:
        """It was seen just now, or is given up."""
        if seen:
            self._metrics.seen(time.monotonic() - beat.sent_s)
            return
        self._metrics.lost()
        log.warning(
            "a heartbeat was not in Redis after %g s; does a worker run? `upwell status`",
            self._settings.patience_s,
        )

    def retire(self) -> None:
        """Take the title out of the catalogue."""
        try:
            self._producer.send(self._topic, key=self.title, value=None)
            self._producer.flush()
        except (BrokerUnreachable, DeliveryFailed) as error:
            log.warning("the canary's title %s stays: %s", self.title, error)


class _Local(faust.App.BootStrategy):  # type: ignore[misc, valid-type]
    """Faust without clients of Kafka: its channel is in memory, and what is sent goes by ours."""

    enable_kafka = False


class _App(faust.App):
    BootStrategy = _Local


def create_app(canary: Canary, settings: CanarySettings, folder: str) -> faust.App:
    """The Faust app: a timer that sends, an agent that reads back."""
    app = _App(
        "upwell-canary",
        datadir=folder,
        store="memory://",
        topic_disable_leader=True,
        web_enabled=False,
    )
    beats = app.channel()

    @app.timer(interval=settings.interval_s, on_leader=False)  # type: ignore[untyped-decorator]
    async def beat() -> None:
        sent = await asyncio.to_thread(canary.send)
        if sent is not None:
            await beats.send(value=sent)

    @app.agent(beats, concurrency=_AT_ONCE)
    async def read_back(stream: Any) -> None:
        async for sent in stream:
            deadline = sent.sent_s + settings.patience_s
            while not (seen := await asyncio.to_thread(canary.seen, sent)):
                if time.monotonic() > deadline:
                    break
                await asyncio.sleep(LOOK_S)
            canary.note(sent, seen=seen)

    return app


async def serve(
    canary: Canary,
    settings: CanarySettings,
    stop: asyncio.Event,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Beat until `stop` is set."""
    with tempfile.TemporaryDirectory(prefix="upwell-canary-", ignore_cleanup_errors=True) as folder:
        app = create_app(canary, settings, folder)
        try:
            await app.start()
            app.flow_control.resume()  # Faust waits with it for partitions, and there are none
            started()
            await stop.wait()
        finally:
            await app.stop()
            await asyncio.to_thread(canary.retire)


def run(settings: Settings) -> None:
    """Beat until SIGTERM or SIGINT.

    Raises:
        RedisFailed: Redis does not answer at the start.
        OSError: the metrics' address cannot be had.
    """
    kafka, redis, metrics = settings.kafka, settings.redis, CanaryMetrics()
    chosen = settings.canary
    if chosen.port:
        Server(chosen.host, chosen.port, {"/metrics": metrics_route(metrics)})
    client = connect(
        redis.url.get_secret_value(),
        timeout_s=redis.timeout_s,
        startup_timeout_s=redis.startup_timeout_s,
    )

    async def main(canary: Canary) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stop.set)
        log.info("canary %s beats every %g s", canary.title, chosen.interval_s)
        await serve(canary, chosen, stop)

    with Producer(kafka.bootstrap, kafka.client(), timeout_s=chosen.patience_s) as producer:
        asyncio.run(main(Canary(producer, client, kafka.catalog, chosen, metrics)))
