"""Parts that follow the graph between two cuts: titles that gain edges go where their neighbours
are, titles without go to the smallest parts.

Each title looks at the parts of its neighbours as they are when its turn comes, and takes the part
that binds it most, less Fennel's price of a part's size: a * g * size ** (g - 1), with g = 1.5 and
a = m * K ** (g - 1) / n ** g, for n titles and co-play weight m. A part at the limit takes no more
(partition/balance.py), so the balance holds whatever comes; where retired titles leave a part too
large for what remains, it gives up its least bound ones. Titles of one batch are gone through
`PASSES` times: the first of them chose before the last had a place.

What is kept falls all the same, since only titles that changed are looked at again: `kept_share`
measures it, and partition/keeper.py has the cut made anew.

Sources: C. Tsourakakis et al., "FENNEL: Streaming Graph Partitioning for Massive Scale Graphs",
WSDM 2014; J. Nishimura, J. Ugander, "Restreaming Graph Partitioning", KDD 2013. Ours: weights of
edges, the fixed limit, and the levelling after retirements.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from partition.balance import SLACK, Float32s, Int32s, Int64s, balance_of, bonds, deal, largest
from partition.balance import level as levelled
from partition.mincut import Partition
from partition.neighbourhood import vertices
from store.graph import DynamicGraph

PASSES = 2
EXPONENT = 1.5  # of a part's size in Fennel's cost
CHUNK = 1024  # titles whose neighbours are read at once


@dataclass(frozen=True, slots=True)
class Followed:
    """A partition after some changes of the graph.

    Attributes:
        partition: every live title has a part; `kept_weight` and `seconds` are still of the cut.
        placed: titles new to it that went to their neighbours.
        dealt: titles new to it without neighbours that have a part, dealt at random.
        moved: titles that changed part.
    """

    partition: Partition
    placed: int
    dealt: int
    moved: int


def follow(
    graph: DynamicGraph,
    partition: Partition,
    touched: npt.NDArray[np.integer],
    *,
    seed: int,
    slack: float = SLACK,
) -> Followed:
    """Give new titles a part, let changed ones choose again, and forget those that are gone.

    Args:
        partition: is left as it is.
        touched: dense ids of titles whose edges changed, repeats and retired ones allowed.
        seed: of the deal.
        slack: how far above the mean size a part may be.
    """
    parts = partition.num_parts
    titles = vertices(graph, "title")
    live = titles.live_ids()
    part = np.full(titles.capacity, -1, np.int32)
    known = live[live < len(partition.part)]
    part[known] = partition.part[known]
    before = part.copy()
    sizes = np.bincount(part[part >= 0], minlength=parts)
    limit = largest(len(live), parts, slack)

    is_new = np.zeros(len(part), bool)
    is_new[live] = part[live] < 0
    queue = is_new.copy()
    at = np.asarray(touched, np.int64)
    at = at[(at >= 0) & (at < len(part))]
    queue[at[part[at] >= 0]] = True
    if parts > 1:
        _choose(graph, np.flatnonzero(queue).astype(np.int32), part, sizes, limit)
    lonely = np.flatnonzero(is_new & (part < 0))
    placed = int((is_new & (part >= 0)).sum())
    part[lonely] = deal(sizes, len(lonely), seed)
    sizes = np.bincount(part[part >= 0], minlength=parts)
    if sizes.max(initial=0) > limit:
        full = np.flatnonzero((part >= 0) & (sizes[part] > limit)).astype(np.int32)
        bond = np.concatenate(
            [_bond(graph, part, full[at : at + CHUNK], parts) for at in range(0, len(full), CHUNK)]
        )
        part[full] = levelled(bond, part[full], sizes, limit)
    moved = int(((before >= 0) & (part != before)).sum())
    new = replace(partition, part=part, balance=balance_of(part, parts))
    return Followed(new, placed, len(lonely), moved)


def kept_share(graph: DynamicGraph, part: Int32s) -> float:
    """Share of the co-play weight that lies inside parts now; 1 where there is none.

    Args:
        part: part of each title by dense id, -1: none; later titles have none, shape (T,).
    """
    live = vertices(graph, "title").live_ids()
    everyone = np.full(vertices(graph, "title").capacity, -1, np.int32)
    fits = min(len(everyone), len(part))
    everyone[:fits] = part[:fits]
    inside = total = 0.0
    for start in range(0, len(live), CHUNK):
        mine = live[start : start + CHUNK]
        rows, others, weights = _edges(graph, mine)
        here, there = everyone[mine][rows], everyone[others]
        total += float(weights.sum(dtype=np.float64))
        inside += float(weights[(here == there) & (here >= 0)].sum(dtype=np.float64))
    return inside / total if total > 0 else 1.0


def _choose(graph: DynamicGraph, queue: Int32s, part: Int32s, sizes: Int64s, limit: int) -> None:
    """Let the titles of `queue` choose, in turn; `part` and `sizes` are changed."""
    parts = len(sizes)
    for _ in range(PASSES):
        price: float | None = None
        for start in range(0, len(queue), CHUNK):
            mine = queue[start : start + CHUNK]
            bond = _bond(graph, part, mine, parts)
            if price is None:  # by the first chunk's mean weight: an estimate will do
                mean = float(bond.sum()) / max(len(mine), 1) / 2
                price = EXPONENT * mean * (parts / max(int(sizes.sum()), 1)) ** (EXPONENT - 1)
            for row, title in enumerate(mine.tolist()):
                mine_K = bond[row]
                if not mine_K.any():
                    continue  # none of its neighbours has a part yet
                old = int(part[title])
                if old >= 0:
                    sizes[old] -= 1
                score = mine_K - price * sizes ** (EXPONENT - 1)
                score[sizes >= limit] = -np.inf
                best = int(score.argmax())
                if old >= 0 and (score[best] <= score[old] or sizes[best] >= limit):
                    best = old
                part[title] = best
                sizes[best] += 1


def _bond(graph: DynamicGraph, part: Int32s, titles: Int32s, parts: int) -> Float32s:
    rows, others, weights = _edges(graph, titles)
    return bonds(rows, part[others], weights, len(titles), parts)


def _edges(graph: DynamicGraph, titles: Int32s) -> tuple[Int64s, Int32s, Float32s]:
    """Co-plays at `titles`, without loops: position among them, other end, weight."""
    found: list[tuple[Int64s, Int32s, Float32s]] = []
    for number, relation in enumerate(graph.relations):
        if relation.symmetric:
            indptr, others, weights = graph.neighbors(number, titles)
            rows = np.repeat(np.arange(len(titles)), np.diff(indptr))
            apart = others != titles[rows]
            found.append((rows[apart], others[apart], weights[apart]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
    rows, others, weights = (np.concatenate(column) for column in zip(*found, strict=True))
    return rows, others, weights
