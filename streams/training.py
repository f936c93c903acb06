"""The training lane: every cycle, new weights from fresh co-plays, if the gate lets them through.

Its thread runs at a low priority, on copies: the lock is held only while the graph is read, and the
refresh lane goes on meanwhile with the weights in force.
"""

import logging
import math
import os
import shutil
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from model.folder import save_model
from model.micro_trainer import CycleReport, MicroTrainer
from model.semantic_gnn import SemanticGNN
from streams import failpoints
from streams.metrics import Metrics
from streams.refresh import RefreshLane
from streams.settings import TrainingSettings
from streams.state import State

log = logging.getLogger(__name__)

NICENESS = 10  # of the training thread: a new title's refresh goes first
REFUSED_KEPT = 3
REMEMBERED = 50  # cycles that the heartbeat tells of


class TrainingLane:
    """Owns the trainer and the weights in force; one thread runs `run`.

    Attributes:
        model: the weights in force, in evaluation mode.
        step: gradient steps of micro-training that made them.
        last_cycles: what became of the last cycles, as JSON.
        turned_s: when its thread last took a turn, monotonic.
        cycling_s: since when a cycle has been running, monotonic; None between cycles.
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
        refused: Path,
    ) -> None:
        """Args: `refused`: folder that models which the gate refused are kept in."""
        self._state, self._refresh, self._trainer = state, refresh, trainer
        self._metrics, self._settings = metrics, settings
        self.model, self.step = model, step
        self._refused = refused
        self._stop = threading.Event()
        self.cycles = 0
        self.turned_s = time.monotonic()
        self.cycling_s: float | None = None
        self.last_cycles: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """A cycle every `cycle_s` until stopped."""
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        due = time.monotonic() + self._settings.cycle_s
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self.turned_s = time.monotonic()
            due = self.turned_s + self._settings.cycle_s
            try:
                self.cycle()
            except Exception as error:
                # The refresh lane can go on without new weights; the operator is told.
                log.exception("cycle %d failed", self.cycles + 1)
                self._refresh.abandon_handover()
                self._failed(error)
            finally:
                self.cycling_s = None
        self._trainer.close()

    def cycle(self) -> None:
        """Train once, where enough is fresh, and hand new weights to the refresh lane."""
        state, trainer = self._state, self._trainer
        with state.lock:
            if state.fresh_count() < self._settings.min_fresh:
                return
            fresh = state.take_fresh()
            trainer.forget(state.take_freed("trainer"))
            # From here on the lane notes what moves: the new vectors are of the graph as it is now.
            published_TD = self._refresh.begin_handover()
        start = time.perf_counter()
        self.cycling_s = time.monotonic()
        report = trainer.cycle(
            self.model, state.graph, state.lock, fresh, published_TD, stop=self._stop.is_set
        )
        seconds = time.perf_counter() - start
        self.cycles += 1
        if report.model is not None and report.embedder is not None:
            failpoints.reach("training.handover")
            self.model, self.step = report.model, self.step + report.steps
            self._refresh.hand_over(report.embedder, self.step)
        else:
            self._refresh.abandon_handover()
            log.warning("cycle %d %s: %s", self.cycles, report.verdict, report.reason)
        if report.refused is not None:
            self._keep_refused(report.refused, report)
        self.last_cycles.append(self._told(report, len(fresh), seconds))
        self._metrics.cycle(
            report.verdict,
            seconds,
            report.drift_cosine,
            steps=report.seconds,
            loss=report.loss,
            recall={"before": report.recall_before, "after": report.recall_after},
        )

    def _keep_refused(self, model: SemanticGNN, report: CycleReport) -> None:
        """Keep a refused model to be looked at, the last few of them; a full disk is only told."""
        folder = self._refused / f"{int(time.time() * 1000)}"
        card = {"cycle": self.cycles, "reason": report.reason, "based_on_step": self.step}
        try:
            save_model(folder, model, card)
            for old in sorted(self._refused.iterdir())[:-REFUSED_KEPT]:
                shutil.rmtree(old)
        except OSError as error:
            log.warning("the refused model could not be kept: %s", error)

    def _failed(self, error: Exception) -> None:
        self.cycles += 1
        told = {"cycle": self.cycles, "verdict": "failed", "reason": str(error), "step": self.step}
        self.last_cycles.append({**told, "fresh": 0, "steps": 0, "seconds": 0.0})
        self._metrics.cycle("failed", 0.0, math.nan)

    def _told(self, report: CycleReport, fresh: int, seconds: float) -> dict[str, Any]:
        """The cycle as JSON: what is not a number is left out."""
        figures = {
            "loss": report.loss,
            "drift_cosine": report.drift_cosine,
            "recall_before": report.recall_before,
            "recall_after": report.recall_after,
            "kept_weight": self._trainer.keeper.kept,
        }
        return {
            "cycle": self.cycles,
            "verdict": report.verdict,
            "reason": report.reason,
            "fresh": fresh,
            "steps": report.steps,
            "step": self.step,
            "seconds": round(seconds, 3),
            "seconds_by_step": {name: round(value, 3) for name, value in report.seconds.items()},
            **{name: round(value, 5) for name, value in figures.items() if math.isfinite(value)},
        }
