"""Which titles of other parts come along with a part: a node sampler that the user defines.

A part loses the co-plays that the cut crosses. Some of the titles at their other ends can come
along as *external* ones: they give messages, are predicted and predict, but their own rows are
trained where they are at home. A sampler is any callable of the shape of `NodeSampler`; three stand
ready. Evenly drawn ones are worth most to training: they stand for all other parts in the softmax.
How many there are decides what parts lose to the whole graph; as sources they count as much as as
targets (benchmarks/README.md).

Source: Z. Huang et al., "Synergistic Signals: Exploiting Co-Engagement and Semantic Links via Graph
Neural Networks", WWW 2024: entities too many to duplicate come by "user-defined node sampling";
how is not said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from partition.neighbourhood import Bools, Int32s, vertices
from store.graph import DynamicGraph

Float64s = npt.NDArray[np.float64]


class NodeSampler(Protocol):
    """Chooses external titles of a part."""

    def __call__(self, graph: DynamicGraph, inside: Bools, *, seed: int) -> Int32s:
        """Dense ids of live titles, in any order.

        Args:
            inside: whether a title is of the part, by dense id; those that are need not be left
                out.
            seed: of any draws: the same seed on the same graph gives the same titles.
        """
        ...


@dataclass(frozen=True, slots=True)
class Even:
    """`n` titles, drawn evenly from all other parts."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(f"n={self.n}: want >= 0 external titles")

    def __call__(self, graph: DynamicGraph, inside: Bools, *, seed: int) -> Int32s:
        live = vertices(graph, "title").live_ids()
        others = live[~inside[live]]
        return np.random.default_rng(seed).permutation(others)[: self.n].astype(np.int32)


@dataclass(frozen=True, slots=True)
class WeightedTopN:
    """The `n` titles that are co-played most with the part's; ties go to the smaller id."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(f"n={self.n}: want >= 0 external titles")

    def __call__(self, graph: DynamicGraph, inside: Bools, *, seed: int) -> Int32s:
        total = np.zeros(len(inside))
        for number, relation in enumerate(graph.relations):
            if relation.symmetric:
                total += tie(graph, number, inside)
        found = np.flatnonzero(total)
        order = np.lexsort((found, -total[found]))
        return found[order[: self.n]].astype(np.int32)


@dataclass(frozen=True, slots=True)
class PerRelation:
    """For each relation that is named so many titles, drawn by how much it ties them to the part.

    Of co-plays that is their weight. Of a semantic relation it is the concepts that are shared, a
    concept counting for the share of its titles that are of the part: one that half of all titles
    have ties nobody to anybody.

    Attributes:
        budget: titles by name of the relation; those that several relations draw come once.
    """

    budget: Mapping[str, int]

    def __call__(self, graph: DynamicGraph, inside: Bools, *, seed: int) -> Int32s:
        """Raises ValueError: the graph has no such relation."""
        rng = np.random.default_rng(seed)
        drawn = [np.zeros(0, np.int64)]
        for name, count in self.budget.items():
            tied = tie(graph, graph.relation_id(name), inside)
            found = np.flatnonzero(tied)
            # The largest u ** (1 / w) are a draw by weight without repeats (Efraimidis, Spirakis).
            key = np.log(rng.random(len(found))) / tied[found]
            drawn.append(found[np.argsort(-key, kind="stable")[:count]])
        return np.unique(np.concatenate(drawn)).astype(np.int32)


def tie(graph: DynamicGraph, number: int, inside: Bools) -> Float64s:
    """How much relation `number` ties each title outside to those inside, by dense id; 0 inside."""
    mine = np.flatnonzero(inside).astype(np.int32)
    _, others, weights = graph.neighbors(number, mine)
    if graph.relations[number].symmetric:
        total = np.bincount(others, weights, minlength=len(inside)).astype(np.float64)
    else:
        concepts, count = np.unique(others, return_counts=True)
        indptr, titles, _ = graph.neighbors(number, concepts, reverse=True)
        size = np.diff(indptr)
        each = np.repeat(count / np.maximum(size, 1), size)
        total = np.bincount(titles, each, minlength=len(inside)).astype(np.float64)
    total = total[: len(inside)]
    total[inside] = 0.0
    return total


def externals(
    graph: DynamicGraph, sampler: NodeSampler | None, titles: Int32s, *, seed: int
) -> Int32s:
    """What `sampler` chooses for the part of `titles`, ascending, without any of them.

    Raises:
        ValueError: it chose a title that is not live.
    """
    if sampler is None:
        return np.zeros(0, np.int32)
    table = vertices(graph, "title")
    inside = np.zeros(table.capacity, bool)
    inside[titles] = True
    chosen = np.unique(sampler(graph, inside, seed=seed))
    bad = np.setdiff1d(chosen, table.live_ids())
    if len(bad):
        raise ValueError(
            f"the node sampler chose title {int(bad[0])}, which is not live: "
            "want dense ids of live titles"
        )
    return chosen[~inside[chosen]].astype(np.int32)
