"""Kernels over whole forests: build one from sorted edges, scale all its weights.

A forest that is built has full blocks: leaves of the class just below the greatest, so that the
first insertion into one does not split it.
"""

import numpy as np
import numpy.typing as npt

from store import inner, leaf, weights
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
    class_of,
    count_of,
    level_of,
    size_of,
)
from store.handle import workplace
from store.jit import kernel, step
from store.order import shard_of
from store.rows import PATH, first_leaf, next_leaf
from store.words import longs_room, onwards, pointer, wide

Floats = npt.NDArray[np.float32]


@step
def make_leaf(
    mode: int,
    top: int,
    words: Words,
    pool: Longs,
    heap: Longs,
    at: int,
    ids: Words,
    amounts: Floats,
    first: int,
    last: int,
) -> None:
    """A leaf of the edges `first..last - 1`, as small as it can be; ids ascend."""
    size = class_of(last - first)
    least, most = wide(ids[first]), wide(ids[last - 1])
    leaf.create(mode, top, words, pool, heap, at, size, least, most)
    for e in range(first, last):
        leaf.append(mode, words, at, wide(ids[e]), amounts[e], False)


@step
def make_tree(
    mode: int,
    top: int,
    words: Words,
    pool: Longs,
    heap: Longs,
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
    kept = np.empty(RECORD * parts, np.int32)
    records = pointer(kept)
    lows = np.empty(parts, np.int32)
    for j in range(parts):
        start, stop = first + count * j // parts, first + count * (j + 1) // parts
        make_leaf(mode, top, words, pool, heap, root, ids, amounts, start, stop)
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
            inner.create(mode, words, pool, heap, root, size, wide(level))
            low = lows[start]
            for k in range(start, stop):
                inner.append(mode, words, root, wide(lows[k]), records, wide(RECORD * k))
            lows[j] = low
            for i in range(RECORD):
                records[RECORD * j + i] = words[root + i]
        parts = nodes
    kept[0] = 0  # its last use


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
    table, words, pools, heap = pointer(table), pointer(words), pointer(pools), pointer(heap)
    here = pointer(ids)
    while vertex < len(indptr) - 1:
        first, last = indptr[vertex], indptr[vertex + 1]
        if heap[LIMIT] - heap[NEXT] < heap[NEED] + (last - first):
            break
        if last > first:
            shard = shard_of(vertex)
            root = workplace(shard)
            pool = onwards(pools, shard * (FREE + 1 + heap[WIDEST]))
            if last - first <= CAPACITIES[top]:
                make_leaf(mode, top, words, pool, heap, root, here, amounts, first, last)
            else:
                make_tree(mode, top, words, pool, heap, root, here, amounts, first, last)
            for i in range(RECORD):
                table[RECORD * vertex + i] = words[root + i]
        vertex += 1
    return vertex


@step
def scale_node(mode: int, words: Words, block: int, meta: int, factor: float) -> None:
    """Multiply the weights, or the children's sums, in one block."""
    capacity = wide(CAPACITIES[size_of(meta)])
    weights.scale(mode, words, block * UNIT, capacity, count_of(meta), factor)


@kernel
def scale(mode: int, table: Words, words: Words, count: int, factor: float) -> None:
    """Multiply all weights of the vertices 0..count - 1 by a power of two."""
    table, words = pointer(table), pointer(words)
    path = longs_room(PATH)
    for vertex in range(count):
        block, meta = wide(table[RECORD * vertex]), wide(table[RECORD * vertex + 1])
        if block == 0:
            continue
        if level_of(meta) == 0:
            scale_node(mode, words, block, meta, factor)
            continue
        depth = first_leaf(mode, words, block, meta, path)
        for d in range(depth):
            scale_node(mode, words, path[3 * d], path[3 * d + 1], factor)
        more = True
        while more:
            at = inner.child(mode, path[3 * depth - 2], path[3 * depth - 3], path[3 * depth - 1])
            scale_node(mode, words, wide(words[at]), wide(words[at + 1]), factor)
            more = next_leaf(mode, words, path, depth)
            if more:  # inner nodes that the path has just entered
                d = depth - 1
                while d > 0 and path[3 * d + 2] == 0:
                    scale_node(mode, words, path[3 * d], path[3 * d + 1], factor)
                    d -= 1
