"""What the worker and the canary tell about themselves, to Prometheus and the heartbeat.

docs/metrics.md lists every name. Freshness is the product's number: visible in Redis minus
appended to Kafka, of each title's oldest unseen event; the stages say where that time went, and add
up to it.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from streams.registry import Registry

Floats = npt.NDArray[np.float64]

KINDS = ("catalog", "coplay")
STAGES = ("read", "applied", "embedded", "visible")
VERDICTS = ("passed", "refused", "skipped", "failed")
WINDOW_S = 10.0  # what "recent" means
_A_BATCH = 500  # samples of one publication that percentiles look at
_RECENT = 20_000  # freshness samples a kind that the heartbeat's percentiles look back on


class Metrics(Registry):
    """Figures of one worker. Methods may be called from any thread."""

    def __init__(self) -> None:
        super().__init__("worker")
        gauge, counter, histogram = self._gauge, self._counter, self._histogram
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}
        self._recent: dict[str, deque[float]] = {kind: deque(maxlen=_RECENT) for kind in KINDS}
        self._last_batches: deque[tuple[float, str, Floats]] = deque()
        self._last_stages: deque[tuple[float, str, str, float, int]] = deque()
        self.published_total = self.redis_errors_total = 0
        # The ingest.
        self._events = counter(
            "upwell_events", "Messages by topic and outcome.", "topic", "outcome"
        )
        self._batch_s = histogram("upwell_batch_seconds", "To decode and fold in one batch.")
        self._lag = gauge("upwell_lag_messages", "Messages not yet read.", "topic", "partition")
        self._watermark = gauge(
            "upwell_low_watermark_timestamp_seconds",
            "Every event appended to Kafka before this moment is visible in Redis.",
            unknown=True,
        )
        # Freshness.
        self._freshness = histogram(
            "upwell_freshness_seconds", "Visible in Redis minus appended to Kafka.", "kind"
        )
        self._stage_s = histogram(
            "upwell_stage_seconds", "Freshness by the stage it was spent in.", "kind", "stage"
        )
        for kind in KINDS:
            self._freshness.observe((), kind)
            for stage in STAGES:
                self._stage_s.observe((), kind, stage)
        # The refresh lane.
        self._dirty = gauge("upwell_dirty_titles", "Titles that wait for the refresh.")
        self._published = counter("upwell_published", "Embeddings written to Redis.")
        self._stale = counter("upwell_stale_refused", "Writes refused by Redis: it had newer ones.")
        self._redis_errors = counter("upwell_redis_errors", "Failed calls of Redis.")
        self._refresh_s = histogram("upwell_refresh_seconds", "One refresh that published.")
        self._full = counter("upwell_full_refreshes", "Times that every title was embedded anew.")
        # The training lane.
        self._fresh = gauge("upwell_fresh_coplays", "Co-plays that wait for the next cycle.")
        self._cycles = counter("upwell_cycles", "Training cycles by verdict.", "verdict")
        for verdict in VERDICTS:
            self._cycles.labels(verdict)
        self._cycle_s = histogram("upwell_cycle_seconds", "One training cycle.")
        self._step_s = histogram("upwell_cycle_step_seconds", "The same by step.", "step")
        self._cycle_at = gauge(
            "upwell_cycle_timestamp_seconds", "When the last cycle ended.", unknown=True
        )
        self._loss = gauge("upwell_loss", "Mean loss of the last cycle's steps.", unknown=True)
        self._recall = gauge(
            "upwell_gate_recall", "Recall of the gate's held-back co-plays, last cycle.", "weights"
        )
        self._drift = gauge(
            "upwell_drift_cosine",
            "Mean cosine of new to published vectors, last cycle.",
            unknown=True,
        )
        self._model_step = gauge("upwell_model_step", "Gradient steps behind the weights in force.")
        # The state and its checkpoints.
        self._nodes = gauge("upwell_store_nodes", "Vertices of the graph.", "type")
        self._edges = gauge("upwell_store_edges", "Edges of the graph.", "relation")
        self._bytes = gauge("upwell_store_bytes", "Memory of the graph.", "part")
        self._pause_s = gauge(
            "upwell_checkpoint_pause_seconds",
            "Ingest's pause for the last checkpoint.",
            unknown=True,
        )
        self._write_s = gauge(
            "upwell_checkpoint_write_seconds", "To write the last checkpoint.", unknown=True
        )
        self._checkpoint_at = gauge(
            "upwell_checkpoint_timestamp_seconds",
            "When the last checkpoint was written.",
            unknown=True,
        )
        self._age_s = gauge("upwell_checkpoint_age_seconds", "Since the last checkpoint.")
        self._age_s.set_function(self._checkpoint_age_s)
        self._checkpoint_s = 0.0
        self._checkpoints_failed = counter(
            "upwell_checkpoint_failures", "Checkpoints that could not be written."
        )
        # Health.
        self._check = gauge("upwell_check_ok", "1 where a check of /livez holds.", "check")
        self._ready = gauge("upwell_ready", "1 once the space is filled and live.")

    def events(self, topic: str, *, read: int = 0, applied: int = 0, dead: int = 0) -> None:
        """Count events of `topic`: read = applied + dead, once a batch is through."""
        with self._lock:
            for outcome, count in (("in", read), ("applied", applied), ("dead", dead)):
                key = topic, outcome
                self._counts[key] = self._counts.get(key, 0) + count
                self._events.labels(topic, outcome).inc(count)

    def batch(self, seconds: float) -> None:
        """A batch was decoded and folded in."""
        self._batch_s.observe([seconds])

    def freshness(self, kind: str, seconds: Floats) -> None:
        """One sample a title that has become visible, shape (T,)."""
        self._freshness.observe(seconds, kind)
        some = seconds[:: len(seconds) // _A_BATCH + 1]
        now = time.monotonic()
        with self._lock:
            self._recent[kind].extend(some.tolist())
            self._last_batches.append((now, kind, some))
            while now - self._last_batches[0][0] > WINDOW_S:
                self._last_batches.popleft()

    def stage(self, kind: str, stage: str, seconds: Floats) -> None:
        """How long titles spent in one of `STAGES`, shape (T,)."""
        self._stage_s.observe(seconds, kind, stage)
        now = time.monotonic()
        with self._lock:
            self._last_stages.append((now, kind, stage, float(seconds.sum()), len(seconds)))
            while now - self._last_stages[0][0] > WINDOW_S:
                self._last_stages.popleft()

    def lag(self, lags: Mapping[tuple[str, int], int]) -> None:
        for (topic, partition), messages in lags.items():
            self._lag.labels(topic, str(partition)).set(messages)

    def watermark(self, timestamp_s: float) -> None:
        """Every event appended before this moment (Unix seconds) is visible."""
        self._watermark.set(timestamp_s)

    def dirty(self, titles: int) -> None:
        self._dirty.set(titles)

    def published(self, written: int, stale: int, seconds: float) -> None:
        self.published_total += written
        self._published.inc(written)
        self._stale.inc(stale)
        self._refresh_s.observe([seconds])

    def refreshed_all(self) -> None:
        """New weights: every title was embedded anew."""
        self._full.inc()

    def redis_failed(self) -> None:
        self.redis_errors_total += 1
        self._redis_errors.inc()

    def waiting(self, fresh_coplays: int, model_step: int) -> None:
        """What the training lane has before it, and what it has done."""
        self._fresh.set(fresh_coplays)
        self._model_step.set(model_step)

    def cycle(
        self,
        verdict: str,
        seconds: float,
        drift_cosine: float,
        *,
        steps: Mapping[str, float] | None = None,
        loss: float = float("nan"),
        recall: Mapping[str, float] | None = None,
    ) -> None:
        """A training cycle has ended.

        Args:
            steps: seconds by step.
            recall: of the gate, `before` and `after`; what is not a number changes nothing.
        """
        self._cycles.labels(verdict).inc()
        self._cycle_s.observe([seconds])
        self._cycle_at.set(time.time())
        for step, value in (steps or {}).items():
            self._step_s.observe([value], step)
        found = [(self._drift, drift_cosine), (self._loss, loss)]
        found += [(self._recall.labels(name), value) for name, value in (recall or {}).items()]
        for gauge, value in found:
            if np.isfinite(value):
                gauge.set(value)

    def store(
        self, nodes: Mapping[str, int], edges: Mapping[str, int], memory: Mapping[str, int]
    ) -> None:
        """The graph's size: vertices by type, edges by relation, bytes by part."""
        for gauge, sizes in ((self._nodes, nodes), (self._edges, edges), (self._bytes, memory)):
            for name, size in sizes.items():
                gauge.labels(name).set(size)

    def checkpoint(
        self, pause_s: float, write_s: float = 0.0, *, written_s: float | None = None
    ) -> None:
        """A checkpoint was written, now or at `written_s` (Unix seconds)."""
        self._pause_s.set(pause_s)
        self._write_s.set(write_s)
        self._checkpoint_s = time.time() if written_s is None else written_s
        self._checkpoint_at.set(self._checkpoint_s)

    def checkpoint_failed(self) -> None:
        self._checkpoints_failed.inc()

    def health(self, checks: Mapping[str, bool], *, ready: bool) -> None:
        """What /livez and /readyz say, for alerts."""
        for name, holds in checks.items():
            self._check.labels(name).set(holds)
        self._ready.set(ready)

    def event_counts(self) -> dict[str, dict[str, int]]:
        """Events by topic: {"coplays": {"in": ..., "applied": ..., "dead": ...}}."""
        with self._lock:
            counts: dict[str, dict[str, int]] = {}
            for (topic, outcome), count in self._counts.items():
                counts.setdefault(topic, {})[outcome] = count
            return counts

    def freshness_now(self) -> dict[str, dict[str, float]]:
        """Percentiles of the last samples by kind, seconds: {"catalog": {"p50": ..., "p99": ...}}.

        A kind without samples is left out.
        """
        with self._lock:
            recent = {kind: list(values) for kind, values in self._recent.items() if values}
        return {kind: percentiles(values) for kind, values in recent.items()}

    def freshness_all(self) -> dict[str, dict[str, float]]:
        """Mean and count of all samples by kind, as the histogram has them; seconds."""
        return {
            kind: {"mean": total / count, "count": count}
            for kind in KINDS
            for total, count in [self._freshness.total(kind)]
            if count
        }

    def freshness_recent(self) -> dict[str, dict[str, float]]:
        """The same of the last `WINDOW_S` seconds, by kind."""
        found: dict[str, list[Floats]] = {}
        oldest = time.monotonic() - WINDOW_S
        with self._lock:
            for at, kind, seconds in self._last_batches:
                if at >= oldest:
                    found.setdefault(kind, []).append(seconds)
        return {
            kind: percentiles(np.concatenate(parts))
            for kind, parts in found.items()
            if any(map(len, parts))
        }

    def stages_recent(self) -> dict[str, dict[str, float]]:
        """Mean seconds in each stage over the last `WINDOW_S` seconds, by kind."""
        sums: dict[str, dict[str, list[float]]] = {}
        oldest = time.monotonic() - WINDOW_S
        with self._lock:
            for at, kind, stage, seconds, titles in self._last_stages:
                if at >= oldest:
                    total = sums.setdefault(kind, {}).setdefault(stage, [0.0, 0.0])
                    total[0] += seconds
                    total[1] += titles
        return {
            kind: {stage: round(total / max(count, 1), 4) for stage, (total, count) in of.items()}
            for kind, of in sums.items()
        }

    @property
    def checkpoint_age_s(self) -> float | None:
        """Seconds since the last checkpoint; None where there is none."""
        return round(time.time() - self._checkpoint_s, 1) if self._checkpoint_s else None

    def _checkpoint_age_s(self) -> float:
        return time.time() - self._checkpoint_s if self._checkpoint_s else float("nan")


class CanaryMetrics(Registry):
    """Figures of one canary."""

    def __init__(self) -> None:
        super().__init__("canary")
        self._sent = self._counter("upwell_canary_sent", "Heartbeat titles sent to Kafka.")
        self._seen = self._counter("upwell_canary_seen", "Of them read back from Redis.")
        self._lost = self._counter("upwell_canary_lost", "Of them not seen within the patience.")
        self._seconds = self._histogram(
            "upwell_canary_seconds", "Read back from Redis minus sent to Kafka."
        )
        self._seen_at = self._gauge(
            "upwell_canary_timestamp_seconds",
            "When a heartbeat title was last read back.",
            unknown=True,
        )

    def sent(self) -> None:
        self._sent.inc()

    def seen(self, seconds: float) -> None:
        self._seen.inc()
        self._seconds.observe([seconds])
        self._seen_at.set(time.time())

    def lost(self) -> None:
        self._lost.inc()


def percentiles(seconds: Iterable[float]) -> dict[str, float]:
    """p50 and p99 of at least one sample."""
    p50, p99 = np.percentile(np.fromiter(seconds, np.float64), (50, 99))
    return {"p50": round(float(p50), 4), "p99": round(float(p99), 4)}
