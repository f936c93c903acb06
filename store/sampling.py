"""Samples that are made of many draws: vertices, negatives, and neighbourhoods of several hops.

A neighbourhood is numbered by vertex type: seeds first, in their order and without repeats, then
what each hop found, ascending. Edges run from what was drawn (row) to what it was drawn for (col):
the way in which messages go. That is the form of PyG's SamplerOutput and HeteroSamplerOutput.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from store.graph import DynamicGraph

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
AnyInts = npt.NDArray[np.integer]

Direction: TypeAlias = tuple[int, bool]
"""A relation's number, and whether it is followed from tails to heads."""


def sample_nodes(
    graph: DynamicGraph,
    vertex_type: str,
    count: int,
    *,
    seed: int,
    relation: int | None = None,
    reverse: bool = False,
    power: float = 1.0,
) -> Ints:
    """Draw vertices with replacement.

    Args:
        relation: in proportion to the summed weight of a vertex's edges of this relation; None:
            each live vertex as likely.
        reverse: of the edges that come in.
        power: that sum is raised to this power first: 0.75 draws the popular less often.

    Returns:
        Ids, shape (count,), int32; of shape (0,) where there is none to draw.

    Raises:
        ValueError: there is no such type or relation.
    """
    graph.num_nodes(vertex_type)
    live = graph.ids[vertex_type].live_ids()
    rng = np.random.default_rng(seed)
    if relation is None:
        at = rng.integers(0, max(len(live), 1), count)
        return live[at] if len(live) else np.zeros(0, np.int32)
    sums = graph.weight_sum(relation, live, reverse=reverse).astype(np.float64)
    steps = np.cumsum(np.where(sums > 0, sums**power, 0.0))
    if not len(steps) or steps[-1] <= 0:
        return np.zeros(0, np.int32)
    at = np.searchsorted(steps, rng.random(count) * steps[-1], side="right")
    drawn: Ints = live[np.minimum(at, len(live) - 1)]
    return drawn


def sample_negatives(
    graph: DynamicGraph,
    relation: int,
    heads: AnyInts,
    count: int,
    *,
    seed: int,
    popular: float | None = None,
    tries: int = 8,
) -> Ints:
    """Draw, for each head, tails that it has no edge to.

    Args:
        heads: dense ids, shape (S,).
        count: draws a head.
        popular: draw tails in proportion to their summed weight to this power; None: each live tail
            as likely.
        tries: how often a draw that is an edge, or the head itself, is drawn anew.

    Returns:
        Ids, -1 where all tries were edges, shape (S, count), int32.

    Raises:
        ValueError: there is no such relation or vertex.
    """
    graph.degree(relation, heads)  # complains about what is unknown
    here = graph.relations[relation]
    rows = np.repeat(np.asarray(heads, np.int32), count)
    out = np.full(len(rows), -1, np.int32)
    for turn in range(tries):
        left = np.flatnonzero(out < 0)
        drawn = sample_nodes(
            graph,
            here.tail,
            len(left),
            seed=seed + 7919 * turn,
            relation=None if popular is None else relation,
            reverse=not here.symmetric,
            power=1.0 if popular is None else popular,
        )
        if not len(drawn):
            break
        free = ~graph.has_edges(relation, rows[left], drawn)
        if here.head == here.tail:
            free &= rows[left] != drawn
        out[left[free]] = drawn[free]
    return out.reshape(-1, count)


@dataclass(slots=True)
class Neighbourhood:
    """A sampled subgraph, with local node numbers a vertex type.

    Attributes:
        nodes: dense ids by vertex type, shape (N,), int32, without repeats.
        row: local numbers of the edges' sources by direction, shape (E,), int64.
        col: local numbers of their targets, shape (E,), int64, ascending within a hop.
        nodes_by_hop: how many nodes are new: seeds, then a hop each.
        edges_by_hop: how many edges a hop has.
    """

    nodes: dict[str, Ints]
    row: dict[Direction, Longs] = field(default_factory=dict)
    col: dict[Direction, Longs] = field(default_factory=dict)
    nodes_by_hop: dict[str, list[int]] = field(default_factory=dict)
    edges_by_hop: dict[Direction, list[int]] = field(default_factory=dict)


def sample_hops(
    graph: DynamicGraph,
    seeds: Mapping[str, AnyInts],
    fanouts: Mapping[Direction, Sequence[int]],
    *,
    seed: int,
    weighted: bool = True,
    replace: bool = False,
) -> Neighbourhood:
    """Draw the surroundings of some vertices, hop by hop.

    Args:
        seeds: dense ids by vertex type; repeats are taken once.
        fanouts: draws a vertex at each hop, by direction: (r, False) follows relation r from heads
            to tails. All of the same length; -1 takes all neighbours.
        seed: of all draws.
        weighted: in proportion to weight; else each neighbour is as likely.
        replace: a neighbour may be drawn again; then the same edge may come twice.

    Raises:
        ValueError: a relation or vertex is unknown, or the lengths of the fanouts differ.
    """
    hops = {len(widths) for widths in fanouts.values()}
    if len(hops) > 1:
        raise ValueError(f"fanouts have the lengths {sorted(hops)}: want one for all directions")
    places = {kind: _Places(graph.num_nodes(kind)) for kind in graph.ids}
    fresh = {kind: places[kind].add(np.asarray(seeds.get(kind, ()), np.int64)) for kind in places}
    result = Neighbourhood({}, nodes_by_hop={kind: [len(fresh[kind])] for kind in places})
    rows: dict[Direction, list[Longs]] = {direction: [] for direction in fanouts}
    cols: dict[Direction, list[Longs]] = {direction: [] for direction in fanouts}
    for hop in range(max(hops, default=0)):
        found: dict[str, list[Longs]] = {kind: [] for kind in places}
        drawn: list[tuple[Direction, str, Longs, Longs]] = []
        for turn, (direction, widths) in enumerate(fanouts.items()):
            number, reverse = direction
            relation = graph.relations[number]
            near, far = relation.head, relation.tail
            if reverse:
                near, far = far, near
            source, target = _draw(
                graph, direction, fresh[near], widths[hop], seed + 104729 * hop + turn,
                weighted, replace,
            )  # fmt: skip
            found[far].append(source)
            drawn.append((direction, far, source, places[near].of(target)))
        fresh = {
            kind: places[kind].add(np.unique(np.concatenate(parts)) if parts else _none())
            for kind, parts in found.items()
        }
        for direction, far, source, col in drawn:
            rows[direction].append(places[far].of(source))
            cols[direction].append(col)
            result.edges_by_hop.setdefault(direction, []).append(len(col))
        for kind, new in fresh.items():
            result.nodes_by_hop[kind].append(len(new))
    result.nodes = {kind: np.concatenate(place.nodes) for kind, place in places.items()}
    result.row = {key: np.concatenate(parts) if parts else _none() for key, parts in rows.items()}
    result.col = {key: np.concatenate(parts) if parts else _none() for key, parts in cols.items()}
    return result


class _Places:
    """Local numbers of one vertex type, given out in the order in which vertices come."""

    def __init__(self, count: int) -> None:
        self._place = np.full(count, -1, np.int32)
        self._next = 0
        self.nodes: list[Ints] = [np.zeros(0, np.int32)]

    def add(self, ids: Longs) -> Ints:
        """Number what is new; returns it in the order in which it came."""
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(self._place):
            raise ValueError(
                f"seeds are in {ids.min()}..{ids.max()}: want 0..{len(self._place) - 1}"
            )
        _, first = np.unique(ids, return_index=True)
        new = ids[np.sort(first)]
        fresh: Ints = new[self._place[new] < 0].astype(np.int32)
        self._place[fresh] = np.arange(self._next, self._next + len(fresh), dtype=np.int32)
        self._next += len(fresh)
        self.nodes.append(fresh)
        return fresh

    def of(self, ids: AnyInts) -> Longs:
        return self._place[ids].astype(np.int64)


def _none() -> Longs:
    return np.zeros(0, np.int64)


def _draw(
    graph: DynamicGraph,
    direction: Direction,
    vertices: Ints,
    width: int,
    seed: int,
    weighted: bool,
    replace: bool,
) -> tuple[Longs, Longs]:
    """Edges drawn for some vertices: sources and targets as dense ids."""
    number, reverse = direction
    if width < 0:
        indptr, source, _ = graph.neighbors(number, vertices, reverse=reverse)
        return source.astype(np.int64), np.repeat(vertices, np.diff(indptr)).astype(np.int64)
    out = graph.sample(
        number, vertices, width, seed=seed, reverse=reverse, weighted=weighted, replace=replace
    )
    target, column = np.nonzero(out >= 0)
    return out[target, column].astype(np.int64), vertices[target].astype(np.int64)
