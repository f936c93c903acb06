"""What one trainer learns from in a cycle of micro-training, and how it learns.

Several trainers each have a lesson of a part of their own; one trainer is the same with nobody to
average with (model/crew.py). The optimiser's moments come in and go out: they stay warm between
cycles. A trainer without pairs idles through the steps, so that its weights stay those of all.

On disk a lesson is `lesson.*`, what came of it `learnt.*`. There the title table has rows for the
lesson's titles only; concepts and layers are whole, since all trainers train them.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.batch import GraphBatch
from model.crew import Crew
from model.folder import Files, load_tensors, save_tensors
from model.pairs import Anchor, Outside, Pairs, candidates_for, training_loss
from model.runtime import device_of, uses_bf16
from model.semantic_gnn import SemanticGNN
from model.settings import LossConfig, MicroConfig, ModelConfig
from model.trainer_work import ARRAYS, with_prefix
from partition.hasp import HaspSubgraph

IDS = "title_TD"  # of the model's parameters
LESSON = Files("lesson", "lesson.safetensors", "lesson.json")
LEARNT = Files("lesson's result", "learnt.safetensors", "learnt.json")
REMEDY = "run the cycle again"

State = dict[str, dict[str, Tensor]]  # of the optimiser: by parameter, then by AdamW's name


@dataclass(frozen=True, slots=True)
class Lesson:
    """See above.

    Attributes:
        sources: where pairs come from, each with how many source titles; none of them is empty.
        seed: of the dropout.
    """

    subgraph: HaspSubgraph
    sources: list[tuple[Pairs, int]]
    anchor: Anchor
    outside: Outside | None
    seed: int


def learn(
    student: SemanticGNN,
    lesson: Lesson,
    config: MicroConfig,
    moments: Mapping[str, Mapping[str, Tensor]],
    crew: Crew,
    generator: torch.Generator,
    *,
    rows: Tensor | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[list[float], State]:
    """Make the steps of a cycle; `student` is changed, and is on the CPU before and after.

    Args:
        moments: to begin with; they are changed too.
        generator: of all draws but the dropout's.
        rows: in the title table, of the subgraph's titles, shape (T,), int64; None: dense ids.
        stop: asked between steps; true ends the training early. Not for several trainers.

    Returns:
        The losses of the steps, and the moments after them.

    Raises:
        TrainerLost: another trainer is gone.
    """
    device = device_of(config.device, crew.rank)
    bf16 = uses_bf16(config.precision, device)
    batch = GraphBatch.of(lesson.subgraph)
    batch = batch if rows is None else replace(batch, titles=rows)
    elsewhere = batch.titles[torch.from_numpy(lesson.subgraph.external)].to(device)
    candidates = candidates_for(batch, config.loss, lesson.outside)
    batch, anchor = batch.to(device), lesson.anchor.to(device)
    outside = None if lesson.outside is None else lesson.outside.to(device)
    student.to(device)
    named = dict(student.named_parameters())
    kinds = student.row_parameters()
    # Rows outside the subgraph have no gradient; decay must not wear them away.
    groups: list[dict[str, Any]] = [
        {"params": [one for name, one in named.items() if name not in kinds]},
        {"params": [named[name] for name in kinds if name != IDS], "weight_decay": 0.0},
        {"params": [named[IDS]], "weight_decay": 0.0, "lr": config.lr * config.id_lr},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    for name, state in moments.items():
        optimizer.state[named[name]] = moved(state, device)
    anchor = anchor.with_bare(student, batch)
    student.train()
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lesson.seed)
        for step in range(config.steps):
            if stop():
                break
            optimizer.zero_grad()
            if lesson.sources:
                loss = training_loss(
                    student,
                    batch,
                    lesson.sources,
                    candidates,
                    config.loss,
                    generator,
                    anchor=anchor,
                    outside=outside,
                    bf16=bf16,
                )
                loss.backward()  # type: ignore[no-untyped-call]
                losses.append(float(loss.detach()))
                if student.title_TD.grad is not None:
                    student.title_TD.grad[elsewhere] = 0.0
            crew.average_gradients(
                student,
                active=bool(lesson.sources),
                max_norm=config.clip,
                what=f"step {step + 1} of {config.steps}",
            )
            optimizer.step()
    cpu = torch.device("cpu")
    student.eval().to(cpu)
    return losses, {name: moved(optimizer.state[one], cpu) for name, one in named.items()}


def moved(state: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """An optimizer's state of one weight, there; its count of steps stays on the CPU."""
    return {key: one.to(device) if one.ndim else one for key, one in state.items()}


def write_lesson(
    home: Path,
    student: SemanticGNN,
    lesson: Lesson,
    config: MicroConfig,
    moments: Mapping[str, Mapping[str, Tensor]],
    seed: int,
) -> None:
    """Args: `seed`: of the trainer's draws."""
    graph = lesson.subgraph
    table = torch.from_numpy(graph.titles.astype(np.int64))
    weights = dict(student.state_dict())
    weights[IDS] = weights[IDS][table]
    tensors = {f"weight.{name}": one for name, one in weights.items()}
    for name, state in moments.items():
        for key, one in state.items():
            of_rows = one[table] if name == IDS and one.ndim else one
            tensors[f"moment.{key}.{name}"] = of_rows
    for name in ARRAYS:
        tensors[f"graph.{name}"] = torch.from_numpy(np.ascontiguousarray(getattr(graph, name)))
    for number, (pairs, _) in enumerate(lesson.sources):
        tensors |= {f"pairs.{number}.{name}": one for name, one in pairs.for_disk().items()}
    tensors |= {"anchor.rows": lesson.anchor.rows, "anchor.vectors": lesson.anchor.vectors}
    if lesson.outside is not None:
        tensors["outside.vectors"] = lesson.outside.vectors
        tensors["outside.strength"] = lesson.outside.strength
    card = {
        "model": asdict(student.config),
        "config": asdict(config),
        "concepts": len(student.concept_names),
        "relations": student.relation_names,
        "counts": [count for _, count in lesson.sources],
        "anchor": lesson.anchor.weight,
        "seed": seed,
        "dropout": lesson.seed,
    }
    save_tensors(home, tensors, card, LESSON)


def learn_from(home: Path, crew: Crew) -> None:
    """Read a lesson, learn, and write what came of it.

    Raises:
        TrainerLost: another trainer is gone.
        ModelFolderError: the lesson is torn.
    """
    tensors, card = load_tensors(home, LESSON, remedy=REMEDY)
    arrays = {name: one.numpy() for name, one in with_prefix(tensors, "graph.").items()}
    titles = len(arrays["titles"])
    student = SemanticGNN(
        ModelConfig(**card["model"]), [""] * titles, [""] * card["concepts"], card["relations"]
    )
    student.load_state_dict(with_prefix(tensors, "weight."))
    moments: State = {}
    for name, one in with_prefix(tensors, "moment.").items():
        key, _, parameter = name.partition(".")
        moments.setdefault(parameter, {})[key] = one
    outside = with_prefix(tensors, "outside.")
    lesson = Lesson(
        HaspSubgraph(**arrays, num_relations=len(card["relations"])),
        [
            (Pairs.from_disk(with_prefix(tensors, f"pairs.{number}.")), count)
            for number, count in enumerate(card["counts"])
        ],
        Anchor(tensors["anchor.rows"], tensors["anchor.vectors"], card["anchor"]),
        Outside(**outside) if outside else None,
        card["dropout"],
    )
    config = MicroConfig(**{**card["config"], "loss": LossConfig(**card["config"]["loss"])})
    losses, moments = learn(
        student,
        lesson,
        config,
        moments,
        crew,
        torch.Generator().manual_seed(card["seed"]),
        rows=torch.arange(titles),
    )
    learnt = {f"weight.{name}": one for name, one in student.state_dict().items()}
    for name, state in moments.items():
        learnt |= {f"moment.{key}.{name}": one for key, one in state.items()}
    save_tensors(home, learnt, {"losses": losses}, LEARNT)


def take_learnt(
    homes: list[Path], lessons: list[Lesson], student: SemanticGNN, moments: State
) -> list[float]:
    """Put what the trainers learnt into `student` and `moments`; returns all their losses.

    What all trained is the same with each; a title's row is taken from where it is at home.
    """
    losses: list[float] = []
    named = student.state_dict()  # more than parameters: scales that pretraining took, too
    for home, lesson in zip(homes, lessons, strict=True):
        tensors, card = load_tensors(home, LEARNT, remedy=REMEDY)
        losses += card["losses"]
        own = torch.from_numpy(~lesson.subgraph.external)
        rows = torch.from_numpy(lesson.subgraph.titles.astype(np.int64))[own]
        weights = with_prefix(tensors, "weight.")
        with torch.no_grad():
            named[IDS][rows] = weights.pop(IDS)[own]
            for name, one in weights.items():
                named[name].copy_(one)
        for name, one in with_prefix(tensors, "moment.").items():
            key, _, parameter = name.partition(".")
            state = moments.setdefault(parameter, {})
            if parameter == IDS and one.ndim:
                state.setdefault(key, torch.zeros_like(named[IDS].data))[rows] = one[own]
            else:
                state[key] = one
    return losses
