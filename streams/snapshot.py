"""State and model in one checkpoint, and both back from the newest good one."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.folder import load_model, save_model
from model.micro_trainer import MicroTrainer
from model.semantic_gnn import SemanticGNN
from streams import checkpoint, failpoints
from streams.checkpoint import CheckpointError
from streams.settings import GraphSettings, TrainingSettings
from streams.state import State
from streams.wiring import micro_config_of

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Snapshot:
    """What a worker starts from.

    Attributes:
        step: gradient steps of micro-training that made the weights; 0 after pretraining.
        card: about the model: data, settings, metrics.
        trainer: what micro-training remembers between cycles.
        written_s: when it was written, Unix seconds; 0: not at all.
    """

    state: State
    model: SemanticGNN
    step: int
    card: dict[str, Any]
    trainer: MicroTrainer
    written_s: float = 0.0


def save_snapshot(root: Path, snapshot: Snapshot, *, keep: int) -> float:
    """Write one checkpoint; returns for how many seconds the state was locked.

    Raises:
        CheckpointError: the disk refused.
    """
    pause_s = 0.0
    meta: dict[str, Any] = {"step": snapshot.step}

    def fill(folder: Path) -> None:
        nonlocal pause_s
        with snapshot.state.lock:
            start = time.perf_counter()
            graph = snapshot.state.graph.image()  # a copy in memory: writers need not wait for disk
            meta["state"] = snapshot.state.save_beside_graph(folder)
            trainer = snapshot.trainer.state().without(snapshot.state.freed_for("trainer"))
            pause_s = time.perf_counter() - start
        failpoints.reach("checkpoint.inside")
        graph.save(folder / "graph")
        trainer.save(folder / "trainer")
        save_model(folder / "model", snapshot.model, snapshot.card)

    checkpoint.write(root, fill, meta, keep=keep)
    return pause_s


def load_snapshot(
    root: Path, settings: GraphSettings, training: TrainingSettings | None = None
) -> Snapshot:
    """The newest whole checkpoint under `root`; `training`: how cycles are to go on from it.

    Raises:
        CheckpointError: there is none, or the newest is of a later format.
    """
    found, damaged = checkpoint.newest(root)
    for one in damaged:
        log.error("checkpoint passed over: %s", one.reason)
    if found is None:
        raise CheckpointError(
            f"no whole checkpoint under {root}; make one with `upwell pretrain`, "
            "or name another folder (checkpoint.folder)"
        )
    state = State.load(found.folder, found.meta["state"], settings)
    model, card = load_model(found.folder / "model")
    model.bind(state.graph)
    training = training or TrainingSettings()
    trainer = MicroTrainer.load(
        found.folder / "trainer", model.config, micro_config_of(training), training.seed
    )
    log.info("checkpoint %d: seq %d, step %d", found.number, state.seq, found.meta["step"])
    written_s = found.folder.stat().st_mtime
    return Snapshot(state, model, int(found.meta["step"]), card, trainer, written_s)
