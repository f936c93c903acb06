"""Co-plays as training draws them: those inside one subgraph, by weight, either way round."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.batch import GraphBatch
from model.losses import CandidateSampler, distillation, sampled_softmax
from model.positives import Positives
from model.semantic_gnn import SemanticGNN
from model.settings import LossConfig
from partition.hasp import HaspSubgraph


@dataclass(frozen=True, slots=True)
class Pairs:
    """Positives between the titles of one subgraph, by source; each pair stands both ways.

    Attributes:
        source: local titles that have pairs, ascending, shape (S,), int64.
        ptr: targets of `source[s]` are ptr[s]:ptr[s + 1], shape (S + 1,), int64.
        target: local titles, shape (2 P,), int64.
        cumulative: running sum of the weights over all targets, shape (2 P + 1,), float64.
    """

    source: Tensor
    ptr: Tensor
    target: Tensor
    cumulative: Tensor

    @classmethod
    def inside(cls, graph: HaspSubgraph, positives: Positives) -> "Pairs":
        """Those positives whose both ends are in `graph`."""
        a, b = graph.local(positives.a), graph.local(positives.b)
        rows = np.flatnonzero((a >= 0) & (b >= 0) & (a != b))
        source = np.concatenate([a[rows], b[rows]])
        order = np.argsort(source, kind="stable")
        target = np.concatenate([b[rows], a[rows]])[order]
        weight = np.concatenate([positives.weight[rows]] * 2)[order]
        unique, first = np.unique(source[order], return_index=True)
        cumulative = np.zeros(len(target) + 1)
        np.cumsum(weight, dtype=np.float64, out=cumulative[1:])
        return cls(
            torch.from_numpy(unique),
            torch.from_numpy(np.append(first, len(target)).astype(np.int64)),
            torch.from_numpy(target),
            torch.from_numpy(cumulative),
        )

    def __len__(self) -> int:
        """Number of pairs, counted both ways."""
        return len(self.target)

    def draw(self, sources: int, targets: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sources by the weight of their pairs, and targets of each by weight, with replacement.

        Returns:
            Local titles, shapes (sources,) and (sources, targets).
        """
        total = self.cumulative[-1]
        u = torch.rand(sources, generator=generator, dtype=torch.float64) * total
        row = torch.searchsorted(self.cumulative[self.ptr[1:]], u, right=True)
        row = row.clamp(max=len(self.source) - 1)
        low, high = self.ptr[row], self.ptr[row + 1]
        start, stop = self.cumulative[low].unsqueeze(1), self.cumulative[high].unsqueeze(1)
        u = torch.rand(sources, targets, generator=generator, dtype=torch.float64)
        at = torch.searchsorted(self.cumulative, start + u * (stop - start), right=True) - 1
        at = torch.minimum(torch.maximum(at, low.unsqueeze(1)), high.unsqueeze(1) - 1)
        return self.source[row], self.target[at]


@dataclass(frozen=True, slots=True)
class Anchor:
    """Published vectors to stay near.

    Attributes:
        rows: local titles that have one, shape (A,), int64.
        vectors: shape (A, D).
        weight: of the term in the loss.
    """

    rows: Tensor
    vectors: Tensor
    weight: float


@dataclass(frozen=True, slots=True)
class Outside:
    """Titles of other parts, as they last were: they stand in the softmax, and get no gradient.

    Without them, titles of two parts would never stand against each other, and a score across
    parts would mean nothing.

    Attributes:
        vectors: shape (X, D).
        strength: log(1 + summed co-play weight), shape (X,).
    """

    vectors: Tensor
    strength: Tensor


def candidates_for(
    batch: GraphBatch, config: LossConfig, outside: Outside | None = None
) -> CandidateSampler:
    """Draws over the batch's titles, then those outside.

    Popularity is the summed co-play weight to the power 3/4.
    """
    strength = batch.strength
    if outside is not None:
        strength = torch.cat([strength, outside.strength])
    return CandidateSampler(
        torch.expm1(strength) ** 0.75,
        uniform=config.uniform_candidates,
        popular=config.popular_candidates,
    )


def training_loss(
    model: SemanticGNN,
    batch: GraphBatch,
    sources: list[tuple[Pairs, int]],
    candidates: CandidateSampler,
    config: LossConfig,
    generator: torch.Generator,
    *,
    anchor: Anchor | None = None,
    outside: Outside | None = None,
) -> Tensor:
    """The loss of one step, a scalar with a gradient.

    Args:
        sources: where pairs come from, each with how many source titles; none of them is empty.
        candidates: made by `candidates_for` from the same `outside`.
        anchor: adds distillation.
    """
    hidden = batch.hide(config.hide_title, config.drop_edges, generator)
    z_TD = model(hidden)
    drawn = [pairs.draw(count, config.targets, generator) for pairs, count in sources]
    loss = sampled_softmax(
        z_TD if outside is None else torch.cat([z_TD, outside.vectors]),
        torch.cat([one[0] for one in drawn]),
        torch.cat([one[1] for one in drawn]),
        candidates.draw(generator),
    )
    if anchor is not None and len(anchor.rows):
        loss = loss + anchor.weight * distillation(z_TD[anchor.rows], anchor.vectors)
    return loss
