"""What a micro-trainer keeps between cycles, as one value, and that value on disk.

Nothing in a `TrainerState` is changed once it is made: a trainer replaces its parts. So a
checkpoint can take the state at any moment, and write it while the next cycle runs.

Files: `trainer.safetensors` holds the reservoir, recent pairs, the cut, the optimiser's moments and
the state of torch's generator; `trainer.json` all else, and the checksum.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.folder import Files, ModelFolderError, load_tensors, save_tensors
from model.positives import Positives
from model.semantic_gnn import Moved, Names, SemanticGNN, take_rows
from partition.mincut import Partition
from partition.named import NamedParts

FILES = Files("micro-trainer", "trainer.safetensors", "trainer.json")
REMEDY = "start with a new one"
COLUMNS = ("a", "b", "weight", "time_ms")  # of pairs


@dataclass(frozen=True, slots=True)
class Moments:
    """What the optimiser knows of past gradients.

    Attributes:
        of: by parameter, then by what AdamW calls it.
        names: what the rows stand for.
    """

    of: Mapping[str, Mapping[str, Tensor]]
    names: Names

    @classmethod
    def none(cls) -> "Moments":
        return cls({}, Names([], [], []))

    def for_model(self, model: SemanticGNN) -> dict[str, dict[str, Tensor]]:
        """Copies for the parameters of `model`, row for row; 0 for a row that is new.

        Those of a parameter that the model does not have, or has in another shape, are left out.
        """
        moved: Moved | None = self.names.moved_to(model.names())
        kinds = model.row_parameters()
        found: dict[str, dict[str, Tensor]] = {}
        for name, parameter in model.named_parameters():
            state = {}
            for key, one in self.of.get(name, {}).items():
                rows = moved.rows[kinds[name]] if moved and name in kinds and one.ndim else None
                state[key] = one.clone() if rows is None else take_rows(one, rows)
            if all(one.shape in (parameter.shape, ()) for one in state.values()) and state:
                found[name] = state
        return found


@dataclass(frozen=True, slots=True)
class TrainerState:
    """See above.

    Attributes:
        cycles: cycles begun so far.
        pairs, seen, reservoir_rng: of the reservoir.
        recent: pairs of the last cycles, the newest first.
        moments: of the last cycle that passed.
        parts: of the last cycle; None where there is one only.
        rng: state of numpy's generator.
        generator: state of torch's, uint8.
    """

    cycles: int
    pairs: Positives
    recent: tuple[Positives, ...]
    seen: int
    reservoir_rng: Mapping[str, Any]
    moments: Moments
    parts: NamedParts | None
    rng: Mapping[str, Any]
    generator: Tensor

    def without(self, titles: npt.NDArray[np.integer]) -> "TrainerState":
        """The same without pairs of these titles."""
        return replace(
            self,
            pairs=self.pairs.without(titles),
            recent=tuple(one.without(titles) for one in self.recent),
        )

    def save(self, folder: Path) -> None:
        """Write the state under `folder`, which is made."""
        tensors = {f"pairs.{name}": _tensor(getattr(self.pairs, name)) for name in COLUMNS}
        recent = Positives.join(list(self.recent))
        tensors |= {f"recent.{name}": _tensor(getattr(recent, name)) for name in COLUMNS}
        tensors["generator"] = self.generator
        for name, state in self.moments.of.items():
            tensors |= {f"moments.{key}.{name}": one for key, one in state.items()}
        card: dict[str, Any] = {
            "cycles": self.cycles,
            "seen": self.seen,
            "recent": [len(one) for one in self.recent],
            "reservoir_rng": self.reservoir_rng,
            "rng": self.rng,
            "names": asdict(self.moments.names),
            "partition": None,
        }
        if self.parts is not None:
            cut = self.parts.partition
            tensors["part"] = _tensor(cut.part)
            card["partition"] = {
                "num_parts": cut.num_parts,
                "kept_weight": cut.kept_weight,
                "balance": cut.balance,
                "seconds": cut.seconds,
            }
            card["titles"] = self.parts.titles
        save_tensors(folder, tensors, card, FILES)

    @classmethod
    def load(cls, folder: Path) -> "TrainerState":
        """Read what `save` wrote.

        Raises:
            ModelFolderError: nothing there, torn, or of a newer format.
        """
        tensors, card = load_tensors(folder, FILES, remedy=REMEDY)
        try:
            moments: dict[str, dict[str, Tensor]] = {}
            for name, one in tensors.items():
                if name.startswith("moments."):
                    _, key, parameter = name.split(".", 2)
                    moments.setdefault(parameter, {})[key] = one
            parts = None
            # Without names nobody knows whose parts they are: an older trainer did not write them.
            if card["partition"] is not None and "titles" in card:
                cut = Partition(tensors["part"].numpy(), **card["partition"])
                parts = NamedParts(cut, card["titles"])
            return cls(
                cycles=int(card["cycles"]),
                pairs=_positives(tensors, "pairs"),
                recent=_cycles(tensors, card.get("recent", [])),
                seen=int(card["seen"]),
                reservoir_rng=card["reservoir_rng"],
                moments=Moments(moments, Names(**card["names"])),
                parts=parts,
                rng=card["rng"],
                generator=tensors["generator"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFolderError(
                f"{folder / FILES.card} and {FILES.tensors} disagree: {error!r}; {REMEDY}"
            ) from error


def _positives(tensors: Mapping[str, Tensor], kind: str) -> Positives:
    return Positives(*(tensors[f"{kind}.{name}"].numpy() for name in COLUMNS))


def _cycles(tensors: Mapping[str, Tensor], counts: list[int]) -> tuple[Positives, ...]:
    """Args: `counts`: pairs of each cycle; empty where an older trainer remembered none."""
    if not counts:
        return ()
    joined, ends = _positives(tensors, "recent"), np.cumsum(counts)
    return tuple(joined[end - count : end] for end, count in zip(ends, counts, strict=True))


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
