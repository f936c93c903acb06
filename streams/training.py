"""The training lane: every cycle, new weights from fresh co-plays, if the gate lets them through.

Its thread runs at a low priority, on copies: the lock is held only while the graph is read, and the
refresh lane goes on meanwhile with the weights in force.
"""

import logging
import os
import threading
import time
from collections import deque
from typing import Any

from model.inference import Embedder
from model.micro_trainer import MicroTrainer
from model.positives import Positives
from model.semantic_gnn import SemanticGNN
from streams.metrics import Metrics
from streams.refresh import RefreshLane
from streams.settings import TrainingSettings
from streams.state import State

log = logging.getLogger(__name__)

NICENESS = 10  # of the training thread: a new title's refresh goes first
REMEMBERED = 50  # cycles that the heartbeat tells of


class TrainingLane:
    """Owns the trainer and the weights in force; one thread runs `run`.

    Attributes:
        model: the weights in force, in evaluation mode.
        step: gradient steps of micro-training that made them.
        last_cycles: what became of the last cycles, as JSON.
    """

    def __init__(
        self,
        state: State,
        refresh: RefreshLane,
        trainer: MicroTrainer,
        metrics: Metrics,
        settings: TrainingSettings,
        *,
        model: SemanticGNN,
        step: int,
    ) -> None:
        self._state, self._refresh, self._trainer = state, refresh, trainer
        self._metrics, self._settings = metrics, settings
        self.model, self.step = model, step
        self._waiting = Positives.empty()
        self._stop = threading.Event()
        self.cycles = 0
        self.last_cycles: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """A cycle every `cycle_s` until stopped."""
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        due = time.monotonic() + self._settings.cycle_s
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = time.monotonic() + self._settings.cycle_s
            self.cycle()

    def cycle(self) -> None:
        """Train once, where enough is fresh, and hand new weights to the refresh lane."""
        with self._state.lock:
            self._waiting = Positives.join([self._waiting, self._state.take_fresh()])
        if len(self._waiting) < self._settings.min_fresh:
            return
        fresh, self._waiting = self._waiting, Positives.empty()
        start = time.perf_counter()
        report = self._trainer.cycle(self.model, self._state.graph, self._state.lock, fresh)
        if report.model is not None:
            self.step += report.steps
            self._embed(report.model)
            self.model = report.model
        seconds = time.perf_counter() - start
        self.cycles += 1
        self.last_cycles.append(
            {
                "cycle": self.cycles,
                "step": self.step,
                "fresh": len(fresh),
                "seconds": round(seconds, 3),
                **report.figures(),
            }
        )
        self._metrics.cycle(report.verdict, seconds, report.drift_cosine)
        if report.model is None:
            log.warning("cycle %d refused by the gate: %s", self.cycles, report.reason)

    def _embed(self, model: SemanticGNN) -> None:
        """Embed the whole graph under new weights, and hand them over."""
        self._refresh.begin_handover()
        embedder = Embedder(model)
        embedder.full(self._state.graph, lock=self._state.lock)
        self._refresh.hand_over(embedder, self.step)
