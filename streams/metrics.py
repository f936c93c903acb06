"""What the worker tells about itself: Prometheus metrics, and the same figures for its heartbeat.

The only file that knows prometheus-client. Base units; no label takes a title. Freshness is the
product's number: visible in Redis minus appended to Kafka, of each title's oldest unseen event.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

BUCKETS_S = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0),
    *(30.0, 60.0, 300.0, 900.0, 3600.0),
)
KINDS = ("catalog", "coplay")
_RECENT = 20_000  # freshness samples a kind that the heartbeat's percentiles look back on


class Metrics:
    """Counters of one worker. Methods may be called from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry}
        self._lock = threading.Lock()
        self._events: dict[tuple[str, str], int] = {}
        self._recent: dict[str, deque[float]] = {kind: deque(maxlen=_RECENT) for kind in KINDS}
        self._event_counter = Counter(
            "upwell_events", "Events by topic and outcome.", ["topic", "outcome"], **made
        )
        self._freshness = Histogram(
            "upwell_freshness_seconds",
            "Embedding visible in Redis minus event appended to Kafka, by event kind.",
            ["kind"],
            buckets=BUCKETS_S,
            **made,
        )
        self._lag = Gauge(
            "upwell_lag_messages", "Messages not yet read.", ["topic", "partition"], **made
        )
        self._dirty = Gauge("upwell_dirty_titles", "Titles that wait for the refresh.", **made)
        self._published = Counter("upwell_published", "Embeddings written to Redis.", **made)
        self._stale = Counter(
            "upwell_stale_refused", "Writes that Redis refused: it had a newer one.", **made
        )
        self._redis_errors = Counter("upwell_redis_errors", "Failed calls of Redis.", **made)
        self._cycles = Counter("upwell_cycles", "Training cycles by verdict.", ["verdict"], **made)
        self._cycle_s = Histogram(
            "upwell_cycle_seconds", "Seconds of a training cycle.", buckets=BUCKETS_S, **made
        )
        self._refresh_s = Histogram(
            "upwell_refresh_seconds", "Seconds of one refresh.", buckets=BUCKETS_S, **made
        )
        self._drift = Gauge(
            "upwell_drift_cosine", "Mean cosine of new to published vectors, last cycle.", **made
        )
        self._checkpoint_s = Gauge(
            "upwell_checkpoint_pause_seconds", "Ingest's pause for the last checkpoint.", **made
        )
        self._checkpoint_at = Gauge(
            "upwell_checkpoint_timestamp_seconds", "When the last checkpoint was written.", **made
        )

    def serve(self, host: str, port: int) -> None:
        """Answer Prometheus on `host:port`; raises OSError where the port is taken."""
        start_http_server(port, addr=host, registry=self.registry)

    def events(self, topic: str, *, read: int = 0, applied: int = 0, dead: int = 0) -> None:
        """Count events of `topic`: read = applied + dead, once a batch is through."""
        with self._lock:
            for outcome, count in (("in", read), ("applied", applied), ("dead", dead)):
                key = topic, outcome
                self._events[key] = self._events.get(key, 0) + count
                self._event_counter.labels(topic, outcome).inc(count)

    def freshness(self, kind: str, seconds: npt.NDArray[np.float64]) -> None:
        """One sample a title that has become visible, shape (T,)."""
        histogram = self._freshness.labels(kind)
        for value in seconds.tolist():
            histogram.observe(value)
        with self._lock:
            self._recent[kind].extend(seconds.tolist())

    def lag(self, lags: Mapping[tuple[str, int], int]) -> None:
        for (topic, partition), messages in lags.items():
            self._lag.labels(topic, str(partition)).set(messages)

    def dirty(self, titles: int) -> None:
        self._dirty.set(titles)

    def published(self, written: int, stale: int, seconds: float) -> None:
        self._published.inc(written)
        self._stale.inc(stale)
        self._refresh_s.observe(seconds)

    def redis_failed(self) -> None:
        self._redis_errors.inc()

    def cycle(self, verdict: str, seconds: float, drift_cosine: float) -> None:
        self._cycles.labels(verdict).inc()
        self._cycle_s.observe(seconds)
        if np.isfinite(drift_cosine):
            self._drift.set(drift_cosine)

    def checkpoint(self, pause_s: float) -> None:
        self._checkpoint_s.set(pause_s)
        self._checkpoint_at.set(time.time())

    def event_counts(self) -> dict[str, dict[str, int]]:
        """Events by topic: {"coplays": {"in": ..., "applied": ..., "dead": ...}}."""
        with self._lock:
            counts: dict[str, dict[str, int]] = {}
            for (topic, outcome), count in self._events.items():
                counts.setdefault(topic, {})[outcome] = count
            return counts

    def freshness_now(self) -> dict[str, dict[str, float]]:
        """Percentiles of the last samples by kind, seconds: {"catalog": {"p50": ..., "p99": ...}}.

        A kind without samples is left out.
        """
        with self._lock:
            recent = {kind: list(values) for kind, values in self._recent.items() if values}
        return {kind: percentiles(values) for kind, values in recent.items()}


def percentiles(seconds: Iterable[float]) -> dict[str, float]:
    """p50 and p99 of at least one sample."""
    p50, p99 = np.percentile(np.fromiter(seconds, np.float64), (50, 99))
    return {"p50": round(float(p50), 4), "p99": round(float(p99), 4)}
