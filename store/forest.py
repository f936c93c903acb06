"""A forest: one samtree a vertex, in one arena.

It is one direction of one relation: the weighted out-edges of vertices 0..N - 1 to ids of any size.
It takes what has been checked; store/graph.py checks.

    table  (4 * N,)  int32   a record a vertex: top node's pointer, meta and base, and its degree
    words  (W,)      int32   the arena (store/blocks.py); its first units are none, and workplaces
    heap   (5,)      int64   of the arena
    pools  (16, P)   int64   free blocks, a row a shard
    handle (8,)      int64   where all these are (store/handle.py)
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from store import bulk, order, rows
from store import handle as known
from store.blocks import (
    CAPACITIES,
    CUMULATIVE,
    FENWICK,
    FREE,
    LIMIT,
    NEED,
    NEXT,
    SLAB,
    SUMS,
    UNIT,
    USE,
    WHOLE,
    WIDEST,
    class_of,
    inner_units,
    leaf_units,
)
from store.draws import draw_rows
from store.job import blank, describe_draws, describe_rows
from store.lanes import PAD
from store.memory import GrowingWords
from store.scalar import change_one
from store.updates import apply_rows
from store.upgrade import upgrade
from store.workers import Workers

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

MODES = {"fstable": FENWICK, "cstable": CUMULATIVE, "sums16": SUMS}
MAX_ID = 2**31 - 2
_FIRST = 2 * (order.SHARDS + 1)  # units before the first block
_SORT_FROM = 4096  # rows of a batch; a shorter one costs more to sort than that gains
_DEAL_FROM = 32768  # draws; fewer are not worth a second thread


class Forest:
    """Weighted edges from dense vertices to ids in 0..MAX_ID.

    Args:
        leaf_index: "sums16", "fstable" or "cstable".
        leaf_capacity: edges of a full leaf, and children of a full inner node: 8..1024, one of the
            size classes.
        workers: threads that share the work of large batches.

    Raises:
        ValueError: there is no such index or capacity.
    """

    def __init__(
        self,
        leaf_index: str = "sums16",
        leaf_capacity: int = 256,
        workers: Workers | None = None,
    ) -> None:
        if leaf_index not in MODES:
            raise ValueError(f"leaf_index is {leaf_index!r}: want one of {sorted(MODES)}")
        allowed = [int(c) for c in CAPACITIES if c >= 8]
        if leaf_capacity not in allowed:
            raise ValueError(f"leaf_capacity is {leaf_capacity}: want one of {allowed}")
        self.leaf_index = leaf_index
        self.leaf_capacity = leaf_capacity
        self._workers = workers or Workers(1)
        self._mode = MODES[leaf_index]
        self._top = int(class_of(leaf_capacity))
        self._count = 0
        self._table = GrowingWords(1024)
        inner = int(inner_units(self._mode, leaf_capacity))
        widest = max(inner, 2 * int(leaf_units(self._mode, leaf_capacity, WHOLE)))
        need = 32 * widest
        self._words = GrowingWords(UNIT * 2 * need + PAD)
        limit = len(self._words.array) // UNIT - 8
        self._heap = np.array([_FIRST, limit, 2 * widest, need, widest])
        self._pools = np.zeros((order.SHARDS, FREE + widest + 1), np.int64)
        self._handle = np.zeros(8, np.int64)
        self._handle[[known.MODE, known.TOP]] = self._mode, self._top
        self._point()

    def __len__(self) -> int:
        """Number of edges."""
        return int(self._handle[known.EDGES])

    @property
    def num_vertices(self) -> int:
        """Vertices are 0..num_vertices - 1."""
        return self._count

    def ensure_vertices(self, count: int) -> None:
        """Have at least `count` vertices.

        Raises:
            MemoryError: there is no room.
        """
        need = 4 * count + PAD
        if need > len(self._table.array):
            self._table.grow(max(need, len(self._table.array) * 5 // 4))
        self._count = max(self._count, count)
        self._point()

    def reserve(self, changes: int) -> None:
        """Have room for so many changes, whichever they are; it is reserved, and not yet taken.

        Raises:
            MemoryError: there is no room; nothing has changed.
        """
        self._grow(0, changes)

    def apply(self, vertices: Ints, numbers: Ints, amounts: Floats, ops: Bytes) -> None:
        """Apply changes; those of one vertex in the order in which they stand.

        What it takes is had before the first change.

        Args:
            vertices: from where, shape (E,), each below `num_vertices`.
            numbers: to where, shape (E,).
            amounts: weights, finite and >= 0, shape (E,).
            ops: shape (E,), see `store.edges.Op`.

        Raises:
            MemoryError: there is no room; nothing has changed.
        """
        self.prepare(vertices, numbers, amounts, ops)()

    def prepare(
        self, vertices: Ints, numbers: Ints, amounts: Floats, ops: Bytes
    ) -> Callable[[], None]:
        """All but the changes: what is returned makes them, before any others; see `apply`."""
        count = len(vertices)
        self.reserve(count)
        most, parts = 0, 1  # neither sorted nor dealt
        if count >= _SORT_FROM:
            most, parts = self._count - 1, min(self._workers.threads, order.SHARDS)
        jobs, room = blank(parts), np.empty(2 * parts * count, np.int32)
        describe_rows(
            jobs, parts, apply_rows.address, self._address,
            vertices, numbers, amounts, ops, most, room,
        )  # fmt: skip
        return partial(self._finish, jobs, (vertices, numbers, amounts, ops, room))

    def _finish(self, jobs: Longs, _kept: "tuple[Ints, Ints, Floats, Bytes, Ints]") -> None:
        """Make changes; where they find the arena full, it grows."""
        while self._workers.run(jobs):
            self._grow(0)

    @property
    def handle(self) -> int:
        """By what number kernels know this forest: the address of where its parts are."""
        return self._address

    def change(self, vertex: int, number: int, amount: float, op: int) -> None:
        """Apply one change, without the arrays of a batch; arguments as in `apply`."""
        if change_one(self._address, vertex, number, amount, op):
            self._grow(1024)
            change_one(self._address, vertex, number, amount, op)

    def build(self, indptr: Longs, ids: Ints, amounts: Floats) -> None:
        """Fill the forest, which is empty, from rows that are sorted by id and hold none twice.

        Args:
            indptr: row v is `ids[indptr[v] : indptr[v + 1]]`, shape (N + 1,).
            ids: shape (E,).
            amounts: weights, shape (E,).

        Raises:
            ValueError: there are edges already.
        """
        if len(self):
            raise ValueError(f"the forest has {len(self)} edges: it can be built only when empty")
        self.ensure_vertices(len(indptr) - 1)
        self._grow(0)
        vertex = 0
        while vertex < len(indptr) - 1:
            vertex = bulk.build(
                self._mode,
                self._top,
                self._table.array,
                self._words.array,
                self._pools,
                self._heap,
                indptr,
                ids,
                amounts,
                vertex,
            )
            if vertex < len(indptr) - 1:
                rest = int(indptr[-1] - indptr[vertex])
                self._grow(max(int(indptr[vertex + 1] - indptr[vertex]), min(rest, 1 << 22)))
        self._handle[known.EDGES] = len(ids)

    def scale(self, factor: float) -> None:
        """Multiply all weights by a power of two: exactly, as long as none becomes too small."""
        table, words = self._table.array, self._words.array
        bulk.scale(self._mode, table, words, self._count, factor)

    def degree(self, vertices: Ints) -> Ints:
        """Number of edges of each vertex, shape (S,)."""
        return self._table.array[4 * vertices.astype(np.int64) + 3]

    def weight_sum(self, vertices: Ints) -> Floats:
        """Sum of the weights of each vertex's edges, shape (S,)."""
        out = np.empty(len(vertices), np.float32)
        rows.sums(self._mode, self._table.array, self._words.array, vertices, out)
        return out

    def weight(self, vertices: Ints, numbers: Ints) -> Floats:
        """Weight of each edge, 0 where there is none, shape (E,)."""
        return np.maximum(self._lookup(vertices, numbers), np.float32(0))

    def has(self, vertices: Ints, numbers: Ints) -> npt.NDArray[np.bool_]:
        """Whether there is such an edge, shape (E,)."""
        return self._lookup(vertices, numbers) >= 0

    def neighbors(self, vertices: Ints) -> tuple[Longs, Ints, Floats]:
        """Rows as (indptr, ids, weights), each row sorted by id."""
        indptr = np.zeros(len(vertices) + 1, np.int64)
        np.cumsum(self.degree(vertices), out=indptr[1:])
        ids = np.empty(int(indptr[-1]), np.int32)
        bits = np.empty(int(indptr[-1]), np.int32)
        table, words = self._table.array, self._words.array
        rows.read_rows(self._mode, table, words, vertices, indptr, ids, bits)
        return indptr, ids, bits.view(np.float32)

    def top_k(self, vertices: Ints, k: int) -> tuple[Ints, Floats]:
        """The k heaviest edges of each row, shape (S, k): see `DynamicGraph.top_k`."""
        ids = np.empty(len(vertices) * k, np.int32)
        bits = np.empty(len(vertices) * k, np.int32)
        table, words = self._table.array, self._words.array
        rows.heaviest(self._mode, table, words, vertices, k, ids, bits)
        return ids.reshape(-1, k), bits.view(np.float32).reshape(-1, k)

    def sample(
        self, vertices: Ints, fanout: int, seed: int, *, weighted: bool, replace: bool
    ) -> Ints:
        """Draws for each row, shape (S, fanout): see `DynamicGraph.sample`."""
        out = np.empty(len(vertices) * fanout, np.int32)
        parts = self._workers.threads if len(out) >= _DEAL_FROM else 1
        # Should another thread let the arena grow meanwhile: what is held is copied, and not moved.
        _kept = self._table.array, self._words.array
        jobs = blank(parts)
        describe_draws(
            jobs, parts, draw_rows.address, self._address,
            vertices, fanout, seed, weighted, replace, out,
        )  # fmt: skip
        if self._workers.run(jobs):
            raise MemoryError(f"no room to draw {fanout} neighbours at once without repeats")
        return out.reshape(-1, fanout)

    def memory_report(self) -> dict[str, int]:
        """Bytes by part: `table`, `blocks` in use, `free` blocks and slabs, `pools`."""
        used = int(self._pools[:, USE].sum())
        given = int(self._heap[NEXT]) - _FIRST
        return {
            "table": 16 * self._count,
            "blocks": 4 * UNIT * used,
            "free": 4 * UNIT * (given - used),
            "pools": self._pools.nbytes + 4 * UNIT * _FIRST,
        }

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What a snapshot keeps: views, which hold until the next change."""
        return {
            "table": self._table.array[: 4 * self._count],
            # With what a step may read past the last block: so the array can be used as it is.
            "words": self._words.array[: UNIT * int(self._heap[NEXT]) + PAD],
            "heap": self._heap[:WIDEST],
            "pools": self._pools,
            "counts": np.array([self._count, len(self)], np.int64),
        }

    def restore(self, arrays: dict[str, npt.NDArray[np.generic]], *, keep: bool = False) -> None:
        """Take the state of the forest that `arrays` came from; index and capacity are the same.

        Args:
            keep: use the arrays of table and words themselves, until one must grow.
        """
        count, edges = (int(value) for value in arrays["counts"])
        self._heap[: len(arrays["heap"])] = arrays["heap"]
        self._pools = np.array(arrays["pools"], np.int64)
        self._count = 0
        padded = len(arrays["words"]) >= UNIT * int(self._heap[NEXT]) + PAD
        if keep and padded and count:
            self._words = GrowingWords.of(np.asarray(arrays["words"]).view(np.int32))
            self._table = GrowingWords.of(np.asarray(arrays["table"]).view(np.int32))
            self._heap[LIMIT] = self._heap[NEXT]
            self._count = count
            self._point()
        else:
            self._words.grow(UNIT * (int(self._heap[LIMIT]) + 8) + PAD)
            self._words.array[: len(arrays["words"])] = arrays["words"]
            self.ensure_vertices(count)
            self._table.array[: 4 * count] = arrays["table"]
        self._handle[known.EDGES] = edges

    def upgrade(self) -> None:
        """Make the trees of a snapshot of version 1, just restored, such as are made today."""
        upgrade(self._mode, self._table.array, self._words.array, self._count)

    def _lookup(self, vertices: Ints, numbers: Ints) -> Floats:
        out = np.empty(len(vertices), np.float32)
        rows.lookups(self._mode, self._table.array, self._words.array, vertices, numbers, out)
        return out

    def _grow(self, units: int, changes: int = 0) -> None:
        """Have `units` and what one change needs never given out, and room for `changes`."""
        heap = self._heap
        given, limit, _, _, widest = heap.tolist()  # lists: numpy's own sums are slow on so little
        used = sum(self._pools[:, USE].tolist())
        # A change replaces a leaf by one or two that are less than three times as large together,
        # or makes one of a unit. The next in the same leaf finds slack: what a leaf then costs is
        # less than eight units a change. A slab that is left may be half empty.
        units += 2 * min(changes * widest, 3 * used) + 16 * changes
        # Slabs grow with the arena: few for the threads to fetch, and none large in a small one.
        slab = max(2 * widest, min(32768, given // (128 * order.SHARDS))) & ~1
        heap[SLAB] = slab
        # One change may split a node at every level, and open a new slab for each block.
        threads = min(self._workers.threads, order.SHARDS)
        heap[NEED] = once = threads * 32 * widest + 2 * order.SHARDS * slab
        need = given + units + 2 * once  # a change may be made both ways
        if need > limit:
            limit = need * 5 // 4  # more than is needed: it costs nothing until it is written to
            self._words.grow(UNIT * (limit + 8) + PAD)
            heap[LIMIT] = limit
            self._point()

    def _point(self) -> None:
        """Write anew where the parts are."""
        handle = self._handle
        self._address = handle.ctypes.data
        handle[known.TABLE] = self._table.array.ctypes.data
        handle[known.WORDS] = self._words.array.ctypes.data
        handle[known.POOLS] = self._pools.ctypes.data
        handle[known.HEAP] = self._heap.ctypes.data
        handle[known.VERTICES] = self._count
