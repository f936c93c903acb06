"""The kernel that changes a forest by a batch: sorted by tree, each tree changed by one thread.

The vertex table holds a record a vertex (store/leaf.py): shape (4 * N,), int32.
"""

import numpy as np
import numpy.typing as npt

from store.ahead import (
    CHILDREN,
    COLUMNS,
    LEAVES,
    NODES,
    RING,
    TREES,
    WEIGHTS,
    ask_child,
    ask_leaf,
    ask_node,
    ask_weights,
)
from store.blocks import RECORD, Longs, Words
from store.handle import MODE, SCRATCH, TABLE, WORDS, room_for
from store.jit import kernel
from store.leaf import UNKNOWN
from store.order import deal_shards, pick_rows, sort_rows
from store.samtree import WAY, change
from store.words import longs_at, longs_room, pointer, prefetch, wide, words_at, words_room

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

OF_RING = RING - 1


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
        order: the rows, where they are not to be sorted; else as many as there are, in their order.
            Where some are to be picked, written first.
        spare: room, as long as `order`.
        progress: the next row, the end, the number of edges that came less those that went, and the
            greatest vertex if the rows are to be sorted, else 0; then which thread this is, and of
            how many, to pick its rows, shape (6,); written. It stops short of the end where the
            arena must grow first.
    """
    path, scratch = longs_room(WAY), words_room(SCRATCH)
    handle = longs_at(forest)
    table, words = words_at(handle[TABLE]), words_at(handle[WORDS])
    if progress[5] > 1:
        wanted = deal_shards(vertices, progress[4], progress[5])
        progress[1], progress[5] = pick_rows(vertices, wanted, order), 1
    stop = progress[1]
    if progress[3]:
        sort_rows(vertices, order, spare, stop, progress[3])
        progress[3] = 0
    rows, heads, tails = pointer(order), pointer(vertices), pointer(numbers)
    weights, kinds = pointer(amounts), pointer(ops)
    mode, came = handle[MODE], 0
    children, slots = longs_room(RING), longs_room(RING)
    for i in range(RING):
        children[i] = slots[i] = UNKNOWN
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
        if at + CHILDREN < stop:
            e, here = wide(rows[at + CHILDREN]), (at + CHILDREN) & OF_RING
            children[here] = ask_child(mode, table, words, wide(heads[e]), wide(tails[e]))
        if at + LEAVES < stop:
            e, here = wide(rows[at + LEAVES]), (at + LEAVES) & OF_RING
            ask_leaf(mode, table, words, wide(heads[e]), children[here])
        if at + WEIGHTS < stop:
            e, here = wide(rows[at + WEIGHTS]), (at + WEIGHTS) & OF_RING
            slots[here] = UNKNOWN
            number = wide(tails[e])
            same = False  # what changes in between do to this very edge is not known yet
            for between in range(WEIGHTS):
                same |= number == wide(tails[rows[at + between]])
            if children[here] != UNKNOWN and not same:
                k = children[here]
                slots[here] = ask_weights(mode, table, words, wide(heads[e]), number, k)
        e, here = wide(rows[at]), at & OF_RING
        vertex, number, op = wide(heads[e]), wide(tails[e]), wide(kinds[e])
        k, slot = children[here], slots[here]
        came += change(handle, vertex, number, weights[e], op, k, slot, path, scratch)
        at += 1
    progress[0] = at
    progress[2] += came
