"""HASP subgraphs: what one trainer sees of the graph.

A part's subgraph holds its titles, *every* concept, the co-plays inside the part and all semantic
edges of its titles, in both directions. Concepts are few and tie the parts together; so each part
has them all, and only co-plays between parts are lost. A node sampler may bring in some titles of
other parts (partition/external.py), and with them the co-plays to and among them.

Source: Z. Huang et al., "Synergistic Signals: Exploiting Co-Engagement and Semantic Links via Graph
Neural Networks", WWW 2024 (heterogeneity-aware, semantic-preserving subgraphs).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from partition.external import NodeSampler, externals
from partition.mincut import Partition
from partition.neighbourhood import (
    Bools,
    Float32s,
    Int32s,
    Int64s,
    features,
    incoming,
    strength,
    vertices,
)
from store.graph import DynamicGraph


@dataclass(frozen=True, slots=True)
class HaspSubgraph:
    """A subgraph with local node numbers: its titles first, then its concepts.

    Attributes:
        titles: dense ids, shape (T,), int32, ascending.
        concepts: dense ids, shape (C,), int32, ascending.
        edge_index: (source, target), local, sorted by target, shape (2, E), int64.
        relation: message relation of each edge (partition/neighbourhood.py), shape (E,), int64.
        weight: > 0, shape (E,), float32.
        strength: summed co-play weight of each title in the *whole* graph, shape (T,), float32.
        num_relations: relations in the store; message relations are 0..2 * num_relations - 1.
        external: titles that are of another part, shape (T,), bool.
        features: dense features of each title, shape (T, F), float32; F = 0 where there are none.
    """

    titles: Int32s
    concepts: Int32s
    edge_index: Int64s
    relation: Int64s
    weight: Float32s
    strength: Float32s
    num_relations: int
    external: Bools
    features: Float32s

    @property
    def num_nodes(self) -> int:
        return len(self.titles) + len(self.concepts)

    @property
    def own(self) -> Int32s:
        """Dense ids of the part's own titles, ascending."""
        return self.titles[~self.external]

    def local(self, titles: npt.NDArray[np.integer]) -> Int64s:
        """Local numbers of dense title ids, -1 where a title is not in here."""
        if not len(self.titles):
            return np.full(len(titles), -1, np.int64)
        most = int(self.titles[-1])
        if len(titles) > most:  # a table is found in faster, once it is made
            table = np.full(most + 2, -1, np.int64)
            table[self.titles] = np.arange(len(self.titles))
            found: Int64s = table[np.minimum(titles, most + 1)]
            return found
        at = np.minimum(np.searchsorted(self.titles, titles), len(self.titles) - 1)
        return np.where(self.titles[at] == titles, at, -1).astype(np.int64)


def hasp_subgraph(
    graph: DynamicGraph,
    partition: Partition,
    part: int,
    *,
    max_coplay: int | None,
    sampler: NodeSampler | None = None,
    seed: int = 0,
) -> HaspSubgraph:
    """The subgraph of one part.

    Titles that came after the cut are in no part.

    Args:
        max_coplay: co-play neighbours of a title that are kept, the closest ones; None: all.
        sampler: chooses titles of other parts that come along.
        seed: of its draws.

    Raises:
        ValueError: there is no such part, or the sampler chose a title that is not live.
    """
    live = vertices(graph, "title").live_ids()
    titles = np.intersect1d(partition.titles(part), live).astype(np.int32)
    others = externals(graph, sampler, titles, seed=seed)
    return subgraph(
        graph,
        np.union1d(titles, others).astype(np.int32),
        vertices(graph, "concept").live_ids(),
        max_coplay=max_coplay,
        external=others,
    )


def whole_graph(graph: DynamicGraph, *, max_coplay: int | None) -> HaspSubgraph:
    """All live titles and concepts as one subgraph."""
    titles, concepts = vertices(graph, "title"), vertices(graph, "concept")
    return subgraph(graph, titles.live_ids(), concepts.live_ids(), max_coplay=max_coplay)


def subgraph(
    graph: DynamicGraph,
    titles: Int32s,
    concepts: Int32s,
    *,
    max_coplay: int | None,
    external: Int32s | None = None,
) -> HaspSubgraph:
    """The subgraph of any titles with any concepts; both are ascending dense ids.

    Args:
        external: those of `titles` that are of another part; None: none is.
    """
    inside = np.zeros(vertices(graph, "title").capacity, bool)
    inside[titles] = True
    edges = incoming(graph, titles, concepts, max_coplay=max_coplay, allowed=inside)
    place = np.full(vertices(graph, "concept").capacity, -1, np.int64)
    place[concepts] = np.arange(len(concepts)) + len(titles)
    title_place = np.full(vertices(graph, "title").capacity, -1, np.int64)
    title_place[titles] = np.arange(len(titles))
    source = np.empty(len(edges.source), np.int64)
    source[edges.from_concept] = place[edges.source[edges.from_concept]]
    source[~edges.from_concept] = title_place[edges.source[~edges.from_concept]]
    known = source >= 0  # the concept is among those asked for
    return HaspSubgraph(
        titles,
        concepts,
        np.stack([source[known], edges.target[known]]),
        edges.relation[known],
        edges.weight[known],
        strength(graph, titles),
        len(graph.relations),
        np.isin(titles, [] if external is None else external),
        features(graph, titles),
    )
