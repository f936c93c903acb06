"""Kernels that change a forest: a batch is sorted by tree, and each tree is changed by one thread.

The vertex table holds a record a vertex (store/leaf.py): shape (4 * N,), int32. While a tree is
changed, its record stands in the arena, in the two units that its shard has for that: then every
record of a tree stands in the arena.

A kernel knows a forest by one number, the address of its *handle*:

    handle  (8,)  int64   addresses of TABLE, WORDS, POOLS and HEAP; number of VERTICES; the MODE of
                          its weight index, and its TOP capacity class; number of EDGES
"""

import numpy as np
import numpy.typing as npt

from store.blocks import (
    CAPACITIES,
    FREE,
    LIMIT,
    NEED,
    NEXT,
    RECORD,
    UNIT,
    WIDEST,
    Longs,
    Words,
    count_of,
    level_of,
    size_of,
    span,
)
from store.jit import inlined, kernel, step
from store.lanes import (
    PAD,
    longs_at,
    longs_room,
    onwards,
    pointer,
    prefetch,
    wide,
    words_at,
    words_room,
)
from store.samtree import MAX_HEIGHT, change

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

TABLE, WORDS, POOLS, HEAP, VERTICES, MODE, TOP, EDGES = range(8)
SHARDS = 16
SCRATCH = 2048 + PAD
WAY = 2 * MAX_HEIGHT
DIGITS = 2049

# How many changes ahead a batch asks for its columns, the trees' records, and their top nodes.
COLUMNS, TREES, NODES = 32, 20, 14
LINE = 16  # words of a cache line


@inlined
def shard_of(vertex: int) -> int:
    """The shard of a vertex: four records share a cache line, and so a shard."""
    return (vertex >> 2) & (SHARDS - 1)


@inlined
def workplace(shard: int) -> int:
    """The word where a shard's tree has its record while it is changed."""
    return UNIT * 2 * (shard + 1)


@inlined
def change_tree(
    handle: Longs,
    vertex: int,
    number: int,
    amount: float,
    op: int,
    path: Longs,
    scratch: Words,
) -> int:
    """Apply one change, for which the arena has room; as `samtree.change` otherwise."""
    table, words = words_at(handle[TABLE]), words_at(handle[WORDS])
    heap = longs_at(handle[HEAP])
    shard = shard_of(vertex)
    pool = onwards(longs_at(handle[POOLS]), shard * (FREE + 1 + heap[WIDEST]))
    root, record = workplace(shard), RECORD * vertex
    for i in range(RECORD):
        words[root + i] = table[record + i]
    mode, top = handle[MODE], handle[TOP]
    came = change(mode, top, words, pool, heap, root, op, number, amount, path, scratch)
    for i in range(RECORD):
        table[record + i] = words[root + i]
    return came


@inlined
def room_for(handle: Longs, changes: int) -> bool:
    """Whether so few changes find room, whatever they do."""
    heap = longs_at(handle[HEAP])
    enough: bool = heap[LIMIT] - heap[NEXT] >= changes * heap[NEED]
    return enough


@step
def ask_node(mode: int, words: Words, block: int, meta: int) -> None:
    """Ask for the lines that a change reads of a top node: ids or separators, sums, first weights.

    A line that is asked for twice costs less than a branch that the processor does not foresee.
    """
    capacity, count = wide(CAPACITIES[size_of(meta)]), count_of(meta)
    where = block * UNIT
    here = where + span(mode, capacity)
    end = here + (count if level_of(meta) > 0 else capacity >> 1)
    for line in range(0, 4 * LINE, LINE):
        prefetch(words, where + min(line, count))
    prefetch(words, here - 1)
    for line in range(0, 7 * LINE, LINE):
        prefetch(words, min(here + line, end))
    prefetch(words, end)


@kernel
def apply_rows(
    forest: int,
    order: Words,
    spare: Words,
    vertices: Words,
    numbers: Words,
    amounts: Floats,
    ops: Bytes,
    progress: Longs,
) -> None:
    """Apply the rows `order[progress[0] : progress[1]]`.

    Args:
        forest: address of its handle.
        order: the rows, where they are not to be sorted; else its part between the two is written.
        spare: room, as long as `order`.
        progress: the next row, the end, the number of edges that came less those that went, and the
            greatest vertex if the rows are to be sorted, else 0; then the first shard of which the
            part takes the rows, and the first of the next part, shape (6,); written. It stops short
            of the end where the arena must grow first.
    """
    path, scratch = longs_room(WAY), words_room(SCRATCH)
    handle = longs_at(forest)
    table, words = words_at(handle[TABLE]), words_at(handle[WORDS])
    stop = progress[1]
    if progress[3]:
        if stop - progress[0] < len(vertices):
            pick_rows(vertices, len(vertices), order, progress)
        sort_rows(vertices, order, spare, progress[0], stop, progress[3])
        progress[3] = 0
    rows, heads, tails = pointer(order), pointer(vertices), pointer(numbers)
    weights, kinds = pointer(amounts), pointer(ops)
    mode, came = handle[MODE], 0
    at = progress[0]
    while at < stop and room_for(handle, wide(1)):
        if at + COLUMNS < stop:
            e = wide(rows[at + COLUMNS])
            prefetch(heads, e)
            prefetch(tails, e)
            prefetch(weights, e)
            prefetch(kinds, e)
        if at + TREES < stop:
            prefetch(table, RECORD * wide(heads[rows[at + TREES]]))
        if at + NODES < stop:
            record = RECORD * wide(heads[rows[at + NODES]])
            ask_node(mode, words, wide(table[record]), wide(table[record + 1]))
        e = wide(rows[at])
        vertex, number, op = wide(heads[e]), wide(tails[e]), wide(kinds[e])
        came += change_tree(handle, vertex, number, weights[e], op, path, scratch)
        at += 1
    progress[0] = at
    progress[2] += came


@kernel
def count_shards(vertices: Words, starts: Longs) -> None:
    """Write where each shard's rows would start, if they stood together: shape (SHARDS + 1,)."""
    for shard in range(SHARDS + 1):
        starts[shard] = 0
    for i in range(len(vertices)):
        starts[shard_of(wide(vertices[i])) + 1] += 1
    for shard in range(SHARDS):
        starts[shard + 1] += starts[shard]


@step
def pick_rows(vertices: Words, count: int, order: Words, progress: Longs) -> None:
    """Write the rows of a part's shards to its place in `order`, as they came."""
    at, last, low, high = progress[0], progress[1], progress[4], progress[5]
    for i in range(count):
        if at == last:
            break
        order[at] = i
        shard = shard_of(wide(vertices[i]))
        at += 1 if low <= shard < high else 0


@step
def sort_rows(
    vertices: Words, order: Words, spare: Words, first: int, last: int, most: int
) -> None:
    """Order the rows `order[first:last]` by vertex: radix sort, 11 bits a pass, stable.

    Args:
        spare: room, as long as `order`.
        most: the greatest vertex.
    """
    counts = longs_room(DIGITS)
    shift, rows, others = 0, pointer(order), pointer(spare)
    while most >> shift > 0:
        for i in range(DIGITS):
            counts[i] = 0
        for i in range(first, last):
            counts[((vertices[rows[i]] >> shift) & 2047) + 1] += 1
        counts[0] = first
        for i in range(2048):
            counts[i + 1] += counts[i]
        for i in range(first, last):
            digit = (vertices[rows[i]] >> shift) & 2047
            others[counts[digit]] = rows[i]
            counts[digit] += 1
        rows, others = others, rows
        shift += 11
    if (shift // 11) & 1:  # the last pass wrote to the other array
        for i in range(first, last):
            order[i] = spare[i]
