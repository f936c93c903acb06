"""Kernels that change a forest: a batch is sorted by tree, and each tree is changed by one thread.

The vertex table holds a record a vertex (store/leaf.py): shape (4 * N,), int32. While a tree is
changed, its record stands in the arena, in the two units that its shard has for that: then every
record of a tree stands in the arena.
"""

import numpy as np
import numpy.typing as npt

from store.blocks import LIMIT, NEXT, RECORD, UNIT, Longs, Words
from store.jit import kernel
from store.lanes import PAD, prefetch, wide
from store.samtree import MAX_HEIGHT, change

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

SHARDS = 16
NEED = 3  # of the heap: units that must be free before a change, whatever it does
SCRATCH = 2048 + PAD


@kernel
def shard_of(vertex: int) -> int:
    """The shard of a vertex: four records share a cache line, and so a shard."""
    return (vertex >> 2) & (SHARDS - 1)


@kernel
def workplace(shard: int) -> int:
    """The word where a shard's tree has its record while it is changed."""
    return UNIT * 2 * (shard + 1)


@kernel
def change_tree(
    mode: int,
    top: int,
    table: Words,
    words: Words,
    pools: Longs,
    heap: Longs,
    op: int,
    vertex: int,
    number: int,
    weight: float,
    path: Longs,
    scratch: Words,
) -> int:
    """Apply one change; returns 1 where an edge came, -1 where one went, else 0."""
    shard = shard_of(vertex)
    root = workplace(shard)
    for i in range(RECORD):
        words[root + i] = table[RECORD * vertex + i]
    came = change(mode, top, words, pools, heap, shard, root, op, number, weight, path, scratch)
    for i in range(RECORD):
        table[RECORD * vertex + i] = words[root + i]
    return came


@kernel
def apply_rows(
    mode: int,
    top: int,
    table: Words,
    words: Words,
    pools: Longs,
    heap: Longs,
    order: Words,
    vertices: Words,
    numbers: Words,
    amounts: Floats,
    ops: Bytes,
    progress: Longs,
) -> None:
    """Apply the rows `order[progress[0] : progress[1]]`, in this order.

    Args:
        progress: the next row, the end, and the number of edges that came less those that went;
            written. It stops short of the end where the arena must grow first.
    """
    path = np.empty((MAX_HEIGHT, 2), np.int64)
    scratch = np.empty(SCRATCH, np.int32)
    stop = progress[1]
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
        came += change_tree(
            mode,
            top,
            table,
            words,
            pools,
            heap,
            wide(ops[e]),
            wide(vertices[e]),
            wide(numbers[e]),
            amounts[e],
            path,
            scratch,
        )
        at += 1
    progress[0] = at
    progress[2] += came


@kernel
def sort_by_tree(vertices: Words, bits: int, order: Words, spare: Words) -> bool:
    """Order rows by shard, then by vertex, and as they came within one: radix sort, 11 bits a pass.

    Args:
        bits: of the greatest vertex.
        order: written unless the result says otherwise, shape (E,), int32.
        spare: room, shape (E,), int32.

    Returns:
        Whether the result stands in `spare`.
    """
    counts = np.empty(2049, np.int64)
    low = max(bits - 6, 0) + 2  # bits of a vertex without those of its shard
    n = len(vertices)
    for i in range(n):
        order[i] = i
    swapped = False
    for shift in range(0, low + 4, 11):
        source, to = (spare, order) if swapped else (order, spare)
        counts[:] = 0
        for i in range(n):
            v = wide(vertices[i])
            key = (shard_of(v) << low) | ((v >> 6) << 2) | (v & 3)
            counts[((key >> shift) & 2047) + 1] += 1
        for i in range(2048):
            counts[i + 1] += counts[i]
        for i in range(n):
            v = wide(vertices[source[i]])
            key = (shard_of(v) << low) | ((v >> 6) << 2) | (v & 3)
            digit = (key >> shift) & 2047
            to[counts[digit]] = source[i]
            counts[digit] += 1
        swapped = not swapped
    return swapped
