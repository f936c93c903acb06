"""Kernels over whole forests: build one from sorted edges, scale all its weights.

A forest that is built has full blocks: leaves of the class just below the greatest, so that the
first insertion into one does not split it.
"""

import numpy as np
import numpy.typing as npt

from store import inner, leaf, weights
from store.blocks import (
    CAPACITIES,
    LIMIT,
    NEXT,
    RECORD,
    UNIT,
    Longs,
    Words,
    class_of,
    count_of,
    level_of,
    size_of,
)
from store.jit import kernel
from store.lanes import borrow, wide
from store.rows import first_leaf, next_leaf
from store.samtree import MAX_HEIGHT
from store.updates import NEED, shard_of, workplace

Floats = npt.NDArray[np.float32]


@kernel
def make_leaf(
    mode: int,
    words: Words,
    pools: Longs,
    heap: Longs,
    shard: int,
    at: int,
    ids: Words,
    amounts: Floats,
    first: int,
    last: int,
) -> None:
    """A leaf of the edges `first..last - 1`, as small as it can be; ids ascend."""
    size = class_of(last - first)
    base = leaf.window(wide(ids[first]), wide(ids[last - 1]), wide(CAPACITIES[size]))
    leaf.create(mode, words, pools, heap, shard, at, size, base)
    for e in range(first, last):
        leaf.append(mode, words, at, wide(ids[e]), amounts[e])


@kernel
def make_tree(
    mode: int,
    top: int,
    words: Words,
    pools: Longs,
    heap: Longs,
    shard: int,
    root: int,
    ids: Words,
    amounts: Floats,
    first: int,
    last: int,
) -> None:
    """A tree of the edges `first..last - 1`, level by level; its record is written at `root`."""
    count = last - first
    per_leaf, per_node = wide(CAPACITIES[top - 1]), wide(CAPACITIES[top - 1])
    parts = (count + per_leaf - 1) // per_leaf
    records = np.empty(RECORD * parts, np.int32)
    lows = np.empty(parts, np.int32)
    for j in range(parts):
        start, stop = first + count * j // parts, first + count * (j + 1) // parts
        make_leaf(mode, words, pools, heap, shard, root, ids, amounts, start, stop)
        lows[j] = ids[start]
        for i in range(RECORD):
            records[RECORD * j + i] = words[root + i]
    level = 0
    while parts > 1:
        level += 1
        nodes = (parts + per_node - 1) // per_node
        for j in range(nodes):
            start, stop = parts * j // nodes, parts * (j + 1) // nodes
            size = class_of(stop - start)
            inner.create(mode, words, pools, heap, shard, root, size, wide(level))
            low = lows[start]
            for k in range(start, stop):
                inner.append(mode, words, root, wide(lows[k]), records, wide(RECORD * k))
            lows[j] = low
            for i in range(RECORD):
                records[RECORD * j + i] = words[root + i]
        parts = nodes


@kernel
def build(
    mode: int,
    top: int,
    table: Words,
    words: Words,
    pools: Longs,
    heap: Longs,
    indptr: Longs,
    ids: Words,
    amounts: Floats,
    vertex: int,
) -> int:
    """Build the trees of the vertices from `vertex` on, which have none.

    Args:
        indptr: the edges of vertex v are `indptr[v]..indptr[v + 1] - 1`, ids ascending.

    Returns:
        The vertex before which the arena must grow, or their number where all are done.
    """
    table, words, pools, heap = borrow(table), borrow(words), borrow(pools), borrow(heap)
    while vertex < len(indptr) - 1:
        first, last = indptr[vertex], indptr[vertex + 1]
        if heap[LIMIT] - heap[NEXT] < heap[NEED] + (last - first):
            break
        if last > first:
            shard = shard_of(vertex)
            root = workplace(shard)
            if last - first <= CAPACITIES[top]:
                make_leaf(mode, words, pools, heap, shard, root, ids, amounts, first, last)
            else:
                make_tree(mode, top, words, pools, heap, shard, root, ids, amounts, first, last)
            for i in range(RECORD):
                table[RECORD * vertex + i] = words[root + i]
        vertex += 1
    return vertex


@kernel
def scale_node(mode: int, words: Words, block: int, meta: int, factor: float) -> None:
    """Multiply the weights, or the children's sums, in one block."""
    capacity = wide(CAPACITIES[size_of(meta)])
    weights.scale(mode, words, block * UNIT, capacity, count_of(meta), factor)


@kernel
def scale(mode: int, table: Words, words: Words, count: int, factor: float) -> None:
    """Multiply all weights of the vertices 0..count - 1 by a power of two."""
    path = np.empty((MAX_HEIGHT, 3), np.int64)
    for vertex in range(count):
        block, meta = wide(table[RECORD * vertex]), wide(table[RECORD * vertex + 1])
        if block == 0:
            continue
        if level_of(meta) == 0:
            scale_node(mode, words, block, meta, factor)
            continue
        depth = first_leaf(mode, words, block, meta, path)
        for d in range(depth):
            scale_node(mode, words, path[d, 0], path[d, 1], factor)
        more = True
        while more:
            at = inner.child(mode, path[depth - 1, 1], path[depth - 1, 0], path[depth - 1, 2])
            scale_node(mode, words, wide(words[at]), wide(words[at + 1]), factor)
            more = next_leaf(mode, words, path, depth)
            if more:  # inner nodes that the path has just entered
                d = depth - 1
                while d > 0 and path[d, 2] == 0:
                    scale_node(mode, words, path[d, 0], path[d, 1], factor)
                    d -= 1
