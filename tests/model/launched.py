"""What torchrun starts in test_torchrun.py: `launched.py FOLDER [STEP]`.

The process with rank 1 kills itself before it saves a state after STEP.
"""

import faulthandler
import os
import signal
import sys
from pathlib import Path

import numpy as np

from model import trainers
from model.crew import launched
from model.positives import Positives
from model.pretrain import pretrain
from model.settings import LossConfig, ModelConfig, PretrainConfig
from store.graph import DynamicGraph, Relation
from tests.model.conftest import concepts, put

CONFIG = PretrainConfig(transe_steps=5, steps=60, parts=2, loss=LossConfig(sources=16))


def camps() -> tuple[DynamicGraph, Positives]:
    rng = np.random.default_rng(0)
    camp = rng.integers(2, size=400) * 10
    a, b = camp + rng.integers(10, size=400), camp + rng.integers(10, size=400)
    a, b = a[a != b].astype(np.int32), b[a != b].astype(np.int32)
    graph = DynamicGraph(
        [
            Relation("coplay", "title", "title", symmetric=True),
            Relation("genre", "title", "concept"),
        ]
    )
    graph.ids["title"].intern([f"m{number}" for number in range(20)])
    put(graph, 0, [(int(i), int(j), 1.0) for i, j in zip(a, b, strict=True)])
    concepts(graph, 1, [(title, title // 10) for title in range(20)])
    ones = np.ones(len(a), np.float32)
    return graph, Positives(a, b, ones, np.arange(len(a), dtype=np.int64))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(folder: Path, kill_after: int | None) -> None:
    place = launched()
    assert place is not None
    rank, size = place
    if rank == 0:
        graph, positives = camps()
        made = pretrain(
            graph,
            positives,
            model=ModelConfig(dim=8, max_coplay=4),
            config=CONFIG,
            trainers=size,
            work=folder,
            progress=lambda stage, step, steps, figures: say(f"{stage} {step} of {steps}"),
        )
        say(f"recall {made.metrics['recall20']}")
        return
    save = trainers._save

    def save_or_die(folder, home, crew, model, progress):
        if kill_after is not None and progress.step > kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        save(folder, home, crew, model, progress)

    trainers._save = save_or_die
    trainers.train_as_other(folder)


if __name__ == "__main__":
    faulthandler.enable()
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
