"""The work of trainers on disk: what each is to train on, and nothing of what the others have.

    folder/work.json            how many trainers, settings, and what they belong to
    folder/trainer-R/work.*     weights to begin with, for the trainer with rank R
    folder/trainer-R/part-N.*   its N-th part: the subgraph, and the co-plays inside it

A trainer's title table has rows for the titles of its parts only. Co-plays are summed up and sorted
here, so that a trainer never sees those of others, nor the log of all. A part's file is mapped, not
read: where the parts of a trainer are many, only the one that it works on is in memory.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.folder import Files, load_tensors, save_tensors
from model.pairs import Anchor, Pairs
from model.part_training import Part
from model.positives import Positives
from model.semantic_gnn import SemanticGNN
from model.settings import PretrainConfig
from partition.hasp import HaspSubgraph

Float32s = npt.NDArray[np.float32]

WORK = Files("trainer's work", "work.safetensors", "work.json")
REMEDY = "delete the folder and start anew"
COLUMNS = ("a", "b", "weight", "time_ms")  # of positives
ARRAYS = (
    *("titles", "concepts", "edge_index", "relation", "weight", "strength", "external"),
    "features",
)
# Bytes of parts' files that a trainer keeps; more: one part at a time. In memory, sorted both ways
# round, they take several times as much; to read one takes a fraction of a step on it.
HELD = 2**26


@dataclass(frozen=True, slots=True)
class Task:
    """What the trainers are to do together.

    Attributes:
        parts: HASP parts; see `dealt` for who takes which.
        positives: of the whole graph, in time order.
        published: vectors to stay near by dense id, zeros where a title has none, shape (N, D);
            None: of no use.
    """

    parts: Sequence[HaspSubgraph]
    positives: Positives
    config: PretrainConfig
    seed: int
    published: Float32s | None = None

    def anchor_of(self, part: HaspSubgraph) -> Anchor | None:
        """The published vectors of a part, where there are some."""
        if self.published is None:
            return None
        return Anchor.of(part, self.published, self.config.anchor)


def prepare(model: SemanticGNN, task: Task, *, trainers: int, folder: Path) -> None:
    """Write the work of each trainer, unless the folder holds the same already."""
    card: dict[str, Any] = {
        "trainers": trainers,
        "model": asdict(model.config),
        "config": asdict(task.config),
        "seed": task.seed,
        "concepts": len(model.concept_names),
        "relations": model.relation_names,
    }
    card["digest"] = _digest(card, model, task)
    if (folder / "work.json").is_file():
        found = json.loads((folder / "work.json").read_text())
        if found.get("digest") == card["digest"]:
            return
        shutil.rmtree(folder)
    for rank in range(trainers):
        _write_work(home_of(folder, rank), model, task, card, rank)
    write_json(folder / "work.json", card)


def dealt(parts: Sequence[HaspSubgraph], rank: int, trainers: int) -> list[HaspSubgraph]:
    """The parts of one trainer, those with most edges first.

    All wait for the slowest in every step: so those that a step takes are alike.
    """
    order = sorted(range(len(parts)), key=lambda at: (-parts[at].edge_index.shape[1], at))
    return [parts[at] for at in order[rank::trainers]]


def home_of(folder: Path, rank: int) -> Path:
    return folder / f"trainer-{rank}"


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose name begins so, by the rest of it."""
    return {
        name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write it whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value))
    new.replace(path)


class Shelf(Sequence[Part]):
    """The parts of one trainer, read when they are asked for.

    Args:
        table: dense id of each row of its title table, ascending.
        held: bytes of files; where the parts are larger together, the last one read is kept only.
    """

    def __init__(self, home: Path, count: int, table: Tensor, *, held: int = HELD) -> None:
        self._home, self._count, self._table = home, count, table.numpy()
        sizes = [(home / _files(number).tensors).stat().st_size for number in range(count)]
        self._keep = sum(sizes) <= held
        self._read: dict[int, Part] = {}

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> Part: ...
    @overload
    def __getitem__(self, number: slice) -> list[Part]: ...
    def __getitem__(self, number: int | slice) -> Part | list[Part]:
        """Raises ModelFolderError: the part is torn."""
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(self._count))]
        if not 0 <= number < self._count:
            raise IndexError(f"part {number}: want 0..{self._count - 1}")
        if number not in self._read:
            if not self._keep:
                self._read.clear()
            self._read[number] = self._load(number)
        return self._read[number]

    def _load(self, number: int) -> Part:
        tensors, card = load_tensors(self._home, _files(number), remedy=REMEDY, mapped=True)
        arrays = {name: tensors[name].numpy() for name in ARRAYS}
        graph = HaspSubgraph(**arrays, num_relations=card["relations"])
        near = with_prefix(tensors, "anchor.")
        anchor = Anchor(near["rows"], near["vectors"], card["anchor"]) if near else None
        pairs = Pairs.from_disk(with_prefix(tensors, "pairs."))
        return Part.with_pairs(graph, pairs, self._table, anchor)


def _write_work(
    home: Path, model: SemanticGNN, task: Task, card: dict[str, Any], rank: int
) -> None:
    """The files of one trainer: `table` is the dense id of each row of its title table."""
    mine = dealt(task.parts, rank, card["trainers"])
    nobody = np.zeros(0, np.int32)
    table = np.unique(np.concatenate([nobody, *(part.titles for part in mine)])).astype(np.int64)
    own = np.unique(np.concatenate([nobody, *(part.own for part in mine)])).astype(np.int64)
    tensors = {f"weight.{name}": one for name, one in model.state_dict().items()}
    tensors["weight.title_TD"] = model.title_TD.detach()[torch.from_numpy(table)]
    tensors["table"], tensors["own"] = torch.from_numpy(table), torch.from_numpy(own)
    save_tensors(home, tensors, {**card, "parts": len(mine)}, WORK)
    for number, part in enumerate(mine):
        columns = {name: np.ascontiguousarray(getattr(part, name)) for name in ARRAYS}
        tensors = {name: torch.from_numpy(one) for name, one in columns.items()}
        pairs = Pairs.inside(part, task.positives).for_disk()
        tensors |= {f"pairs.{name}": one for name, one in pairs.items()}
        anchor = task.anchor_of(part)
        if anchor is not None:
            tensors |= {"anchor.rows": anchor.rows, "anchor.vectors": anchor.vectors}
        card = {"relations": part.num_relations, "anchor": task.config.anchor}
        save_tensors(home, tensors, card, _files(number))


def _files(number: int) -> Files:
    return Files("trainer's part", f"part-{number}.safetensors", f"part-{number}.json")


def _digest(card: dict[str, Any], model: SemanticGNN, task: Task) -> str:
    """Of all that the work depends on."""
    digest = hashlib.sha256(json.dumps(card).encode())
    for name, one in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(one.contiguous().numpy().data)
    for part in task.parts:
        for name in ARRAYS:
            digest.update(np.ascontiguousarray(getattr(part, name)).data)
    for name in COLUMNS:
        digest.update(np.ascontiguousarray(getattr(task.positives, name)).data)
    if task.published is not None:
        digest.update(np.ascontiguousarray(task.published).data)
    return digest.hexdigest()
