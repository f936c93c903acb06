"""The edges into given titles and concepts, as the model wants them: one definition for all.

Training, full inference and the refresh of a few titles must see the same neighbours, or vectors
would depend on which of them made them. A *message relation* is a direction of a store's relation:
`2 r` carries messages to the head of relation r (title <- concept; title <- title where symmetric),
`2 r + 1` to its tail (concept <- title). Numbers of present relations never change when one is
added.

A title's co-play neighbours are ranked by *closeness* w_ij / sqrt(s_j), where s_j is the summed
co-play weight of title j: raw weight alone would give everyone the same few hits. Of the `POOL * k`
heaviest neighbours the k closest stay; ties go to the smaller id, so the choice is deterministic.
The weight that leaves here is closeness divided by the mean over those kept.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from store.graph import DynamicGraph, Relation
from store.ids import IdTable

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

POOL = 4  # candidates by raw weight for each neighbour that is kept
COPLAY = "coplay"


@dataclass(frozen=True, slots=True)
class Incoming:
    """Edges into S titles and K concepts, sorted by target.

    Attributes:
        target: position in titles + concepts as asked for: 0..S + K - 1, ascending, shape (E,).
        source: dense id of the edge's other end, shape (E,), int32.
        from_concept: whether that is a concept, shape (E,), bool.
        relation: message relation, shape (E,), int64.
        weight: closeness relative to its mean for a co-play; else the store's, shape (E,).
    """

    target: Int64s
    source: Int32s
    from_concept: Bools
    relation: Int64s
    weight: Float32s

    def only(self, chosen: slice | npt.NDArray[np.generic]) -> "Incoming":
        """Some of the edges, with targets as they are."""
        return Incoming(
            self.target[chosen],
            self.source[chosen],
            self.from_concept[chosen],
            self.relation[chosen],
            self.weight[chosen],
        )


def vertices(graph: DynamicGraph, vertex_type: str) -> IdTable:
    """Names and dense ids of a type; empty for one that no relation has brought in yet."""
    found = graph.ids.get(vertex_type)
    return IdTable() if found is None else found


def incoming(
    graph: DynamicGraph,
    titles: Int32s,
    concepts: Int32s,
    *,
    max_coplay: int | None,
    allowed: Bools | None = None,
) -> Incoming:
    """Edges into `titles`, then `concepts`.

    Args:
        titles: shape (S,), dense ids.
        concepts: shape (K,), dense ids.
        max_coplay: co-play neighbours of a title that are kept; None: all.
        allowed: titles that may be a source, by dense id; None: all.

    Raises:
        ValueError: a relation is neither symmetric among titles nor from title to concept.
    """
    blocks: list[tuple[Int64s, Int32s, bool, int, Float32s]] = []
    for number, relation in enumerate(graph.relations):
        _check(relation)
        if relation.symmetric:
            target, source, weight = _closest(graph, number, titles, max_coplay, allowed)
            blocks.append((target, source, False, 2 * number, weight))
            continue
        indptr, source, weight = graph.neighbors(number, titles)
        blocks.append((_rows(indptr), source, True, 2 * number, weight))
        if len(concepts):
            indptr, source, weight = graph.neighbors(number, concepts, reverse=True)
            target = _rows(indptr)
            if allowed is not None:
                keep = allowed[source]
                target, source, weight = target[keep], source[keep], weight[keep]
            blocks.append((target + len(titles), source, False, 2 * number + 1, weight))
    if not blocks:
        return Incoming(*(np.zeros(0, t) for t in (np.int64, np.int32, bool, np.int64, np.float32)))
    target = np.concatenate([block[0] for block in blocks])
    sizes = [len(block[0]) for block in blocks]
    order = np.argsort(target, kind="stable")
    return Incoming(
        target[order],
        np.concatenate([block[1] for block in blocks])[order].astype(np.int32),
        np.repeat([block[2] for block in blocks], sizes)[order],
        np.repeat(np.array([block[3] for block in blocks], np.int64), sizes)[order],
        np.concatenate([block[4] for block in blocks])[order].astype(np.float32),
    )


def strength(graph: DynamicGraph, titles: Int32s) -> Float32s:
    """Summed co-play weight of each title, shape (S,); 0 where nobody has played it."""
    total = np.zeros(len(titles), np.float32)
    for number, relation in enumerate(graph.relations):
        if relation.symmetric:
            total += graph.weight_sum(number, titles)
    return total


def features(graph: DynamicGraph, titles: Int32s) -> Float32s:
    """Dense features of titles, shape (S, F); zeros for one without; F = 0: no title has any."""
    found = graph.features.get("title")
    return np.zeros((len(titles), 0), np.float32) if found is None else found.get(titles)


def _closest(
    graph: DynamicGraph, number: int, titles: Int32s, k: int | None, allowed: Bools | None
) -> tuple[Int64s, Int32s, Float32s]:
    if k is None:
        indptr, source, weight = graph.neighbors(number, titles)
        target = _rows(indptr)
    else:
        ids, weights = graph.top_k(number, titles, POOL * k)
        target, column = np.nonzero(ids >= 0)
        source, weight = ids[target, column], weights[target, column]
    if allowed is not None:
        keep = allowed[source]
        target, source, weight = target[keep], source[keep], weight[keep]
    if not len(target):
        return target.astype(np.int64), source, weight

    unique, back = np.unique(source, return_inverse=True)
    popularity = graph.weight_sum(number, unique.astype(np.int32))[back]
    close = weight / np.sqrt(np.maximum(popularity, np.finfo(np.float32).tiny))
    order = np.lexsort((source, -close, target))
    target, source, close = target[order], source[order], close[order]
    if k is not None:
        first = np.searchsorted(target, target)  # of the same target
        keep = np.arange(len(target)) - first < k
        target, source, close = target[keep], source[keep], close[keep]
    count = np.bincount(target, minlength=len(titles))
    mean = np.bincount(target, close, minlength=len(titles)) / np.maximum(count, 1)
    return target, source, (close / mean[target]).astype(np.float32)


def _rows(indptr: Int64s) -> Int64s:
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def _check(relation: Relation) -> None:
    if relation.symmetric and relation.head == relation.tail == "title":
        return
    if not relation.symmetric and (relation.head, relation.tail) == ("title", "concept"):
        return
    raise ValueError(
        f"relation {relation.name!r} goes from {relation.head!r} to {relation.tail!r}: "
        "want title to concept, or symmetric among titles"
    )
