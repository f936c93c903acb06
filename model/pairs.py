"""Co-plays as training draws them: those inside one subgraph, by weight, either way round."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.batch import GraphBatch
from model.losses import NegativeSampler, distillation, sampled_softmax
from model.positives import Positives
from model.semantic_gnn import SemanticGNN
from model.settings import LossConfig
from partition.hasp import HaspSubgraph


@dataclass(frozen=True, slots=True)
class Pairs:
    """Positives between the titles of one subgraph.

    Attributes:
        a, b: local titles, shape (P,), int64.
        cumulative: running sum of the weights, shape (P,), float64.
    """

    a: Tensor
    b: Tensor
    cumulative: Tensor

    @classmethod
    def inside(cls, graph: HaspSubgraph, positives: Positives) -> "Pairs":
        """Those positives whose both ends are in `graph`."""
        a, b = graph.local(positives.a), graph.local(positives.b)
        rows = np.flatnonzero((a >= 0) & (b >= 0) & (a != b))
        return cls(
            torch.from_numpy(a[rows]),
            torch.from_numpy(b[rows]),
            torch.from_numpy(np.cumsum(positives.weight[rows], dtype=np.float64)),
        )

    def __len__(self) -> int:
        return len(self.a)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` pairs by weight, with replacement: (from, to), local titles."""
        u = torch.rand(count, generator=generator, dtype=torch.float64) * self.cumulative[-1]
        row = torch.searchsorted(self.cumulative, u, right=True).clamp(max=len(self.a) - 1)
        a, b = self.a[row], self.b[row]
        turn = torch.rand(count, generator=generator) < 0.5
        return torch.where(turn, b, a), torch.where(turn, a, b)


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


def negatives_for(batch: GraphBatch, config: LossConfig) -> NegativeSampler:
    """Draws over the batch's titles; popularity is the summed co-play weight to the power 3/4."""
    return NegativeSampler(
        torch.expm1(batch.strength) ** 0.75,
        uniform=config.uniform_negatives,
        popular=config.popular_negatives,
    )


def training_loss(
    model: SemanticGNN,
    batch: GraphBatch,
    sources: list[tuple[Pairs, int]],
    negatives: NegativeSampler,
    config: LossConfig,
    generator: torch.Generator,
    anchor: Anchor | None = None,
) -> Tensor:
    """The loss of one step, a scalar with a gradient.

    Args:
        sources: where pairs come from, each with how many of them; none of them is empty.
        anchor: adds distillation.
    """
    hidden = batch.hide(config.hide_title, config.drop_edges, generator)
    z_TD = model(hidden)
    drawn = [pairs.draw(count, generator) for pairs, count in sources]
    loss = sampled_softmax(
        z_TD,
        torch.cat([one[0] for one in drawn]),
        torch.cat([one[1] for one in drawn]),
        negatives.draw(generator),
    )
    if anchor is not None and len(anchor.rows):
        loss = loss + anchor.weight * distillation(z_TD[anchor.rows], anchor.vectors)
    return loss
