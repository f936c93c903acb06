"""Kernels that change a forest: a batch is sorted by tree, and each tree is changed by one thread.

The vertex table holds a record a vertex (store/leaf.py): shape (4 * N,), int32. While a tree is
changed, its record stands in the arena, in the two units that its shard has for that: then every
record of a tree stands in the arena.
"""

import numpy as np
import numpy.typing as npt

from store.blocks import LIMIT, NEXT, RECORD, UNIT, Longs, Words
from store.jit import inlined, kernel
from store.lanes import PAD, borrow, prefetch, wide
from store.samtree import MAX_HEIGHT, change

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

SHARDS = 16
NEED = 3  # of the heap: units that must be free before a change, whatever it does
SCRATCH = 2048 + PAD


@inlined
def shard_of(vertex: int) -> int:
    """The shard of a vertex: four records share a cache line, and so a shard."""
    return (vertex >> 2) & (SHARDS - 1)


@inlined
def workplace(shard: int) -> int:
    """The word where a shard's tree has its record while it is changed."""
    return UNIT * 2 * (shard + 1)


@kernel
def apply_rows(
    mode: int,
    top: int,
    table: Words,
    words: Words,
    pools: Longs,
    heap: Longs,
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
        order: rows of some shards that no other thread works on; reordered by vertex.
        spare: room, as long as `order`.
        progress: the next row, the end, the number of edges that came less those that went, and the
            greatest vertex if the rows are to be sorted, else 0; written. It stops short of the end
            where the arena must grow first.
    """
    ways, room = np.empty((MAX_HEIGHT, 2), np.int64), np.empty(SCRATCH, np.int32)
    path, scratch = borrow(ways), borrow(room)
    table, words, pools, heap = borrow(table), borrow(words), borrow(pools), borrow(heap)
    order, vertices, numbers = borrow(order), borrow(vertices), borrow(numbers)
    amounts, ops = borrow(amounts), borrow(ops)
    stop = progress[1]
    if progress[3]:
        sort_rows(vertices, order, spare, progress[0], stop, progress[3])
        progress[3] = 0
    came = 0
    at = progress[0]
    while at < stop and heap[LIMIT] - heap[NEXT] >= heap[NEED]:
        if at + 12 < stop:
            prefetch(table, RECORD * wide(vertices[order[at + 12]]))
        if at + 6 < stop:
            ahead = UNIT * wide(table[RECORD * wide(vertices[order[at + 6]])])
            for line in range(0, 64, 16):
                prefetch(words, ahead + line)
        e = order[at]
        vertex = wide(vertices[e])
        shard = shard_of(vertex)
        root, record = workplace(shard), RECORD * vertex
        for i in range(RECORD):
            words[root + i] = table[record + i]
        came += change(
            mode,
            top,
            words,
            pools,
            heap,
            shard,
            root,
            wide(ops[e]),
            wide(numbers[e]),
            amounts[e],
            path,
            scratch,
        )
        for i in range(RECORD):
            table[record + i] = words[root + i]
        at += 1
    ways[0, 0] = room[0] = 0  # their last use
    progress[0] = at
    progress[2] += came


@kernel
def deal(vertices: Words, order: Words, starts: Longs) -> None:
    """Order rows by shard, and as they came within one.

    Args:
        order: written, shape (E,).
        starts: written: where each shard's rows start, shape (SHARDS + 1,).
    """
    place = np.empty(SHARDS, np.int64)
    for shard in range(SHARDS + 1):
        starts[shard] = 0
    for i in range(len(vertices)):
        starts[shard_of(wide(vertices[i])) + 1] += 1
    for shard in range(SHARDS):
        starts[shard + 1] += starts[shard]
    for shard in range(SHARDS):
        place[shard] = starts[shard]
    for i in range(len(vertices)):
        shard = shard_of(wide(vertices[i]))
        order[place[shard]] = i
        place[shard] += 1


@kernel
def sort_rows(
    vertices: Words, order: Words, spare: Words, first: int, last: int, most: int
) -> None:
    """Order the rows `order[first:last]` by vertex: radix sort, 11 bits a pass, stable.

    Args:
        spare: room, as long as `order`.
        most: the greatest vertex.
    """
    counts = np.empty(2049, np.int64)
    shift = 0
    while most >> shift > 0:
        for i in range(2049):
            counts[i] = 0
        for i in range(first, last):
            counts[((vertices[order[i]] >> shift) & 2047) + 1] += 1
        counts[0] = first
        for i in range(2048):
            counts[i + 1] += counts[i]
        for i in range(first, last):
            digit = (vertices[order[i]] >> shift) & 2047
            spare[counts[digit]] = order[i]
            counts[digit] += 1
        for i in range(first, last):
            order[i] = spare[i]
        shift += 11
