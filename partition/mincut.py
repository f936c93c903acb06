"""Cut the titles into parts of equal size that co-plays cross as little as possible.

Only titles with co-plays are cut, by METIS; the others are dealt at random. Cutting all at once
would leave some parts without co-plays.

Source: Z. Huang et al., "Synergistic Signals: Exploiting Co-Engagement and Semantic Links via Graph
Neural Networks", WWW 2024, section on HASP. Ours: METIS' recursive bisection, which always balances
(its k-way method does not on graphs with hubs), and weights rounded to the integers that it wants.
"""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pymetis

from partition.neighbourhood import vertices
from store.graph import DynamicGraph

Int32s = npt.NDArray[np.int32]

MAX_WEIGHT = 10_000  # an edge's weight as METIS sees it is 1..MAX_WEIGHT


@dataclass(frozen=True, slots=True)
class Partition:
    """Who is in which part.

    Attributes:
        part: part of each title by dense id, shape (T,), int32; -1: no live title.
        num_parts: parts are 0..num_parts - 1.
        kept_weight: share of the co-play weight inside parts; 1 where there is none.
        balance: size of the largest part over the mean size.
        seconds: what the cut took.
    """

    part: Int32s
    num_parts: int
    kept_weight: float
    balance: float
    seconds: float

    def titles(self, part: int) -> Int32s:
        """Dense ids of the titles in `part`, ascending.

        Raises:
            ValueError: there is no such part.
        """
        if not 0 <= part < self.num_parts:
            raise ValueError(f"part {part}: want 0..{self.num_parts - 1}")
        return np.flatnonzero(self.part == part).astype(np.int32)


@dataclass(frozen=True, slots=True)
class CoplayEdges:
    """What a cut needs of the graph, copied out of it, so that no lock is held while cutting.

    Attributes:
        live: dense ids of the live titles, shape (L,), int32.
        capacity: dense ids are below this.
        heads, tails, weights: both directions of each co-play edge, sorted by head, shape (E,).
    """

    live: Int32s
    capacity: int
    heads: Int32s
    tails: Int32s
    weights: npt.NDArray[np.float32]


def coplay_edges(graph: DynamicGraph, relation: str = "coplay") -> CoplayEdges:
    """Copy the co-plays out of the graph."""
    heads, tails, weights = graph.edges(graph.relation_id(relation))
    titles = vertices(graph, "title")
    return CoplayEdges(titles.live_ids(), titles.capacity, heads, tails, weights)


def cut(graph: DynamicGraph, num_parts: int, *, seed: int, relation: str = "coplay") -> Partition:
    """Cut the titles of `graph` along `relation`; see `cut_edges`."""
    return cut_edges(coplay_edges(graph, relation), num_parts, seed=seed)


def cut_edges(edges: CoplayEdges, num_parts: int, *, seed: int) -> Partition:
    """Cut.

    Args:
        num_parts: >= 1. Where there are fewer titles, some parts are empty.
        seed: of the deal, and of METIS.

    Raises:
        ValueError: `num_parts` < 1.
    """
    if num_parts < 1:
        raise ValueError(f"num_parts={num_parts}: want >= 1")
    start = time.perf_counter()
    part = np.full(edges.capacity, -1, np.int32)
    played = np.unique(edges.heads)
    part[played] = _metis(edges, played, num_parts, seed)
    sizes = np.bincount(part[played], minlength=num_parts)
    others = np.setdiff1d(edges.live, played)
    part[others] = deal(sizes, len(others), seed)

    inside = part[edges.heads] == part[edges.tails]
    total = float(edges.weights.sum(dtype=np.float64))
    kept = float(edges.weights[inside].sum(dtype=np.float64)) / total if total > 0 else 1.0
    sizes = np.bincount(part[part >= 0], minlength=num_parts)
    balance = float(sizes.max() * num_parts / max(sizes.sum(), 1)) if sizes.sum() else 1.0
    return Partition(part, num_parts, kept, balance, time.perf_counter() - start)


def deal(sizes: npt.NDArray[np.integer], count: int, seed: int) -> Int32s:
    """Parts for `count` more titles, at random; the smallest parts are filled first.

    Args:
        sizes: titles that each part has already.
    """
    rng = np.random.default_rng(seed)
    low, high = int(sizes.min()), int(sizes.max()) + count  # the level that all can be filled to
    while low < high:
        level = (low + high + 1) // 2
        if int(np.maximum(level - sizes, 0).sum()) <= count:
            low = level
        else:
            high = level - 1
    room = np.maximum(low - sizes, 0)
    left = count - int(room.sum())
    room[rng.permutation(np.flatnonzero(sizes <= low))[:left]] += 1
    return rng.permutation(np.repeat(np.arange(len(sizes), dtype=np.int32), room)).astype(np.int32)


def _metis(edges: CoplayEdges, played: Int32s, num_parts: int, seed: int) -> Int32s:
    if num_parts == 1 or len(played) <= num_parts:
        return np.arange(len(played), dtype=np.int32) % num_parts
    dense = np.full(edges.capacity, -1, np.int64)
    dense[played] = np.arange(len(played))
    apart = edges.heads != edges.tails
    heads, tails, weights = edges.heads[apart], edges.tails[apart], edges.weights[apart]
    xadj = np.zeros(len(played) + 1, np.int64)
    np.cumsum(np.bincount(dense[heads], minlength=len(played)), out=xadj[1:])
    scale = MAX_WEIGHT / max(float(weights.max(initial=0.0)), float(np.finfo(np.float32).tiny))
    whole = np.clip(np.rint(weights * scale), 1, MAX_WEIGHT).astype(np.int64)
    _, membership = pymetis.part_graph(
        num_parts,
        pymetis.CSRAdjacency(xadj, dense[tails]),
        eweights=whole,
        recursive=True,
        options=pymetis.Options(seed=seed % (2**31)),
    )
    return np.asarray(membership, np.int32)
