"""Trainer processes: how they are started and watched, and what they run.

    folder/work.json, ...       their work (model/trainer_work.py)
    folder/trainer-R/N/state.*  its weights, moments and draws after N steps
    folder/state.json           the newest N that all trainers have written

    python -m model.trainers FOLDER         one trainer, by torchrun's variables

A trainer reads its own folder only: no process but the one that wrote them has the whole graph.
Either that process starts the trainers and watches them, or torchrun started all: then the one with
rank 0 writes the work, trains among them, and collects; the folder must be one that all see.
Where a trainer dies the others end too; the next start goes on from the newest state, and comes to
the same weights as if nothing had happened.
"""

import json
import math
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from model.crew import PATIENCE_S, Crew, TrainerLost
from model.folder import Files, load_tensors, save_tensors
from model.part_training import Progress, begin, train_parts
from model.runtime import device_of
from model.semantic_gnn import SemanticGNN
from model.settings import LossConfig, ModelConfig, PretrainConfig
from model.trainer_work import (
    REMEDY,
    WORK,
    Shelf,
    Task,
    home_of,
    prepare,
    with_prefix,
    write_json,
)

STATE = Files("trainer's state", "state.safetensors", "state.json")
SAVES = 10  # in one training
POLL_S = 0.05
GRACE_S = 10.0  # for the others to see that one is gone
LOST = 3  # exit code of a trainer that lost another
LAST_LINES = 600  # characters of what a dead one said

Told = Callable[[int, int, float], None]


class TrainerDied(RuntimeError):
    """A trainer process ended before its work: which, how, and where its state is."""


def train_apart(
    model: SemanticGNN,
    task: Task,
    *,
    trainers: int,
    folder: Path,
    threads: int = 1,
    told: Told = lambda step, steps, loss: None,
) -> float:
    """Train `model`, in place, by processes of their own; returns the mean loss at the end.

    Args:
        folder: made, or gone on with where it is of the same task; deleted in the end.
        threads: of each trainer.
        told: called with step, steps and loss of the first trainer.

    Raises:
        TrainerDied: one ended early; the folder stays.
    """
    prepare(model, task, trainers=trainers, folder=folder)
    _watch(start(folder, trainers, threads=threads), folder, told)
    loss = collect(model, folder)
    shutil.rmtree(folder)
    return loss


def train_as_first(
    model: SemanticGNN,
    task: Task,
    *,
    trainers: int,
    folder: Path,
    told: Told = lambda step, steps, loss: None,
) -> float:
    """As `train_apart`, where torchrun started the trainers and this process is the first.

    Raises:
        TrainerDied: another one ended early; the folder stays.
    """
    prepare(model, task, trainers=trainers, folder=folder)
    _work_in(folder, told, None)
    loss = collect(model, folder)
    shutil.rmtree(folder)
    return loss


def train_as_other(folder: Path) -> NoReturn:
    """What a process does that torchrun started with a rank above 0; it ends with its work.

    Raises:
        TrainerDied: another one ended early.
    """
    _work_in(folder, _say_nothing, PATIENCE_S)
    _end(0)


def start(
    folder: Path, trainers: int, *, threads: int = 1, command: Sequence[str] | None = None
) -> list[subprocess.Popen[bytes]]:
    """Start the trainers on this machine, as torchrun would.

    Args:
        folder: holds one for each trainer.
        command: what each runs; None: this module, on `folder`.
    """
    command = command or [sys.executable, "-m", "model.trainers", str(folder), "--end-with-stdin"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(trainers):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(trainers),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        with (home_of(folder, rank) / "said").open("wb") as said:
            processes.append(
                subprocess.Popen(  # noqa: S603  (our own module)
                    command,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
                    stderr=said,
                )
            )
    return processes


def collect(model: SemanticGNN, folder: Path) -> float:
    """Put what the trainers learned into `model`; returns the mean of their last losses."""
    card = json.loads((folder / "work.json").read_text())
    step = json.loads((folder / "state.json").read_text())["step"]
    losses = []
    for rank in range(card["trainers"]):
        home = home_of(folder, rank)
        tensors, told = load_tensors(home / str(step), STATE, remedy=REMEDY)
        work, _ = load_tensors(home, WORK, remedy=REMEDY)
        weights = with_prefix(tensors, "weight.")
        rows = weights.pop("title_TD")
        own = torch.isin(work["table"], work["own"])
        with torch.no_grad():
            model.title_TD[work["table"][own]] = rows[own]
            if rank == 0:
                model.load_state_dict(weights, strict=False)
        if told["loss"] is not None:
            losses.append(float(told["loss"]))
    return float(np.mean(losses)) if losses else float("nan")


def run(folder: Path, crew: Crew, told: Told) -> None:
    """What one trainer does.

    Raises:
        TrainerLost: another one is gone.
        ModelFolderError: the work is torn.
    """
    home = home_of(folder, crew.rank)
    tensors, card = load_tensors(home, WORK, remedy=REMEDY, mapped=True)
    config = PretrainConfig(**{**card["config"], "loss": LossConfig(**card["config"]["loss"])})
    model = SemanticGNN(
        ModelConfig(**card["model"]),
        [""] * len(tensors["table"]),
        [""] * card["concepts"],
        card["relations"],
    )
    model.load_state_dict(with_prefix(tensors, "weight."))
    parts = Shelf(home, card["parts"], tensors["table"])
    del tensors
    model.to(device_of(config.device, crew.rank))
    seed = card["seed"] + crew.rank * 7919  # so that no two draw alike
    torch.manual_seed(seed)  # of the dropout
    progress = begin(model, config, seed)
    _go_on(folder, home, model, progress)

    def after_step(progress: Progress, steps: int) -> None:
        told(progress.step, steps, progress.losses[-1])
        every = progress.every * max(steps // SAVES // progress.every, 1)
        if progress.step % every == 0 or progress.step == steps:
            _save(folder, home, crew, model, progress)

    train_parts(model, parts, config, crew, progress, after_step=after_step)
    if not progress.step:  # nothing to train on
        _save(folder, home, crew, model, progress)


def _work_in(folder: Path, told: Told, patience_s: float | None) -> None:
    try:
        crew = Crew.by_environment(patience_s=patience_s)
        run(folder, crew, told)
        crew.sum(torch.zeros(1), "the end")  # the first one deletes the folder
        crew.leave()
    except TrainerLost as error:
        raise TrainerDied(f"{error}; {_left_in(folder)}") from error


def _save(folder: Path, home: Path, crew: Crew, model: SemanticGNN, progress: Progress) -> None:
    """Write this trainer's state; it counts once all have written theirs."""
    tensors = {f"weight.{name}": one for name, one in model.state_dict().items()}
    named = dict(model.named_parameters())
    for name, parameter in named.items():
        for key, one in progress.optimizer.state.get(parameter, {}).items():
            tensors[f"moment.{key}.{name}"] = one
    tensors["generator"] = progress.generator.get_state()
    tensors["dropout"] = torch.get_rng_state()
    tail = [one for one in progress.losses[-10:] if not math.isnan(one)]
    loss = float(np.mean(tail)) if tail else None
    save_tensors(home / str(progress.step), tensors, {"step": progress.step, "loss": loss}, STATE)
    crew.sum(torch.zeros(1), f"the state after step {progress.step}")
    if crew.rank == 0:
        write_json(folder / "state.json", {"step": progress.step})
    # Of the one before, since `state.json` may still name it.
    older = sorted(int(one.name) for one in home.iterdir() if one.name.isdigit())
    for step in older[:-2]:
        shutil.rmtree(home / str(step))


def _go_on(folder: Path, home: Path, model: SemanticGNN, progress: Progress) -> None:
    """Take up the state that all trainers have, where there is one."""
    if not (folder / "state.json").is_file():
        return
    step = json.loads((folder / "state.json").read_text())["step"]
    tensors, _ = load_tensors(home / str(step), STATE, remedy=REMEDY)
    model.load_state_dict(with_prefix(tensors, "weight."))
    named = dict(model.named_parameters())
    for name, one in with_prefix(tensors, "moment.").items():
        key, _, parameter = name.partition(".")
        weight = named[parameter]
        progress.optimizer.state[weight][key] = one.to(weight.device) if one.ndim else one
    progress.generator.set_state(tensors["generator"])
    torch.set_rng_state(tensors["dropout"])
    progress.step = step


def _watch(
    processes: list[subprocess.Popen[bytes]], folder: Path, told: Told, grace_s: float = GRACE_S
) -> None:
    """Wait for all; where one fails, end the others.

    Raises:
        TrainerDied: one ended early.
    """
    last = [0, 0]
    reader = threading.Thread(target=_listen, args=(processes[0], last, told), daemon=True)
    reader.start()
    try:
        while any(one.poll() is None for one in processes):
            if any(one.poll() for one in processes):
                deadline = time.monotonic() + grace_s
                while any(one.poll() is None for one in processes) and time.monotonic() < deadline:
                    time.sleep(POLL_S)
                break
            time.sleep(POLL_S)
    finally:
        for one in processes:
            if one.poll() is None:
                one.kill()
            one.wait()
            if one.stdin is not None:
                one.stdin.close()
        reader.join()
    if any(one.returncode for one in processes):
        where = f"after step {last[0]} of {last[1]}" if last[1] else ""
        raise TrainerDied(f"{how_it_ended(processes, folder, where)}; {_left_in(folder)}")


def how_it_ended(
    processes: Sequence[subprocess.Popen[bytes]], folder: Path, where: str = ""
) -> str:
    """Which of the trainers, all of them ended, was the first to fail, and what it said."""
    # That is one that did not merely lose another.
    order = sorted(
        range(len(processes)),
        key=lambda rank: (not processes[rank].returncode, processes[rank].returncode == LOST),
    )
    rank = order[0]
    code = processes[rank].returncode
    said = (home_of(folder, rank) / "said").read_text(errors="replace").strip()[-LAST_LINES:]
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    words = f": {said}" if said else ""
    return f"trainer {rank} of {len(processes)} {ended}{where and ' ' + where}{words}"


def _left_in(folder: Path) -> str:
    state = folder / "state.json"
    if not state.is_file():
        return "no state was saved yet"
    step = json.loads(state.read_text())["step"]
    return f"{folder} holds the state after step {step}: the same command goes on from there"


def _listen(process: subprocess.Popen[bytes], last: list[int], told: Told) -> None:
    assert process.stdout is not None  # noqa: S101  (we opened the pipe)
    with process.stdout as lines:
        for line in lines:
            step, steps, loss = json.loads(line)
            last[:] = step, steps
            told(step, steps, float("nan") if loss is None else loss)


def _end_with_stdin() -> None:
    """A trainer whose starter is gone must not go on alone."""
    sys.stdin.buffer.read()
    os._exit(LOST)


def _say_nothing(step: int, steps: int, loss: float) -> None:
    pass


def _tell(step: int, steps: int, loss: float) -> None:
    line = json.dumps([step, steps, None if math.isnan(loss) else loss])
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def be_trainer(work: Callable[[Crew], None]) -> NoReturn:
    """Meet the others, do `work`, and end this process by a code that says how it went."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    code = 0
    try:
        crew = Crew.by_environment()
        work(crew)
        crew.leave()
    except TrainerLost as error:
        sys.stderr.write(f"{error}\n")
        code = LOST
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        code = 1
    _end(code)


def _end(code: int) -> NoReturn:
    """End this process at once.

    Threads of a process group that is broken hold an orderly exit up, and one that lets go of its
    last tensor while the interpreter ends aborts the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _main(arguments: list[str]) -> NoReturn:
    if "--end-with-stdin" in arguments:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    folder = Path(arguments[0])
    be_trainer(lambda crew: run(folder, crew, _tell if crew.rank == 0 else _say_nothing))


if __name__ == "__main__":
    _main(sys.argv[1:])
