"""Step 1 of pretraining: vectors of concepts and relations from the semantic edges alone.

    L = max(0, margin + ||h + r - t|| - ||h' + r - t'||)

with one end of the triple replaced by another of its own kind: a title by a title, a concept by a
concept *of the same relation*; and such that the false triple is not in the graph. Titles get
vectors too while this trains, but the model keeps none of them: it places a title by its concepts.

Source: A. Bordes et al., "Translating Embeddings for Modeling Multi-relational Data", NeurIPS 2013.
Ours: vectors are kept at norm 1 for concepts and titles alike; negatives typed and filtered.

Shape suffixes: E triples, B a batch, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from partition.neighbourhood import vertices
from store.graph import DynamicGraph

Int64s = npt.NDArray[np.int64]
Progress = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Triples:
    """Semantic edges, copied out of the graph.

    Attributes:
        title, relation, concept: dense ids, shape (E,), int64.
        num_titles, num_relations, num_concepts: ids are below these.
    """

    title: Int64s
    relation: Int64s
    concept: Int64s
    num_titles: int
    num_relations: int
    num_concepts: int


@dataclass(frozen=True, slots=True)
class TransE:
    """Vectors after step 1.

    Attributes:
        concept_CD: norm 1, shape (C, D).
        relation_RD: shape (R, D).
        title_TD: norm 1, shape (T, D); noise where a title has no concept.
        loss: mean of the last tenth of the steps; NaN where there were no triples.
    """

    concept_CD: Tensor
    relation_RD: Tensor
    title_TD: Tensor
    loss: float


def triples(graph: DynamicGraph) -> Triples:
    """Copy the semantic edges out."""
    titles, relations, concepts = [], [], []
    for number, relation in enumerate(graph.relations):
        if relation.symmetric:
            continue
        heads, tails, _ = graph.edges(number)
        titles.append(heads.astype(np.int64))
        concepts.append(tails.astype(np.int64))
        relations.append(np.full(len(heads), number, np.int64))
    empty = [np.zeros(0, np.int64)]
    return Triples(
        np.concatenate(titles or empty),
        np.concatenate(relations or empty),
        np.concatenate(concepts or empty),
        vertices(graph, "title").capacity,
        len(graph.relations),
        vertices(graph, "concept").capacity,
    )


def train_transe(
    known: Triples,
    *,
    dim: int,
    steps: int,
    batch: int,
    lr: float,
    margin: float,
    seed: int,
    progress: Progress | None = None,
) -> TransE:
    """Train on `known`.

    Args:
        progress: called with ("transe", step, steps, {"loss": ...}) every few steps.
    """
    generator = torch.Generator().manual_seed(seed)
    start = 6.0 / dim**0.5
    tables = [
        torch.empty(size, dim).uniform_(-start, start, generator=generator).requires_grad_()
        for size in (known.num_titles, known.num_relations, known.num_concepts)
    ]
    title_TD, relation_RD, concept_CD = tables
    rows = len(known.title)
    losses: list[float] = []
    if rows:
        corrupt = Corruption(known)
        adam = torch.optim.Adam(tables, lr=lr)
        decay = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.05, total_iters=max(steps, 1))
        for step in range(steps):
            pick = torch.randint(rows, (min(batch, 4 * rows),), generator=generator)
            h, r, t, false_h, false_t, fair = corrupt.batch(pick, generator)
            h_BD, t_BD = _unit(title_TD, h), _unit(concept_CD, t)
            r_BD = relation_RD.index_select(0, r)
            good_B = (h_BD + r_BD - t_BD).norm(dim=1)
            bad_B = (_unit(title_TD, false_h) + r_BD - _unit(concept_CD, false_t)).norm(dim=1)
            loss = (F.relu(margin + good_B - bad_B) * fair).sum() / fair.sum().clamp(min=1.0)
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            decay.step()
            losses.append(float(loss.detach()))
            if progress is not None and (step % 20 == 0 or step == steps - 1):
                progress("transe", step + 1, steps, {"loss": losses[-1]})
    tail = losses[-max(len(losses) // 10, 1) :]
    return TransE(
        F.normalize(concept_CD.detach(), dim=1),
        relation_RD.detach(),
        F.normalize(title_TD.detach(), dim=1),
        float(np.mean(tail)) if tail else float("nan"),
    )


class Corruption:
    """False triples: typed, and filtered against the known ones."""

    def __init__(self, known: Triples) -> None:
        self.known = known
        self.h = torch.from_numpy(known.title)
        self.r = torch.from_numpy(known.relation)
        self.t = torch.from_numpy(known.concept)
        self.heads = torch.unique(self.h)
        # Concepts by relation: those of relation r stand at pool[start[r]:start[r + 1]].
        pairs = np.unique(np.stack([known.relation, known.concept], 1), axis=0)
        self.pool = torch.from_numpy(pairs[:, 1].copy())
        self.start = torch.from_numpy(
            np.searchsorted(pairs[:, 0], np.arange(known.num_relations + 1))
        )
        self.codes = torch.unique(self._code(self.h, self.r, self.t))  # sorted

    def _code(self, h: Tensor, r: Tensor, t: Tensor) -> Tensor:
        return (h * self.known.num_relations + r) * self.known.num_concepts + t

    def batch(self, pick: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Heads, relations, tails; the false heads and tails; 1 where the false is false."""
        h, r, t = self.h[pick], self.r[pick], self.t[pick]
        rows = len(pick)
        low, high = self.start[r], self.start[r + 1]
        u = torch.rand(rows, generator=generator, dtype=torch.float64)
        other_t = self.pool[low + (u * (high - low)).long()]
        other_h = self.heads[torch.randint(len(self.heads), (rows,), generator=generator)]
        swap_tail = torch.rand(rows, generator=generator) < 0.5
        false_h = torch.where(swap_tail, h, other_h)
        false_t = torch.where(swap_tail, other_t, t)
        code = self._code(false_h, r, false_t)
        at = torch.searchsorted(self.codes, code).clamp(max=len(self.codes) - 1)
        return h, r, t, false_h, false_t, (self.codes[at] != code).float()


def _unit(table: Tensor, rows: Tensor) -> Tensor:
    return F.normalize(table.index_select(0, rows), dim=1)
