"""The micro-trainer's sample: the surroundings of some titles, inside one part.

Seeds are the titles of fresh and replayed co-plays. From them weighted draws go along co-plays, hop
by hop, and stay in the part; to the titles found come all their concepts. The size is bounded by
`max_titles`, whatever the size of the graph. Titles of other parts may come along as external ones
(partition/external.py).
"""

from collections.abc import Sequence

import numpy as np

from partition.hasp import HaspSubgraph, subgraph
from partition.mincut import Partition
from partition.neighbourhood import Int32s, vertices
from store.graph import DynamicGraph


def sample_subgraph(
    graph: DynamicGraph,
    partition: Partition,
    part: int,
    seeds: Int32s,
    *,
    fanout: Sequence[int],
    max_titles: int,
    max_coplay: int | None,
    seed: int,
    external: Int32s | None = None,
) -> HaspSubgraph:
    """Draw the surroundings of `seeds`.

    Args:
        seeds: dense title ids, with repeats or without; those outside the part are left out, those
            that came after the cut are taken.
        fanout: draws from each title, by hop.
        max_titles: titles of the sample; seeds go first.
        max_coplay: see `hasp_subgraph`.
        seed: of the draws.
        external: dense ids of live titles; those that are of another part come along, beyond
            `max_titles`.
    """
    rng = np.random.default_rng(seed)
    inside = members(graph, partition, part)
    found = np.unique(seeds[inside[seeds]])
    if len(found) > max_titles:
        found = rng.permutation(found)[:max_titles]
    frontier = found
    taken = np.zeros(len(inside), bool)
    taken[found] = True
    coplay = [number for number, one in enumerate(graph.relations) if one.symmetric]
    for width in fanout:
        drawn = [
            graph.sample(number, frontier, width, seed=int(rng.integers(2**31))).ravel()
            for number in coplay
        ]
        new = np.unique(np.concatenate(drawn)) if drawn else np.zeros(0, np.int32)
        new = new[new >= 0]
        new = new[inside[new] & ~taken[new]]
        new = rng.permutation(new)[: max_titles - int(taken.sum())]
        taken[new] = True
        frontier = new.astype(np.int32)
        if not len(frontier):
            break
    titles = np.flatnonzero(taken).astype(np.int32)
    others = np.zeros(0, np.int32)
    if external is not None:
        others = np.unique(external[~inside[external]]).astype(np.int32)
        titles = np.union1d(titles, others).astype(np.int32)
    concepts = concepts_of(graph, titles)
    return subgraph(graph, titles, concepts, max_coplay=max_coplay, external=others)


def members(graph: DynamicGraph, partition: Partition, part: int) -> np.ndarray:
    """Titles that may be sampled for `part`, by dense id: its own, and those in no part yet."""
    live = vertices(graph, "title").live_ids()
    inside = np.zeros(vertices(graph, "title").capacity, bool)
    known = live[live < len(partition.part)]
    inside[known] = (partition.part[known] == part) | (partition.part[known] < 0)
    inside[live[live >= len(partition.part)]] = True
    return inside


def concepts_of(graph: DynamicGraph, titles: Int32s) -> Int32s:
    """Concepts of the titles, ascending, without repeats."""
    found = [
        graph.neighbors(number, titles)[1]
        for number, relation in enumerate(graph.relations)
        if not relation.symmetric
    ]
    return np.unique(np.concatenate(found)).astype(np.int32) if found else np.zeros(0, np.int32)
