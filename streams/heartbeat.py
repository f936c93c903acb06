"""What the worker tells of itself once a second: to Redis, to Prometheus, to the live page.

One JSON object, made of what the lanes have just now; `upwell status`, `upwell top`, the page and
the demo read it. Nothing in it grows with the catalogue. Counts are since the worker's start,
`*_s` are seconds, `*_ms` milliseconds since the Unix epoch.
"""

import os
import threading
import time
from pathlib import Path
from typing import Any, Final

from streams import health
from streams.dirty import CLEAN
from streams.health import Health, Partitions
from streams.intake import Intake
from streams.metrics import Metrics
from streams.refresh import RefreshLane
from streams.settings import Settings
from streams.state import COPLAY, State
from streams.training import TrainingLane

SIZES_EVERY_S: Final = 10.0  # the graph's bytes are counted so often
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Heartbeat:
    """Gathers the figures of one worker's parts. `beat` is for one thread.

    Attributes:
        phase: `catching up`, `live` or `stopping`.
        checkpoint_error: why the last checkpoint could not be written, or None.
        last: what `beat` returned last.
    """

    def __init__(
        self,
        settings: Settings,
        state: State,
        intake: Intake,
        refresh: RefreshLane,
        training: TrainingLane,
        metrics: Metrics,
        *,
        checkpoint_ms: int,
        address: str | None = None,
    ) -> None:
        """Args: checkpoint_ms: when the loaded one was written; address: of the HTTP server."""
        self._settings, self._state, self._metrics = settings, state, metrics
        self._intake, self._refresh, self._training = intake, refresh, training
        self._floor_ms, self._address = checkpoint_ms, address
        self._started_ms = int(time.time() * 1000)
        self._before = time.monotonic(), 0, 0
        self._sized = float("-inf")
        self._bytes = 0
        self.partitions = Partitions(settings.operate.stalled_s)
        self.health = Health()
        self.phase = "catching up"
        self.checkpoint_error: str | None = None
        self.last: dict[str, Any] = {}

    def watch(self, watched: Health, threads: dict[str, threading.Thread]) -> None:
        """Let `watched` ask whether broker, partitions and lanes are alive.

        Args:
            threads: of the lanes that run, by name: `ingest`, `refresh`, `training`.
        """
        operate = self._settings.operate
        turned_s = {
            "ingest": (lambda: self._intake.turned_s, operate.stalled_s),
            "refresh": (lambda: self._refresh.turned_s, operate.stalled_s),
            # Between two turns lie a pause and a cycle, and a cycle may be long.
            "training": (
                lambda: self._training.turned_s,
                2 * self._settings.training.cycle_s + 10 * operate.stalled_s,
            ),
        }
        watched.watch("broker", lambda: self._intake.broker_trouble(operate.broker_down_s))
        watched.watch("partitions", self.partitions.trouble)
        for name, thread in threads.items():
            watched.watch(name, health.lane(name, thread, *turned_s[name]))
        self.health = watched

    def beat(self) -> dict[str, Any]:
        """Gather, and tell Prometheus by the way."""
        state, metrics = self._state, self._metrics
        events = metrics.event_counts()
        lag = self._intake.lag()
        with state.lock:
            titles, concepts = (len(state.graph.ids[kind]) for kind in ("title", "concept"))
            edges = state.graph.num_edges(state.graph.relation_id(COPLAY.name))
            dirty, seq, fresh = len(state.dirty), state.seq, state.fresh_count()
            positions = dict(state.positions)
        self.partitions.see(positions, lag)
        watermark_ms = self._watermark_ms(lag)
        metrics.lag(lag)
        metrics.watermark(watermark_ms / 1000)
        metrics.waiting(fresh, self._training.step)
        self._measure_sizes()
        events_per_s, published_per_s = self._rates(events, metrics.published_total)
        troubles = self.health.troubles()
        self.health.unready = self._unready()
        metrics.health(
            {name: why is None for name, why in troubles.items()},
            ready=self.health.unready is None,
        )
        self.last = {
            "role": "worker",
            "pid": os.getpid(),
            "phase": self.phase,
            "started_ms": self._started_ms,
            "address": self._address,
            "space": self._settings.redis.space,
            "step": self._refresh.step,
            "seq": seq,
            "titles": titles,
            "concepts": concepts,
            "coplay_edges": edges,
            "events": events,
            "events_per_s": events_per_s,
            "lag": sum(lag.values()),
            "lag_by_partition": {
                f"{topic}/{partition}": messages for (topic, partition), messages in lag.items()
            },
            "watermark_ms": watermark_ms,
            "dirty": dirty,
            "fresh_coplays": fresh,
            "published": metrics.published_total,
            "published_per_s": published_per_s,
            "redis_errors": metrics.redis_errors_total,
            "settled": self._refresh.settled,
            "freshness_s": metrics.freshness_now(),
            "freshness_all_s": metrics.freshness_all(),
            "freshness_recent_s": metrics.freshness_recent(),
            "stages_s": metrics.stages_recent(),
            "newest": list(self._intake.newest),
            "cycles": self._training.cycles,
            "cycle_s": self._settings.training.cycle_s,
            "training": self._training.cycling_s is not None,
            "last_cycles": list(self._training.last_cycles),
            "full_refreshes": self._refresh.full_refreshes,
            "checkpoint_age_s": metrics.checkpoint_age_s,
            "memory_bytes": {"process": resident_bytes(), "graph": self._bytes},
            "checks": troubles,
            "error": self._refresh.last_error or self.checkpoint_error or self._intake.last_error,
        }
        return self.last

    def _unready(self) -> str | None:
        if self.phase != "live":
            return f"the worker is {self.phase}"
        return None if self._refresh.filled else "the space is being filled"

    def _watermark_ms(self, lag: dict[tuple[str, int], int]) -> int:
        """Every event appended before this moment is visible."""
        now_ms = int(time.time() * 1000)
        oldest_ms = self._refresh.oldest_ms()
        unread_ms = self._intake.read_up_to_ms(lag, self._floor_ms)
        return min(
            now_ms,
            now_ms if oldest_ms == CLEAN else oldest_ms,
            now_ms if unread_ms is None else unread_ms,
        )

    def _rates(self, events: dict[str, dict[str, int]], published: int) -> tuple[float, float]:
        """Events applied and vectors published a second, since the last beat."""
        then, *before = self._before
        applied = sum(one.get("applied", 0) for one in events.values())
        now = time.monotonic()
        self._before = now, applied, published
        passed_s = max(now - then, 1e-3)
        return (applied - before[0]) / passed_s, (published - before[1]) / passed_s

    def _measure_sizes(self) -> None:
        if time.monotonic() - self._sized < SIZES_EVERY_S:
            return
        self._sized = time.monotonic()
        graph = self._state.graph
        with self._state.lock:
            nodes = {kind: len(ids) for kind, ids in graph.ids.items()}
            edges = {
                one.name: graph.num_edges(graph.relation_id(one.name)) for one in graph.relations
            }
            memory = graph.memory_report()
        self._bytes = memory.pop("total")
        by_relation: dict[str, int] = {}
        for part, size in memory.items():  # "genre.reverse.nodes" counts to "genre"
            name = part if part.startswith(("ids.", "features.")) else part.partition(".")[0]
            by_relation[name] = by_relation.get(name, 0) + size
        self._metrics.store(nodes, edges, by_relation)


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0
