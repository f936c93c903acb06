"""What training on parts costs: for bench_partition.py.

Time and memory are of a trainer process as the product runs it (model/trainers.py): seconds between
the steps that it tells of, and its peak of resident memory, with the interpreter and torch in it.
The peak is read from /proc while it runs: what `wait4` tells begins with the peak of the process
that started it. An *epoch* takes every title once as a source.
"""

import functools
import json
import math
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model import trainers
from model.positives import Positives
from model.semantic_gnn import Names, SemanticGNN
from model.settings import LossConfig, ModelConfig, PretrainConfig
from model.trainer_work import Task, prepare
from partition.hasp import HaspSubgraph
from store.graph import DynamicGraph

STEPS = 4  # told of; the first warms up


@dataclass(frozen=True, slots=True)
class Run:
    """One trainer process: seconds a step (median) and peak bytes.

    Attributes:
        start: bytes of one that has no work: the interpreter, torch, and an optimiser.
    """

    step_s: float
    peak: int
    start: int


def positives_of(graph: DynamicGraph) -> Positives:
    """Every co-play of the graph, once."""
    heads, tails, weights = graph.edges(0)
    once = heads < tails
    return Positives(
        heads[once], tails[once], weights[once], np.arange(int(once.sum()), dtype=np.int64)
    )


def run_trainer(
    graph: DynamicGraph, parts: Sequence[HaspSubgraph], positives: Positives, seed: int
) -> Run:
    """Train a few steps a part, in a process of its own."""
    model = _model(graph, seed)
    config = PretrainConfig(steps=STEPS * len(parts), parts=len(parts))
    task = Task(parts, positives, config, seed)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        prepare(model, task, trainers=1, folder=folder)
        del model, task
        (process,) = trainers.start(folder, 1)
        assert process.stdout is not None
        assert process.stdin is not None
        peaks: list[int] = []
        watch = threading.Thread(target=_watch_peak, args=(process, peaks))
        watch.start()
        with process.stdout as lines:
            told = [time.perf_counter() for _ in lines]
        watch.join()
        process.stdin.close()
        assert process.wait() == 0, (folder / "trainer-0" / "said").read_text()
    return Run(float(np.median(np.diff(told))), peaks[-1], bare_peak())


@functools.cache
def bare_peak() -> int:
    """Peak bytes of a process that imports what a trainer does, makes an optimiser, and ends."""
    code = (
        "import torch, model.trainers;"
        "torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]);"
        "print(open('/proc/self/status').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return int(re.findall(r"VmHWM:\s*(\d+)", done.stdout)[0]) * 1024


def _watch_peak(process: "subprocess.Popen[bytes]", peaks: list[int]) -> None:
    """Note the peak of resident memory until the process has ended; it only grows."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        found = re.search(r"VmHWM:\s*(\d+)", status.read_text())
        if found:  # else it is ending
            peaks.append(int(found[1]) * 1024)
        time.sleep(0.005)


def epoch_s(run: Run, titles: int, parts: int) -> float:
    """Seconds of one epoch over `parts` parts of so many titles each."""
    return parts * math.ceil(titles / LossConfig().sources) * run.step_s


def seconds_of(
    graph: DynamicGraph,
    parts: list[HaspSubgraph],
    positives: Positives,
    *,
    count: int,
    steps: int,
    seed: int,
) -> tuple[float, float]:
    """The same passes over `parts` by `count` trainers of one thread.

    Returns:
        Seconds of the steps, once started, and of all, with the start of the processes.
    """
    told: list[float] = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        config = PretrainConfig(steps=steps, parts=len(parts))
        trainers.train_apart(
            _model(graph, seed),
            Task(parts, positives, config, seed),
            trainers=count,
            folder=Path(name) / "work",
            threads=1,
            told=lambda step, steps, loss: told.append(time.perf_counter()),
        )
    steps_s = (told[-1] - told[0]) / (len(told) - 1) * len(told)
    return steps_s, time.perf_counter() - start


def rounded(value: object) -> object:
    """JSON with four digits behind the point."""
    return json.loads(json.dumps(value), parse_float=lambda one: round(float(one), 4))


def _model(graph: DynamicGraph, seed: int) -> SemanticGNN:
    names = Names.of(graph)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SemanticGNN(ModelConfig(), names.title, names.concept, names.relation)
