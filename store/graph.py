"""The dynamic graph: typed vertices, weighted edges of several relations, all of it changing.

A relation is kept as one samtree a vertex (store/forest.py): of out-edges, and, if it is directed,
of in-edges too, so that a vertex can be removed from every tree in which it stands. A symmetric one
keeps each edge at both of its ends, in one forest.

The class checks what comes in, whole batches at a time; kernels below it run. What can be asked is
in store/reading.py. Writers and readers must take turns: the caller holds a lock.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from store import snapshot
from store.check import check_batch, check_columns
from store.decay import FAR, Clock
from store.edges import COLUMNS, EdgeBatch, Op, as_rows
from store.features import Features
from store.forest import Forest
from store.ids import IdTable
from store.reading import GraphReader
from store.relation import Relation
from store.scalar import change_edge
from store.workers import Workers

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
AnyInts = npt.NDArray[np.integer]

__all__ = ["DynamicGraph", "Relation"]

log = logging.getLogger(__name__)


class DynamicGraph(GraphReader):
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
        self._plans: list[Longs] = []  # of store/scalar.py
        self._addresses: list[int] = []  # theirs; none where weights are to be aged first
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
        self._plans.append(
            np.array(
                [
                    self._forward[-1].handle,
                    backward.handle if backward is not None else 0,
                    relation.symmetric,
                    self.ids[relation.head].handle,
                    self.ids[relation.tail].handle,
                ]
            )
        )
        if self.clock is None:
            self._addresses.append(int(self._plans[-1].ctypes.data))
        self.relations.append(relation)
        self._numbers[relation.name] = len(self.relations) - 1
        return len(self.relations) - 1

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
            # Should memory end after this, the clock has seen the batch's time, and no edge else.
            amounts = self._age(self.clock, amounts, batch.time_ms)
        present, changes = np.unique(batch.relation).tolist(), []
        for number in present:
            here = batch.relation == number if len(present) > 1 else slice(None)
            columns = (batch.head[here], batch.tail[here], amounts[here], batch.op[here])
            changes += self._prepare(number, *columns)
        for change in changes:  # nothing fails from here on
            change()

    def change(
        self, relation: int, head: int, tail: int, weight: float, op: int, time_ms: int
    ) -> None:
        """Apply one change, sooner than a batch of one: arguments are Python's own numbers.

        A graph with a half-life takes the way of a batch all the same.

        Raises:
            ValueError: as for `apply`.
            MemoryError: there is no room.
        """
        if 0 <= relation < len(self._addresses) and not change_edge(
            self._addresses[relation], head, tail, weight, op
        ):
            return
        row = {
            "relation": relation,
            "head": head,
            "tail": tail,
            "weight": weight,
            "op": op,
            "time_ms": time_ms,
        }
        for name, value in row.items():
            if name != "weight":
                limits = np.iinfo(np.dtype(COLUMNS[name]).str)
                if not limits.min <= value <= limits.max:
                    raise ValueError(f"{name} is {value}: want {limits.min}..{limits.max}")
        with np.errstate(over="ignore"):  # a weight that float32 cannot hold is refused as infinite
            columns = {name: np.array([value], COLUMNS[name]) for name, value in row.items()}
        self.apply(EdgeBatch(**columns))

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

    def clear_features(self, vertex_type: str, ids: AnyInts) -> None:
        """Take vertices' features away: they are 0 again. The width stays what it was.

        Raises:
            ValueError: a vertex is unknown.
        """
        rows = self._vertices(vertex_type, ids)
        if vertex_type in self.features:
            self.features[vertex_type].clear(rows)

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

    def save(self, folder: Path) -> None:
        """Write the graph to a folder, which is made; see store/snapshot.py."""
        snapshot.take(self, copy=False).save(folder)

    def image(self) -> snapshot.Image:
        """A copy of the graph as it is, whose `save(folder)` needs no lock, nor this graph.

        Raises:
            MemoryError: there is no room for it.
        """
        return snapshot.take(self, copy=True)

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1, mapped: bool = False) -> "DynamicGraph":
        """The graph that `save` wrote: it answers and draws alike.

        Args:
            folder: of `save`.
            threads: as of the class.
            mapped: leave edges on disk until they are used, and their checksums unread. Changes are
                kept in memory; the files must stay where they are.

        Raises:
            ValueError: a file is missing, of another version, or not what was written.
        """
        return snapshot.load(cls, folder, threads=threads, mapped=mapped)

    def _apply(
        self, number: int, heads: Ints, tails: Ints, amounts: Floats, ops: "npt.NDArray[np.uint8]"
    ) -> None:
        for change in self._prepare(number, heads, tails, amounts, ops):
            change()

    def _prepare(
        self, number: int, heads: Ints, tails: Ints, amounts: Floats, ops: "npt.NDArray[np.uint8]"
    ) -> list[Callable[[], None]]:
        """Changes to each forest of a relation: all that takes memory is done, the rest is to do.

        A relation's come one after the other, with none prepared between.
        """
        relation = self.relations[number]
        if relation.symmetric:
            # Row by row both ways, so that each tree sees the rows in their order; a loop once.
            both = np.ones((len(heads), 2), bool)
            both[:, 1] = heads != tails
            keep = both.ravel()
            ends = np.stack([heads, tails], axis=1)
            return [
                self._forward[number].prepare(
                    ends.ravel()[keep],
                    ends[:, ::-1].ravel()[keep],
                    np.repeat(amounts, 2)[keep],
                    np.repeat(ops, 2)[keep],
                )
            ]
        changes = [self._forward[number].prepare(heads, tails, amounts, ops)]
        backward = self._backward[number]
        if backward is not None:
            changes.append(backward.prepare(tails, heads, amounts, ops))
        return changes

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

    def _make_room(self, batch: EdgeBatch) -> None:
        """Have each vertex of the batch's relations in their forests."""
        for number in np.unique(batch.relation).tolist():
            relation, backward = self.relations[number], self._backward[number]
            self._forward[number].ensure_vertices(self.num_nodes(relation.head))
            if backward is not None:
                backward.ensure_vertices(self.num_nodes(relation.tail))
