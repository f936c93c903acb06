"""The worker: one process that follows the topics and keeps Redis fresh.

    ingest thread     topics → state
    refresh thread    dirty titles → Redis
    training thread   fresh co-plays → new weights, at a low priority
    main thread       heartbeat and checkpoints, until asked to stop or a thread fails

Start: the newest whole checkpoint, a full inference with its model, the topics from its offsets up
to where they ended at the start, and only then the lanes: what they publish is never older than
what an earlier worker had published. Stop: a last refresh and a last checkpoint.
"""

import logging
import threading
import time
from collections.abc import Callable

from model.inference import Embedder
from model.runtime import device_of, use_threads
from serve import spaces
from serve.connection import Client, RedisFailed, connect
from serve.publisher import Publisher
from serve.status import end_status, write_status
from streams import failpoints
from streams.checkpoint import CheckpointError
from streams.console.app import in_worker
from streams.console.feed import Feed
from streams.console.server import Server, health_routes, metrics_route
from streams.health import Health
from streams.heartbeat import Heartbeat
from streams.intake import Intake
from streams.metrics import Metrics
from streams.refresh import RefreshLane
from streams.settings import Settings
from streams.snapshot import Snapshot, load_snapshot, save_snapshot
from streams.topics import ensure_topics
from streams.traces import open_traces
from streams.training import TrainingLane
from streams.warmup import warm_up
from streams.wiring import topics_of

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
DRAIN_S = 5.0  # longest wait for the last refresh


class WorkerFailed(RuntimeError):
    """A thread of the worker ended: which, and why."""


class Worker:
    """Made by `start`, which connects and loads; `run` returns after `request_stop`."""

    def __init__(
        self,
        settings: Settings,
        redis: Client,
        snapshot: Snapshot,
        intake: Intake,
        refresh: RefreshLane,
        training: TrainingLane,
        metrics: Metrics,
        heartbeat: Heartbeat,
        health: Health,
        feed: Feed | None,
    ) -> None:
        self._settings, self._redis, self._snapshot = settings, redis, snapshot
        self._intake, self._refresh, self._training = intake, refresh, training
        self._metrics, self._heartbeat, self._health = metrics, heartbeat, health
        self._feed = feed
        self._stopping = threading.Event()
        self._failure: tuple[str, BaseException] | None = None
        self._checkpointed = time.monotonic()
        self._threads: dict[str, threading.Thread] = {}

    @classmethod
    def start(cls, settings: Settings) -> "Worker":
        """Connect to Kafka and Redis, and load the newest checkpoint.

        Raises:
            CheckpointError: there is none.
            RedisFailed, BrokerUnreachable: no answer within the set time; the address is named.
            OSError: the port of page, health and metrics is taken.
            ValueError: cycles are to be trained on a GPU, and there is none.
            TracesUnavailable: traces are asked for, and OpenTelemetry is not installed.
        """
        failpoints.arm()
        use_threads(settings.worker.threads)
        log.info("cycles are trained on %s", device_of(settings.training.device))
        metrics, health = Metrics(), Health()
        traces = open_traces(settings.traces, "upwell-worker", settings.worker.id)
        operate, server, feed = settings.operate, None, None
        if operate.port:  # before all that may take long: it says that we are not ready
            routes = {**health_routes(health), "/metrics": metrics_route(metrics)}
            server = Server(operate.host, operate.port, routes)
            feed = in_worker(server, settings) if operate.page else None
        redis = connect(
            settings.redis.url.get_secret_value(),
            timeout_s=settings.redis.timeout_s,
            startup_timeout_s=settings.redis.startup_timeout_s,
            on_wait=log.warning,
        )
        snapshot = load_snapshot(settings.checkpoint.folder, settings.graph, settings.training)
        failpoints.reach("recovery.loaded")
        state = snapshot.state
        warm_up(settings.graph)
        kafka = settings.kafka
        ensure_topics(
            kafka.bootstrap, topics_of(kafka), kafka.client(), timeout_s=kafka.startup_timeout_s
        )
        intake = Intake.open(settings.kafka, state, metrics)
        embedder = Embedder(snapshot.model)
        embedder.full(state.graph)
        publisher = Publisher(redis, settings.redis.space, epsilon=settings.redis.epsilon)
        refresh = RefreshLane(
            state,
            embedder,
            publisher,
            metrics,
            settings.refresh,
            step=snapshot.step,
            index=settings.redis.index,
            on_switch=lambda: _prune(redis, settings.redis.keep_spaces),
        )
        training = settings.training
        lane = TrainingLane(
            state,
            refresh,
            snapshot.trainer,
            metrics,
            training,
            model=snapshot.model,
            step=snapshot.step,
            refused=settings.checkpoint.folder / "refused",
        )
        intake.on_catalog = refresh.wake
        intake.traces = refresh.traces = traces
        metrics.checkpoint(0.0, written_s=snapshot.written_s)
        heartbeat = Heartbeat(
            settings,
            state,
            intake,
            refresh,
            lane,
            metrics,
            checkpoint_ms=int(snapshot.written_s * 1000),
            address=None if server is None else server.address,
        )
        return cls(
            settings, redis, snapshot, intake, refresh, lane, metrics, heartbeat, health, feed
        )

    def request_stop(self) -> None:
        """Ask `run` to end in good order; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Work until asked to stop.

        Raises:
            WorkerFailed: a thread ended.
        """
        self._thread("ingest", self._intake.run)
        self._heartbeat.watch(self._health, self._threads)
        while not self._intake.caught_up.wait(HEARTBEAT_S) and not self._over():
            self._beat()
        failpoints.reach("recovery.caught_up")
        try:
            self._refresh.open_space()
        except RedisFailed as error:  # it went away since the start: the lane waits for it
            self._refresh.open_later(error)
        failpoints.reach("recovery.opened")
        self._heartbeat.phase = "live"
        self._thread("refresh", self._refresh.run)
        if self._settings.training.enabled:
            self._thread("training", self._training.run)
        self._heartbeat.watch(self._health, self._threads)
        while not self._over():
            self._beat()
            self._checkpoint_if_due()
            self._stopping.wait(min(HEARTBEAT_S, self._settings.checkpoint.interval_s))
        self._end()

    def _end(self) -> None:
        self._heartbeat.phase = "stopping"
        self._health.unready = "the worker is stopping"
        log.info("stopping: a last refresh and a last checkpoint")
        self._training.stop()
        self._intake.stop()
        deadline = time.monotonic() + DRAIN_S
        while not self._refresh.settled and time.monotonic() < deadline and not self._failure:
            time.sleep(0.02)
        if not self._refresh.settled:
            log.warning("not all was published: the next start does")
        self._refresh.stop()
        for thread in self._threads.values():
            thread.join(DRAIN_S)
        if self._failure is None:  # else the state may hold half a batch
            self._checkpoint()
        if (traces := self._intake.traces) is not None:
            traces.close()
        log.info("stopped")
        try:
            end_status(self._redis, self._settings.worker.id)
        except RedisFailed as error:
            log.warning("no farewell: %s", error)
        if self._failure is not None:
            name, cause = self._failure
            raise WorkerFailed(f"the {name} thread failed: {cause}") from cause

    def _over(self) -> bool:
        return self._stopping.is_set() or self._failure is not None

    def _thread(self, name: str, body: Callable[[], None]) -> None:
        def run() -> None:
            try:
                body()
            except BaseException as error:
                log.exception("the %s thread failed", name)
                self._failure = name, error
                self._stopping.set()

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads[name] = thread
        thread.start()

    def _checkpoint_if_due(self) -> None:
        if time.monotonic() - self._checkpointed >= self._settings.checkpoint.interval_s:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Write a checkpoint, then tell Kafka; a full disk is told and tried again, not fatal."""
        self._checkpointed = time.monotonic()
        self._snapshot.model, self._snapshot.step = self._training.model, self._training.step
        with self._snapshot.state.lock:
            positions = dict(self._snapshot.state.positions)
        failpoints.reach("checkpoint.before")
        start = time.perf_counter()
        try:
            pause_s = save_snapshot(
                self._settings.checkpoint.folder,
                self._snapshot,
                keep=self._settings.checkpoint.keep,
            )
        except CheckpointError as error:
            self._heartbeat.checkpoint_error = str(error)
            self._metrics.checkpoint_failed()
            log.error("%s", error)
            return
        self._heartbeat.checkpoint_error = None
        self._metrics.checkpoint(pause_s, time.perf_counter() - start)
        failpoints.reach("commit.before")
        self._intake.commit(positions)
        failpoints.reach("commit.after")

    def _beat(self) -> None:
        """Send the heartbeat; a Redis that is away is the refresh lane's to tell."""
        told, name = self._heartbeat.beat(), self._settings.worker.id
        if self._feed is not None:
            self._feed.push({**told, "worker": name})
        try:
            write_status(self._redis, name, told)
        except RedisFailed as error:
            log.debug("no heartbeat: %s", error)


def _prune(redis: Client, keep: int) -> None:
    """Drop the oldest spaces beyond `keep`."""
    if dropped := spaces.prune(redis, keep):
        log.info("old spaces dropped: %s", ", ".join(dropped))
