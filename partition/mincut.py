"""Cut the titles into parts of equal size that co-plays cross as little as possible.

Only titles with co-plays are cut, by METIS or KaMinPar; the others are dealt at random. Cutting all
at once would leave some parts without co-plays. No part is more than 3 % above the mean size
(partition/balance.py).

METIS is the faster one on one thread; KaMinPar keeps a little more, has threads, and takes graphs
whose number of edges overflows METIS' 32-bit integers. Both hold Python's lock for all they do: in
a process that has other work, cut in another one (partition/recut.py).

Source: Z. Huang et al., "Synergistic Signals: Exploiting Co-Engagement and Semantic Links via Graph
Neural Networks", WWW 2024, section on HASP. Ours: METIS' recursive bisection, which always balances
(its k-way method does not on graphs with hubs), and weights rounded to the integers that both want.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import kaminpar
import numpy as np
import numpy.typing as npt
import pymetis

from partition.balance import SLACK, balance_of, bonds, deal, largest, level
from partition.neighbourhood import vertices
from store.graph import DynamicGraph

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Cutter = Literal["auto", "metis", "kaminpar", "random"]

MAX_WEIGHT = 10_000  # an edge's weight as a cutter sees it is 1..MAX_WEIGHT
AUTO_EDGES = 4_000_000  # co-plays, each counted once; from here on "auto" is KaMinPar
UNWEIGHTED_NODES = 2  # ParHIP's format: weights stand at edges, not at nodes; all numbers 64 bits


@dataclass(frozen=True, slots=True)
class Partition:
    """Who is in which part.

    Attributes:
        part: part of each title by dense id, shape (T,), int32; -1: no live title.
        num_parts: parts are 0..num_parts - 1.
        kept_weight: share of the co-play weight inside parts, at the cut; 1 where there is none.
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

    def kept(self, part: Int32s) -> float:
        """Share of the weight between two titles that are of one part; 1 where there is no weight.

        Args:
            part: part of each title by dense id, -1: none, shape (T,).
        """
        apart = self.heads != self.tails
        total = float(self.weights[apart].sum(dtype=np.float64))
        inside = apart & (part[self.heads] == part[self.tails]) & (part[self.heads] >= 0)
        return float(self.weights[inside].sum(dtype=np.float64)) / total if total > 0 else 1.0


def coplay_edges(graph: DynamicGraph, relation: str = "coplay") -> CoplayEdges:
    """Copy the co-plays out of the graph."""
    heads, tails, weights = graph.edges(graph.relation_id(relation))
    titles = vertices(graph, "title")
    return CoplayEdges(titles.live_ids(), titles.capacity, heads, tails, weights)


def cut(
    graph: DynamicGraph,
    num_parts: int,
    *,
    seed: int,
    relation: str = "coplay",
    cutter: Cutter = "auto",
    threads: int = 1,
) -> Partition:
    """Cut the titles of `graph` along `relation`; see `cut_edges`."""
    edges = coplay_edges(graph, relation)
    return cut_edges(edges, num_parts, seed=seed, cutter=cutter, threads=threads)


def cut_edges(
    edges: CoplayEdges, num_parts: int, *, seed: int, cutter: Cutter = "auto", threads: int = 1
) -> Partition:
    """Cut.

    Args:
        num_parts: >= 1. Where there are fewer titles, some parts are empty.
        seed: of the deal, and of the cutter.
        cutter: "auto" is METIS up to `AUTO_EDGES` co-plays, then KaMinPar; "random" is
            `random_parts`, to see what a cut is worth.
        threads: of KaMinPar; with more than one a cut cannot be repeated.

    Raises:
        ValueError: `num_parts` < 1, or there is no such cutter.
    """
    if num_parts < 1:
        raise ValueError(f"num_parts={num_parts}: want >= 1")
    if cutter not in ("auto", "metis", "kaminpar", "random"):
        raise ValueError(f"cutter={cutter!r}: want 'auto', 'metis', 'kaminpar' or 'random'")
    if cutter == "random":
        return random_parts(edges, num_parts, seed=seed)
    if cutter == "auto":
        cutter = "metis" if len(edges.heads) <= 2 * AUTO_EDGES else "kaminpar"
    start = time.perf_counter()
    part = np.full(edges.capacity, -1, np.int32)
    played = np.unique(edges.heads)
    if num_parts == 1 or len(played) <= num_parts:
        part[played] = np.arange(len(played), dtype=np.int32) % num_parts
    else:
        csr = _Csr.of(edges, played)
        if cutter == "metis":
            part[played] = _metis(csr, num_parts, seed)
        else:
            part[played] = _kaminpar(csr, num_parts, seed, threads)
        part[played] = _levelled(csr, part[played], num_parts)
    sizes = np.bincount(part[played], minlength=num_parts)
    others = np.setdiff1d(edges.live, played)
    part[others] = deal(sizes, len(others), seed)
    return Partition(
        part,
        num_parts,
        edges.kept(part),
        balance_of(part, num_parts),
        time.perf_counter() - start,
    )


def random_parts(edges: CoplayEdges, num_parts: int, *, seed: int) -> Partition:
    """All titles dealt at random: what a cut is measured against.

    Raises:
        ValueError: `num_parts` < 1.
    """
    if num_parts < 1:
        raise ValueError(f"num_parts={num_parts}: want >= 1")
    start = time.perf_counter()
    part = np.full(edges.capacity, -1, np.int32)
    part[edges.live] = deal(np.zeros(num_parts, np.int64), len(edges.live), seed)
    return Partition(
        part,
        num_parts,
        edges.kept(part),
        balance_of(part, num_parts),
        time.perf_counter() - start,
    )


@dataclass(frozen=True, slots=True)
class _Csr:
    """The titles that are cut, numbered 0..P - 1, and their edges both ways, without loops.

    Attributes:
        indptr: shape (P + 1,), int64.
        tails: shape (E,), int64.
        weights: whole numbers from 1 to `MAX_WEIGHT`, shape (E,), int64.
    """

    indptr: Int64s
    tails: Int64s
    weights: Int64s

    @classmethod
    def of(cls, edges: CoplayEdges, played: Int32s) -> "_Csr":
        dense = np.full(edges.capacity, -1, np.int64)
        dense[played] = np.arange(len(played))
        apart = edges.heads != edges.tails
        heads, tails, weights = edges.heads[apart], edges.tails[apart], edges.weights[apart]
        indptr = np.zeros(len(played) + 1, np.int64)
        np.cumsum(np.bincount(dense[heads], minlength=len(played)), out=indptr[1:])
        scale = MAX_WEIGHT / max(float(weights.max(initial=0.0)), float(np.finfo(np.float32).tiny))
        whole = np.clip(np.rint(weights * scale), 1, MAX_WEIGHT).astype(np.int64)
        return cls(indptr, dense[tails], whole)


def _metis(csr: _Csr, num_parts: int, seed: int) -> Int32s:
    _, membership = pymetis.part_graph(
        num_parts,
        pymetis.CSRAdjacency(csr.indptr, csr.tails),
        eweights=csr.weights,
        recursive=True,
        options=pymetis.Options(seed=seed % (2**31)),
    )
    return np.asarray(membership, np.int32)


def _kaminpar(csr: _Csr, num_parts: int, seed: int, threads: int) -> Int32s:
    """KaMinPar takes a graph from a file only: the graph goes there in ParHIP's binary format."""
    titles = len(csr.indptr) - 1
    with tempfile.TemporaryDirectory(prefix="upwell-cut-") as folder:
        file = Path(folder) / "graph.parhip"
        header = 3 * 8
        with file.open("wb") as stream:
            np.array([UNWEIGHTED_NODES, titles, len(csr.tails)], np.uint64).tofile(stream)
            # Where a node's neighbours begin, in bytes from the start of the file.
            at = header + (titles + 1) * 8 + csr.indptr * 8
            for block in (at, csr.tails, csr.weights):
                block.astype(np.uint64).tofile(stream)
        graph = kaminpar.load_graph(str(file), kaminpar.GraphFileFormat.PARHIP)
    kaminpar.reseed(seed % (2**31))
    instance = kaminpar.KaMinPar(threads, kaminpar.default_context())
    return np.asarray(instance.compute_partition(graph, num_parts, SLACK), np.int32)


def _levelled(csr: _Csr, part: Int32s, num_parts: int) -> Int32s:
    """The same parts with none too large: a cutter's word on a small graph is no promise."""
    sizes = np.bincount(part, minlength=num_parts)
    limit = largest(len(part), num_parts)
    if sizes.max() <= limit:
        return part
    rows = np.repeat(np.arange(len(part)), np.diff(csr.indptr))
    bond = bonds(rows, part[csr.tails], csr.weights.astype(np.float32), len(part), num_parts)
    return level(bond, part, sizes, limit)
