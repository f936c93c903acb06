"""Co-plays as training draws them: those inside one subgraph, by weight, either way round."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from model.batch import GraphBatch
from model.losses import CandidateSampler, Shares, distillation, exact_softmax, sampled_softmax
from model.positives import Positives
from model.runtime import autocast
from model.semantic_gnn import SemanticGNN
from model.settings import LossConfig
from partition.hasp import HaspSubgraph
from store.graph import DynamicGraph

Float32s = npt.NDArray[np.float32]

NOTHING = 1e-4  # a weight that is left by rounding only
CHUNK = 1_000_000  # positives that are looked up at once


@dataclass(frozen=True, slots=True)
class Pairs:
    """Positives between the titles of one subgraph, by source; each pair stands both ways, once.

    Attributes:
        source: local titles that have pairs, ascending, shape (S,), int64.
        ptr: targets of `source[s]` are ptr[s]:ptr[s + 1], shape (S + 1,), int64.
        target: local titles, shape (Q,), int64.
        weight: summed over all positives of the pair, shape (Q,), float32.
        cumulative: running sum of the weights, shape (Q + 1,), float64.
        share: P(target | source), shape (Q,), float32.
    """

    source: Tensor
    ptr: Tensor
    target: Tensor
    weight: Tensor
    cumulative: Tensor
    share: Tensor

    @classmethod
    def inside(cls, graph: HaspSubgraph, positives: Positives) -> "Pairs":
        """Those positives whose both ends are in `graph`."""
        titles = len(graph.titles)
        one_way = sparse.csr_array((titles, titles))
        for start in range(0, len(positives), CHUNK):
            some = slice(start, start + CHUNK)
            a, b = graph.local(positives.a[some]), graph.local(positives.b[some])
            rows = np.flatnonzero((a >= 0) & (b >= 0) & (a != b))
            weight = positives.weight[some][rows].astype(np.float64)
            more = sparse.coo_array((weight, (a[rows], b[rows])), (titles, titles))
            one_way = one_way + more.tocsr()
        return cls._of(one_way + one_way.T.tocsr())

    @classmethod
    def of_graph(cls, graph: DynamicGraph, subgraph: HaspSubgraph, less: Positives) -> "Pairs":
        """All co-plays that the graph holds between titles of `subgraph`, by their weight there.

        Args:
            less: pairs whose weight is taken off again, since they are held back.
        """
        titles = len(subgraph.titles)
        rest = -cls.inside(subgraph, less)._matrix(titles)
        for number, relation in enumerate(graph.relations):
            if relation.symmetric:
                indptr, others, weight = graph.neighbors(number, subgraph.titles)
                target = subgraph.local(others)
                keep = (target >= 0) & (target != np.repeat(np.arange(titles), np.diff(indptr)))
                ptr = np.concatenate([[0], np.cumsum(keep)])[indptr]
                held = (weight[keep].astype(np.float64), target[keep].astype(np.int32), ptr)
                rest = rest + sparse.csr_array(held, (titles, titles))
        return cls._of(rest, least=NOTHING)

    @classmethod
    def from_disk(cls, columns: Mapping[str, Tensor]) -> "Pairs":
        """What `for_disk` gave."""
        source, ptr, target = (columns[name].long() for name in ("source", "ptr", "target"))
        return cls._made(source, ptr, target, columns["weight"])

    def for_disk(self) -> dict[str, Tensor]:
        """Columns that say all."""
        narrow = {name: getattr(self, name).int() for name in ("source", "target")}
        return {**narrow, "ptr": self.ptr, "weight": self.weight}

    def over(self, past: "Pairs", share: float) -> "Pairs":
        """These sources, by their weight here; of their targets, `share` by what is counted here.

        The rest of the targets is by `past`; a source that has nothing there keeps its own.
        """
        columns = (self.source, self.target, past.source, past.target)
        titles = 1 + max(int(column.max()) if len(column) else 0 for column in columns)
        new, old = self._matrix(titles), past._matrix(titles)
        weight_T, past_T = (np.asarray(one.sum(axis=1)).ravel() for one in (new, old))
        # By weight of the source here: what is new as it stands, or its share; the rest is old.
        new_T = np.where(past_T > 0, share, 1.0)
        old_T = (1 - share) * weight_T / np.where(past_T > 0, past_T, 1.0)
        for matrix, factor_T in ((new, new_T), (old, old_T)):
            matrix.data *= np.repeat(factor_T, np.diff(matrix.indptr))
        return Pairs._of(new + old)

    def _matrix(self, titles: int) -> sparse.csr_array:
        """Weights of the pairs, shape (titles, titles), float64."""
        counts = np.zeros(titles, np.int64)
        counts[self.source.numpy()] = torch.diff(self.ptr).numpy()
        ptr = np.concatenate([[0], np.cumsum(counts)])
        weight = self.weight.numpy().astype(np.float64)
        target = self.target.numpy().astype(np.int32)
        return sparse.csr_array((weight, target, ptr), (titles, titles))

    @classmethod
    def _of(cls, weights: sparse.csr_array, *, least: float = 0.0) -> "Pairs":
        """Those that weigh more than `least`."""
        weights.sort_indices()
        some = weights.data > least
        ptr = np.concatenate([[0], np.cumsum(some)])[weights.indptr].astype(np.int64)
        source = np.flatnonzero(np.diff(ptr))
        return cls._made(
            torch.from_numpy(source),
            torch.from_numpy(np.append(ptr[source], ptr[-1])),
            torch.from_numpy(weights.indices[some].astype(np.int64)),
            torch.from_numpy(weights.data[some].astype(np.float32)),
        )

    @classmethod
    def _made(cls, source: Tensor, ptr: Tensor, target: Tensor, weight: Tensor) -> "Pairs":
        cumulative = torch.zeros(len(weight) + 1, dtype=torch.float64)
        torch.cumsum(weight.double(), 0, out=cumulative[1:])
        total = (cumulative[ptr[1:]] - cumulative[ptr[:-1]]).float()
        share = weight / torch.repeat_interleave(total, torch.diff(ptr))
        return cls(source, ptr, target, weight, cumulative, share)

    def __len__(self) -> int:
        """Number of different pairs, counted both ways."""
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

    def spread(self, sources: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw different sources by the weight of their pairs, none twice.

        A systematic draw: the largest are always there, and the weights make up for it.

        Returns:
            Rows of `source`, at most `sources` of them, and the weight of each in a mean over all
            pairs; the weights sum to 1.
        """
        weight = self.cumulative[self.ptr[1:]] - self.cumulative[self.ptr[:-1]]
        share = weight / self.cumulative[-1]
        chance = inclusion(share, sources)
        edge = torch.cumsum(chance, 0)
        u = torch.rand(1, generator=generator, dtype=torch.float64)
        below = torch.floor(edge + u)
        row = (torch.diff(below, prepend=torch.floor(u)) > 0).nonzero().flatten()
        weight = share[row] / chance[row]
        return row, (weight / weight.sum()).float()

    def shares(self, row: Tensor) -> Shares:
        """P(target | source) for rows of `source`; local titles."""
        low, count = self.ptr[row], self.ptr[row + 1] - self.ptr[row]
        ptr = torch.zeros(len(row) + 1, dtype=torch.int64)
        torch.cumsum(count, 0, out=ptr[1:])
        at = torch.arange(int(ptr[-1])) + torch.repeat_interleave(low - ptr[:-1], count)
        return Shares(ptr, self.target.index_select(0, at), self.share.index_select(0, at))


def inclusion(share_S: Tensor, draws: int) -> Tensor:
    """The chance of each to be among `draws` that are drawn without repeats, shape (S,).

    Proportional to `share_S`, but at most 1; where a chance is 1, the others share what is left.
    """
    if draws >= len(share_S):
        return torch.ones_like(share_S)
    down = torch.sort(share_S, descending=True).values
    rest = down.flip(0).cumsum(0).flip(0)  # of this one and all smaller ones
    # The first n are certain, for the least n that leaves no other above 1.
    fits = down * (draws - torch.arange(len(down))) <= rest
    certain = int(fits.int().argmax())
    return (share_S * ((draws - certain) / rest[certain])).clamp(max=1.0)


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

    @classmethod
    def of(cls, graph: HaspSubgraph, published: Float32s, weight: float) -> "Anchor":
        """To those of the subgraph's titles that have a published vector.

        Args:
            published: by dense id, zeros where a title has none, shape (N, D). That of a title that
                nobody has played is not what is trained (model/unplayed.py): see `with_bare`.
        """
        local = np.flatnonzero(graph.titles < len(published))
        rows = local[published[graph.titles[local]].any(1)] if weight > 0 else local[:0]
        vectors = torch.from_numpy(published[graph.titles[rows]])
        return cls(torch.from_numpy(rows), vectors, weight)

    def to(self, device: torch.device) -> "Anchor":
        """All of it there."""
        return replace(self, rows=self.rows.to(device), vectors=self.vectors.to(device))

    @torch.no_grad()
    def with_bare(self, model: SemanticGNN, batch: GraphBatch) -> "Anchor":
        """The same, with the model's bare vectors for titles that nobody has played."""
        unplayed = (batch.played[self.rows] == 0).nonzero().flatten()
        if not len(unplayed):
            return self
        model.eval()
        vectors = self.vectors.clone()
        vectors[unplayed] = model(batch)[self.rows[unplayed]]
        return replace(self, vectors=vectors)


@dataclass(frozen=True, slots=True)
class Outside:
    """Titles of other parts, as they last were: they stand in the softmax, and get no gradient.

    Without them, titles of two parts would never stand against each other, and a score across
    parts would mean nothing.

    Attributes:
        vectors: shape (X, D).
        strength: log(1 + summed co-play weight), shape (X,), on the CPU, where draws are made.
    """

    vectors: Tensor
    strength: Tensor

    def to(self, device: torch.device) -> "Outside":
        """The vectors there."""
        return replace(self, vectors=self.vectors.to(device))


def candidates_for(
    batch: GraphBatch, config: LossConfig, outside: Outside | None = None
) -> CandidateSampler:
    """Draws over the batch's titles, then those outside.

    Popularity is the summed co-play weight to the power 3/4.
    """
    strength = batch.strength.cpu()
    if outside is not None:
        strength = torch.cat([strength, outside.strength])
    return CandidateSampler(
        torch.expm1(strength) ** 0.75,
        uniform=config.uniform_candidates,
        popular=config.popular_candidates,
        exact=config.exact_titles,
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
    bf16: bool = False,
) -> Tensor:
    """The loss of one step, a scalar with a gradient, on the model's device.

    Args:
        batch, anchor, outside: there, too; pairs and candidates are drawn on the CPU.
        sources: where pairs come from, each with how many source titles; none of them is empty.
        candidates: made by `candidates_for` from the same `outside`.
        anchor: adds distillation, where it is given.
        bf16: make matrix products in bfloat16.
    """
    device = batch.titles.device
    hidden = batch.hide(config.hide_title, config.drop_edges, generator)
    with autocast(device, bf16=bf16):
        z_TD = model(hidden).float()
    everyone_XD = z_TD
    if outside is not None:
        everyone_XD = torch.cat([z_TD, outside.vectors])
    if candidates.exact:
        total = sum(count for _, count in sources)
        loss: Tensor = z_TD.new_zeros(())
        for pairs, count in sources:
            row, weight_S = pairs.spread(count, generator)
            of_pairs = exact_softmax(
                everyone_XD,
                pairs.source[row].to(device),
                pairs.shares(row).to(device),
                weight_S.to(device),
                bf16=bf16,
            )
            loss = loss + count / total * of_pairs
    else:
        drawn = [pairs.draw(count, config.targets, generator) for pairs, count in sources]
        source_S = torch.cat([one[0] for one in drawn]).to(device)
        target_SM = torch.cat([one[1] for one in drawn]).to(device)
        stand_in = candidates.draw(generator).to(device)
        loss = sampled_softmax(everyone_XD, source_S, target_SM, stand_in)
    if anchor is not None and len(anchor.rows):
        loss = loss + anchor.weight * distillation(z_TD[anchor.rows], anchor.vectors)
    return loss
