"""Kernels that read whole rows: all neighbours of a vertex, or the heaviest of them.

A row goes through its tree leaf by leaf, in the order of the leaves' ranges; inside a leaf there is
no order, so what must be sorted is sorted a leaf at a time.
"""

import numpy as np
import numpy.typing as npt

from store import leaf, weights
from store.blocks import (
    CAPACITIES,
    MAX_HEIGHT,
    UNIT,
    Longs,
    Words,
    count_of,
    form_of,
    level_of,
    size_of,
    span,
    upper_bits,
)
from store.inner import child
from store.jit import kernel, step
from store.samtree import lookup
from store.words import longs_room, pointer, store_float, wide, words_room

Floats = npt.NDArray[np.float32]

KEYS = 1024  # edges that a leaf may hold
PATH = 3 * MAX_HEIGHT
GAPS = (701, 301, 132, 57, 23, 10, 4, 1)


@step
def first_leaf(mode: int, words: Words, block: int, meta: int, path: Longs) -> int:
    """Write the way to the first leaf under an inner node; returns the leaf's depth.

    Args:
        path: written, shape (3 * MAX_HEIGHT,): block, meta and the child taken in each inner node.
    """
    depth = 0
    while level_of(meta) > 0:
        path[3 * depth], path[3 * depth + 1], path[3 * depth + 2] = block, meta, 0
        at = child(mode, meta, block, 0)
        block, meta = wide(words[at]), wide(words[at + 1])
        depth += 1
    return depth


@step
def next_leaf(mode: int, words: Words, path: Longs, depth: int) -> bool:
    """Move a path to the next leaf; False where there is none."""
    d = depth - 1
    while d >= 0:
        path[3 * d + 2] += 1
        if path[3 * d + 2] < count_of(path[3 * d + 1]):
            break
        d -= 1
    if d < 0:
        return False
    for down in range(d + 1, depth):
        at = child(mode, path[3 * down - 2], path[3 * down - 3], path[3 * down - 1])
        path[3 * down], path[3 * down + 1] = words[at], words[at + 1]
        path[3 * down + 2] = 0
    return True


@step
def read_leaf(mode: int, words: Words, block: int, meta: int, base: int, keys: Longs) -> int:
    """Write a leaf's edges to `keys`, id in the upper and weight's bits in the lower half."""
    capacity, count, bits = CAPACITIES[size_of(meta)], count_of(meta), upper_bits(form_of(meta))
    where = block * UNIT
    ids = where + span(mode, capacity)
    one = words_room(1)
    for i in range(count):
        store_float(one, 0, weights.get(mode, words, where, i))
        keys[i] = (leaf.id_at(words, ids, capacity, bits, base, i) << 32) | wide(one[0])
    return count


@step
def sort_keys(keys: Longs, count: int) -> None:
    """Sort `keys[:count]` ascending: Shell's way, with M. Ciura's gaps (FCT 2001)."""
    for gap in GAPS:
        for i in range(gap, count):
            key = keys[i]
            j = i - gap
            while j >= 0 and keys[j] > key:
                keys[j + gap] = keys[j]
                j -= gap
            keys[j + gap] = key


@kernel
def read_rows(
    mode: int, table: Words, words: Words, vertices: Words, out: Longs, ids: Words, bits: Words
) -> None:
    """Write the rows of `vertices`, each sorted by id, one after another.

    Args:
        out: the place of each row's first edge, shape (S,).
        ids: written, shape (E,).
        bits: written, the weights' bits, shape (E,).
    """
    table, words = pointer(table), pointer(words)
    keys = longs_room(KEYS)
    path = longs_room(PATH)
    for row in range(len(vertices)):
        record = 4 * wide(vertices[row])
        block, meta = wide(table[record]), wide(table[record + 1])
        if block == 0:
            continue
        base = wide(table[record + 2])
        to = out[row]
        depth = first_leaf(mode, words, block, meta, path)
        more = True
        while more:
            if depth > 0:
                d = depth - 1
                at = child(mode, path[3 * d + 1], path[3 * d], path[3 * d + 2])
                block, meta = wide(words[at]), wide(words[at + 1])
                base = wide(words[at + 2])
            count = read_leaf(mode, words, block, meta, base, keys)
            sort_keys(keys, count)
            for i in range(count):
                ids[to + i] = keys[i] >> 32
                bits[to + i] = keys[i] & 0xFFFFFFFF
            to += count
            more = next_leaf(mode, words, path, depth)


@kernel
def sift(heap: Longs, count: int, key: int) -> None:
    """Put `key` in the place of the least of a heap, and restore its order."""
    at = 0
    while True:
        below = 2 * at + 1
        if below >= count:
            break
        if below + 1 < count and heap[below + 1] < heap[below]:
            below += 1
        if heap[below] >= key:
            break
        heap[at] = heap[below]
        at = below
    heap[at] = key


@kernel
def heaviest(
    mode: int, table: Words, words: Words, vertices: Words, k: int, ids: Words, bits: Words
) -> None:
    """Write the k heaviest edges of each row: heaviest first, the smaller id first among equals.

    Args:
        ids: written, -1 where a row has no more edges, shape (S * k,).
        bits: written, the weights' bits, shape (S * k,).
    """
    table, words = pointer(table), pointer(words)
    keys = longs_room(KEYS)
    best = np.empty(k, np.int64)
    path = longs_room(PATH)
    for row in range(len(vertices)):
        record = 4 * wide(vertices[row])
        block, meta = wide(table[record]), wide(table[record + 1])
        base = wide(table[record + 2])
        for i in range(k):
            best[i] = -1
        depth = first_leaf(mode, words, block, meta, path) if block else 0
        more = block != 0 and k > 0
        while more:
            if depth > 0:
                d = depth - 1
                at = child(mode, path[3 * d + 1], path[3 * d], path[3 * d + 2])
                block, meta = wide(words[at]), wide(words[at + 1])
                base = wide(words[at + 2])
            count = read_leaf(mode, words, block, meta, base, keys)
            for i in range(count):
                # Weights are >= 0, so their bits are in their order; a smaller id counts as more.
                key = ((keys[i] & 0xFFFFFFFF) << 32) | (0x7FFFFFFF - (keys[i] >> 32))
                if key > best[0]:
                    sift(best, k, key)
            more = next_leaf(mode, words, path, depth)
        sort_keys(best, k)
        for i in range(k):
            key = best[k - 1 - i]
            if key < 0:
                ids[row * k + i], bits[row * k + i] = -1, 0
            else:
                ids[row * k + i] = 0x7FFFFFFF - (key & 0x7FFFFFFF)
                bits[row * k + i] = key >> 32


@kernel
def sums(mode: int, table: Words, words: Words, vertices: Words, out: Floats) -> None:
    """Write the sum of each row's weights, shape (S,)."""
    table, words = pointer(table), pointer(words)
    for row in range(len(vertices)):
        record = 4 * wide(vertices[row])
        block, meta = wide(table[record]), wide(table[record + 1])
        out[row] = 0
        if block:
            capacity, count = CAPACITIES[size_of(meta)], count_of(meta)
            out[row] = weights.total(mode, words, block * UNIT, capacity, count)


@kernel
def lookups(
    mode: int, table: Words, words: Words, vertices: Words, numbers: Words, out: Floats
) -> None:
    """Write the weight of each edge, -1 where there is none, shape (E,)."""
    table, words = pointer(table), pointer(words)
    for row in range(len(vertices)):
        found = lookup(mode, table, words, wide(vertices[row]), wide(numbers[row]))
        out[row] = found
