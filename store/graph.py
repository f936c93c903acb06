"""The dynamic graph: typed vertices, weighted edges of several relations, all of it changing.

A relation is kept as one samtree a vertex (store/forest.py): of out-edges, and, if it is directed,
of in-edges too, so that a vertex can be removed from every tree in which it stands. A symmetric one
keeps each edge at both of its ends, in one forest.

The class checks what comes in, whole batches at a time; kernels below it run. Writers and readers
must take turns: the caller holds a lock. Readers may run beside each other.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from store import snapshot
from store.check import check_batch, check_columns
from store.decay import FAR, Clock
from store.edges import EdgeBatch, Op, as_rows
from store.features import Features
from store.forest import Forest
from store.ids import IdTable
from store.relation import Relation
from store.workers import Workers

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
AnyInts = npt.NDArray[np.integer]

__all__ = ["DynamicGraph", "Relation"]

log = logging.getLogger(__name__)


class DynamicGraph:
    """A weighted heterogeneous graph that changes while it is sampled.

    Args:
        relations: the first ones; more can be added.
        leaf_index: how a leaf finds a weighted draw: "sums16", "fstable" or "cstable".
        leaf_capacity: edges of a full leaf.
        half_life_s: seconds in which an edge's weight halves; None: it does not fade. Weights are
            read as of the newest event time that the graph has seen.
        threads: how many work on a large batch or draw; the result is the same.

    Attributes:
        relations: by number.
        ids: names and dense ids, by vertex type.
        features: dense features by vertex type, where there are any.
    """

    def __init__(
        self,
        relations: Sequence[Relation] = (),
        *,
        leaf_index: str = "sums16",
        leaf_capacity: int = 256,
        half_life_s: float | None = None,
        threads: int = 1,
    ) -> None:
        self.leaf_index = leaf_index
        self.leaf_capacity = leaf_capacity
        self.half_life_s = half_life_s
        self.clock = None if half_life_s is None else Clock(half_life_s)
        self.features: dict[str, Features] = {}
        self._workers = Workers(threads)
        self.relations: list[Relation] = []
        self.ids: dict[str, IdTable] = {}
        self._numbers: dict[str, int] = {}
        self._forward: list[Forest] = []
        self._backward: list[Forest | None] = []
        Forest(leaf_index, leaf_capacity)  # complains before the first relation does
        for relation in relations:
            self.add_relation(relation)

    def add_relation(self, relation: Relation) -> int:
        """The relation's number; a new one gets the next.

        Raises:
            ValueError: another relation has this name.
        """
        if relation.name in self._numbers:
            number = self._numbers[relation.name]
            if self.relations[number] != relation:
                raise ValueError(f"{relation!r}: there is {self.relations[number]!r} already")
            return number
        if len(self.relations) > np.iinfo(np.int16).max:
            raise ValueError(f"{relation!r}: there are {len(self.relations)} relations already")
        for vertex_type in (relation.head, relation.tail):
            self.ids.setdefault(vertex_type, IdTable())
        self._forward.append(Forest(self.leaf_index, self.leaf_capacity, self._workers))
        backward = (
            None
            if relation.symmetric
            else Forest(self.leaf_index, self.leaf_capacity, self._workers)
        )
        self._backward.append(backward)
        self.relations.append(relation)
        self._numbers[relation.name] = len(self.relations) - 1
        return len(self.relations) - 1

    def relation_id(self, name: str) -> int:
        """The number of a relation.

        Raises:
            ValueError: there is no such relation.
        """
        if name not in self._numbers:
            raise ValueError(f"no relation {name!r}: there are {sorted(self._numbers)}")
        return self._numbers[name]

    def num_nodes(self, vertex_type: str) -> int:
        """Ids of this type are in 0..num_nodes - 1; some of them may be free.

        Raises:
            ValueError: there is no such type.
        """
        return self._table(vertex_type).capacity

    def num_edges(self, relation: int) -> int:
        """Edges of a relation; a symmetric one counts each edge once a direction, loops once."""
        return len(self._forward[self._relation(relation)])

    def apply(self, batch: EdgeBatch) -> None:
        """Apply a batch: all of it, or, where a row is bad, nothing.

        Raises:
            ValueError: a row names an unknown relation, a vertex that is not live, an unknown
                operation, or a weight that is negative or not finite.
            MemoryError: there is no room.
        """
        check_batch(self, batch)
        if not len(batch):
            return
        amounts = batch.weight + np.float32(0)  # -0 becomes 0
        self._make_room(batch)
        if self.clock is not None:
            amounts = self._age(self.clock, amounts, batch.time_ms)
        present = np.unique(batch.relation)
        for number in present.tolist():
            if len(present) == 1:
                self._apply(number, batch.head, batch.tail, amounts, batch.op)
            else:
                at = np.flatnonzero(batch.relation == number)
                self._apply(number, batch.head[at], batch.tail[at], amounts[at], batch.op[at])

    def load_edges(self, relation: int, heads: AnyInts, tails: AnyInts, weights: Floats) -> None:
        """Fill a relation that has no edges yet, in blocks that are full: less memory, and faster.

        Args:
            relation: its number.
            heads: dense ids, shape (E,).
            tails: dense ids, shape (E,).
            weights: shape (E,); those of an edge that comes more than once are added.

        Raises:
            ValueError: the relation has edges, or a row is bad; then nothing is loaded.
        """
        here = self.relations[self._relation(relation)]
        if self.num_edges(relation):
            raise ValueError(f"relation {here.name!r} has {self.num_edges(relation)} edges already")
        here_heads = self._vertices(here.head, heads, "heads")
        here_tails = self._vertices(here.tail, tails, "tails")
        check_columns(self, relation, here_heads, here_tails, np.asarray(weights))
        if here.symmetric:
            back = here_heads != here_tails
            here_heads, here_tails, weights = (
                np.concatenate([here_heads, here_tails[back]]),
                np.concatenate([here_tails, here_heads[back]]),
                np.concatenate([weights, weights[back]]),
            )
        count = self.num_nodes(here.head)
        self._forward[relation].build(*as_rows(here_heads, here_tails, weights, count))
        backward = self._backward[relation]
        if backward is not None:
            backward.build(*as_rows(here_tails, here_heads, weights, self.num_nodes(here.tail)))

    def prune(self, below: float) -> int:
        """Remove edges whose weight, as of now, is below a floor; returns how many.

        Raises:
            ValueError: the floor is not a number >= 0.
        """
        if not below >= 0:
            raise ValueError(f"below is {below}: want a weight >= 0")
        floor = np.float32(below) / self._today()
        gone = 0
        for number, relation in enumerate(self.relations):
            heads, tails, weights = self._stored_edges(number)
            faded = weights < floor
            gone += int(faded.sum())
            if relation.symmetric:
                faded &= heads <= tails
            heads, tails = heads[faded], tails[faded]
            ops = np.full(len(heads), Op.DELETE, np.uint8)
            self._apply(number, heads, tails, np.zeros(len(heads), np.float32), ops)
        return gone

    def set_features(self, vertex_type: str, ids: AnyInts, values: Floats) -> None:
        """Give vertices their features.

        Args:
            ids: dense ids, shape (S,).
            values: finite, shape (S, F); F is the same for all of a type.

        Raises:
            ValueError: a vertex is unknown, or the values have another shape, or are not finite.
        """
        rows = self._vertices(vertex_type, ids)
        self.features.setdefault(vertex_type, Features()).put(rows, np.asarray(values))

    def get_features(self, vertex_type: str, ids: AnyInts) -> Floats:
        """Features of vertices, shape (S, F); 0 where none were given.

        Raises:
            ValueError: a vertex is unknown, or the type has no features.
        """
        rows = self._vertices(vertex_type, ids)
        if vertex_type not in self.features:
            raise ValueError(f"{vertex_type!r} has no features: set_features gives them")
        return self.features[vertex_type].get(rows)

    def retire(self, vertex_type: str, ids: AnyInts) -> None:
        """Remove vertices: all edges at them, and their names; the ids are given out again.

        Raises:
            ValueError: there is no such type, or an id is not live; then nothing is removed.
        """
        table = self._table(vertex_type)
        gone = self._vertices(vertex_type, np.unique(ids))
        for number, relation in enumerate(self.relations):
            for reverse in (False,) if relation.symmetric else (False, True):
                if (relation.tail if reverse else relation.head) != vertex_type:
                    continue
                indptr, others, _ = self._forest(number, reverse).neighbors(gone)
                here = np.repeat(gone, np.diff(indptr))
                heads, tails = (others, here) if reverse else (here, others)
                ops = np.full(len(here), Op.DELETE, np.uint8)
                self._apply(number, heads, tails, np.zeros(len(here), np.float32), ops)
        if vertex_type in self.features:
            self.features[vertex_type].clear(gone)
        table.release(gone)

    def degree(self, relation: int, vertices: AnyInts, *, reverse: bool = False) -> Ints:
        """Number of edges at each vertex, shape (S,).

        Args:
            relation: its number.
            vertices: dense ids, shape (S,): heads, or tails if `reverse`.
            reverse: look at the edges that come in.

        Raises:
            ValueError: there is no such relation or vertex.
        """
        forest, rows = self._row(relation, vertices, reverse)
        return forest.degree(rows)

    def weight_sum(self, relation: int, vertices: AnyInts, *, reverse: bool = False) -> Floats:
        """Summed weight of the edges at each vertex, shape (S,); arguments as in `degree`."""
        forest, rows = self._row(relation, vertices, reverse)
        return self._read(forest.weight_sum(rows))

    def weight(self, relation: int, heads: AnyInts, tails: AnyInts) -> Floats:
        """Weight of each edge, 0 where there is none, shape (E,).

        Raises:
            ValueError: there is no such relation or vertex, or the lengths differ.
        """
        forest, rows = self._row(relation, heads, False)
        ends = self._vertices(self.relations[relation].tail, tails, "tails")
        if rows.shape != ends.shape:
            raise ValueError(f"heads has shape {rows.shape}, but tails has {ends.shape}")
        return self._read(forest.weight(rows, ends))

    def neighbors(
        self, relation: int, vertices: AnyInts, *, reverse: bool = False
    ) -> tuple[Longs, Ints, Floats]:
        """The edges at each vertex, as rows sorted by id; arguments as in `degree`.

        Returns:
            indptr: row i is `ids[indptr[i] : indptr[i + 1]]`, shape (S + 1,), int64.
            ids: the other ends, shape (E,), int32.
            weights: shape (E,), float32.
        """
        forest, rows = self._row(relation, vertices, reverse)
        indptr, ids, weights = forest.neighbors(rows)
        return indptr, ids, self._read(weights)

    def top_k(
        self, relation: int, vertices: AnyInts, k: int, *, reverse: bool = False
    ) -> tuple[Ints, Floats]:
        """The k heaviest edges at each vertex, heaviest first, ties by id; see `degree`.

        Returns:
            ids: the other ends, -1 where a row has no more, shape (S, k), int32.
            weights: 0 where a row has no more, shape (S, k), float32.
        """
        if k < 0:
            raise ValueError(f"k is {k}: want 0 or more")
        forest, rows = self._row(relation, vertices, reverse)
        ids, weights = forest.top_k(rows, k)
        return ids, self._read(weights)

    def edges(self, relation: int) -> tuple[Ints, Ints, Floats]:
        """All edges as (heads, tails, weights), sorted by head, then tail.

        An edge of a symmetric relation comes in both directions.
        """
        heads, tails, weights = self._stored_edges(self._relation(relation))
        return heads, tails, self._read(weights)

    def sample(
        self,
        relation: int,
        seeds: AnyInts,
        fanout: int,
        *,
        seed: int,
        reverse: bool = False,
        weighted: bool = True,
        replace: bool = True,
    ) -> Ints:
        """Draw neighbours of each vertex.

        Args:
            relation: its number.
            seeds: dense ids, with repeats or without, shape (S,).
            fanout: draws a vertex.
            seed: the same seed on the same state draws the same, for any number of threads.
            reverse: draw among the edges that come in.
            weighted: in proportion to weight; an edge of weight 0 is never drawn. Else each edge is
                as likely.
            replace: the same neighbour may be drawn again. Else each at most once, successively.

        Returns:
            Ids, -1 where there is none to draw, shape (S, fanout), int32.
        """
        if fanout < 0:
            raise ValueError(f"fanout is {fanout}: want 0 or more")
        forest, rows = self._row(relation, seeds, reverse)
        return forest.sample(
            rows, fanout, seed & 0x7FFFFFFFFFFFFFFF, weighted=weighted, replace=replace
        )

    def save(self, folder: Path) -> None:
        """Write the graph to a folder, which is made; see store/snapshot.py."""
        snapshot.save(self, folder)

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1) -> "DynamicGraph":
        """The graph that `save` wrote: it answers and draws alike.

        Raises:
            ValueError: a file is missing, of another version, or not what was written.
        """
        return snapshot.load(cls, folder, threads=threads)

    def memory_report(self) -> dict[str, int]:
        """Bytes by part: of each relation's forests, of the id tables, and `total`."""
        report: dict[str, int] = {}
        for number, relation in enumerate(self.relations):
            for suffix, forest in (
                ("", self._forward[number]),
                (".reverse", self._backward[number]),
            ):
                if forest is not None:
                    for part, size in forest.memory_report().items():
                        report[f"{relation.name}{suffix}.{part}"] = size
        for vertex_type, features in self.features.items():
            report[f"features.{vertex_type}"] = features.values.nbytes
        for vertex_type, table in self.ids.items():
            report[f"ids.{vertex_type}"] = table.nbytes()
        report["total"] = sum(report.values())
        return report

    def forests(self) -> dict[str, Forest]:
        """Each forest by a name that is fit for a file."""
        found = {}
        for number, forward in enumerate(self._forward):
            found[f"{number}.forward"] = forward
            backward = self._backward[number]
            if backward is not None:
                found[f"{number}.backward"] = backward
        return found

    def _apply(
        self, number: int, heads: Ints, tails: Ints, amounts: Floats, ops: "npt.NDArray[np.uint8]"
    ) -> None:
        relation = self.relations[number]
        if relation.symmetric:
            # Row by row both ways, so that each tree sees the rows in their order; a loop once.
            both = np.ones((len(heads), 2), bool)
            both[:, 1] = heads != tails
            keep = both.ravel()
            ends = np.stack([heads, tails], axis=1)
            self._forward[number].apply(
                ends.ravel()[keep],
                ends[:, ::-1].ravel()[keep],
                np.repeat(amounts, 2)[keep],
                np.repeat(ops, 2)[keep],
            )
            return
        self._forward[number].apply(heads, tails, amounts, ops)
        backward = self._backward[number]
        if backward is not None:
            backward.apply(tails, heads, amounts, ops)

    def _age(self, clock: Clock, amounts: Floats, time_ms: Longs) -> Floats:
        """Weights as they are stored; moves the landmark where it is time."""
        moved = clock.advance(time_ms)
        if moved:
            factor = 2.0 ** -min(moved, 2 * FAR)
            for forest in self.forests().values():
                forest.scale(factor)
            log.info("moved the landmark of decay by %d half-lives", moved)
        return clock.grow(amounts, time_ms)

    def _today(self) -> np.float32:
        return np.float32(1) if self.clock is None else self.clock.today()

    def _read(self, weights: Floats) -> Floats:
        return weights if self.clock is None else weights * self.clock.today()

    def _stored_edges(self, number: int) -> tuple[Ints, Ints, Floats]:
        forest = self._forward[number]
        vertices = np.arange(forest.num_vertices, dtype=np.int32)
        indptr, ids, weights = forest.neighbors(vertices)
        return np.repeat(vertices, np.diff(indptr)), ids, weights

    def _make_room(self, batch: EdgeBatch) -> None:
        """Reserve for the whole batch, so that what fails for want of memory fails here."""
        for number, count in zip(*np.unique(batch.relation, return_counts=True), strict=True):
            relation = self.relations[int(number)]
            forward, backward = self._forward[int(number)], self._backward[int(number)]
            forward.ensure_vertices(self.num_nodes(relation.head))
            forward.reserve(int(count) * (2 if relation.symmetric else 1))
            if backward is not None:
                backward.ensure_vertices(self.num_nodes(relation.tail))
                backward.reserve(int(count))

    def has_edges(self, relation: int, heads: AnyInts, tails: AnyInts) -> npt.NDArray[np.bool_]:
        """Whether there is such an edge, shape (E,); arguments as in `weight`."""
        forest, rows = self._row(relation, heads, False)
        return forest.has(rows, self._vertices(self.relations[relation].tail, tails, "tails"))

    def _table(self, vertex_type: str) -> IdTable:
        if vertex_type not in self.ids:
            raise ValueError(f"no vertex type {vertex_type!r}: there are {sorted(self.ids)}")
        return self.ids[vertex_type]

    def _relation(self, number: int) -> int:
        if not 0 <= number < len(self.relations):
            raise ValueError(f"no relation {number}: there are 0..{len(self.relations) - 1}")
        return number

    def _forest(self, number: int, reverse: bool) -> Forest:
        backward = self._backward[number] if reverse else None
        return self._forward[number] if backward is None else backward

    def _row(self, number: int, vertices: AnyInts, reverse: bool) -> tuple[Forest, Ints]:
        """The forest that holds one direction of a relation, and checked vertices of it."""
        relation = self.relations[self._relation(number)]
        vertex_type = relation.tail if reverse else relation.head
        rows = self._vertices(vertex_type, vertices)
        forest = self._forest(number, reverse)
        forest.ensure_vertices(self.num_nodes(vertex_type))
        return forest, rows

    def _vertices(self, vertex_type: str, ids: AnyInts, name: str = "vertices") -> Ints:
        ids = np.asarray(ids)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise ValueError(f"{name} is {ids.dtype} of shape {ids.shape}: want integers, (S,)")
        count = self.num_nodes(vertex_type)
        if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= count):
            row = int(np.flatnonzero((ids < 0) | (ids >= count))[0])
            raise ValueError(
                f"{name}[{row}] is {ids[row]}: {vertex_type!r} has ids below {count} only"
            )
        return np.ascontiguousarray(ids, np.int32)
