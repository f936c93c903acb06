"""What is read of a graph at once, for all that is made of it without the lock."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from partition.neighbourhood import Incoming, features, incoming, strength, vertices
from store.graph import DynamicGraph

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reading:
    """What full inference takes of a graph: S titles, K concepts, and the edges into them.

    Attributes:
        titles, concepts: those that are live, dense ids, shapes (S,) and (K,), ascending.
        edges: into the titles, then the concepts (partition/neighbourhood.py).
        strength: summed co-play weight, shape (S,).
        features: dense features, shape (S, F); F = 0: no title has any.
        num_relations: relations of the store.
        title_capacity, concept_capacity: above all dense ids.
    """

    titles: Int32s
    concepts: Int32s
    edges: Incoming
    strength: Float32s
    features: Float32s
    num_relations: int
    title_capacity: int
    concept_capacity: int

    @classmethod
    def of(cls, graph: DynamicGraph, *, max_coplay: int | None) -> "Reading":
        """The graph as it is now."""
        titles, concepts = vertices(graph, "title"), vertices(graph, "concept")
        live = titles.live_ids()
        return cls(
            live,
            concepts.live_ids(),
            incoming(graph, live, concepts.live_ids(), max_coplay=max_coplay),
            strength(graph, live),
            features(graph, live),
            len(graph.relations),
            titles.capacity,
            concepts.capacity,
        )


def has(edges: Incoming, titles: int) -> tuple[Int64s, Int32s]:
    """Which of the first `titles` targets have which concepts: positions and dense ids."""
    chosen = np.flatnonzero(edges.from_concept & (edges.target < titles))
    return edges.target[chosen], edges.source[chosen]


def without_coplays(edges: Incoming, titles: Int32s, hidden: Int32s) -> Incoming:
    """Without the co-plays of `hidden` titles; the targets are `titles`, then concepts."""
    ends = np.append(titles, -1)[np.minimum(edges.target, len(titles))]
    coplay = ~edges.from_concept & (edges.target < len(titles))
    keep = np.flatnonzero(~(coplay & (np.isin(ends, hidden) | np.isin(edges.source, hidden))))
    return edges.only(keep)
