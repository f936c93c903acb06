"""How a forest is changed by a batch: sorted by tree, each tree changed by one thread.

The vertex table holds a record a vertex (store/leaf.py): shape (4 * N,), int32.
"""

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
from store.atomics import fetch_add
from store.blocks import RECORD
from store.handle import EDGES, MODE, SCRATCH, TABLE, WORDS, room_for
from store.jit import Routine
from store.job import (
    AMOUNTS,
    AT,
    FOREST,
    HEADS,
    LATE,
    LEFT,
    MOST,
    OPS,
    ORDER,
    PART,
    PARTS,
    ROWS,
    SPARE,
    STOP,
    TAILS,
)
from store.leaf import UNKNOWN
from store.order import deal_shards, pick_rows, sort_rows
from store.samtree import WAY, change
from store.words import (
    bytes_at,
    floats_at,
    longs_at,
    longs_room,
    prefetch,
    wide,
    words_at,
    words_room,
)

OF_RING = RING - 1


@Routine
def apply_rows(address: int) -> None:
    """Do one part of an update: the job at an address, see store/job.py.

    It stops short of its end where the arena must grow first, and goes on when it is called again;
    `LEFT` says how many rows are left.
    """
    job = longs_at(address)
    path, scratch = longs_room(WAY), words_room(SCRATCH)
    handle = longs_at(job[FOREST])
    table, words = words_at(handle[TABLE]), words_at(handle[WORDS])
    rows, spare, heads = words_at(job[ORDER]), words_at(job[SPARE]), words_at(job[HEADS])
    tails, weights, kinds = words_at(job[TAILS]), floats_at(job[AMOUNTS]), bytes_at(job[OPS])
    if job[STOP] == 0:
        count = job[ROWS]
        if job[PARTS] > 1:
            wanted = deal_shards(heads, count, job[PART], job[PARTS], job[LATE])
            count = pick_rows(heads, count, wanted, rows)
        else:
            for i in range(count):
                rows[i] = i
        if job[MOST]:
            sort_rows(heads, rows, spare, count, job[MOST])
        job[STOP] = count
    stop = job[STOP]
    mode, came = handle[MODE], 0
    children, slots = longs_room(RING), longs_room(RING)
    for i in range(RING):
        children[i] = slots[i] = UNKNOWN
    at = job[AT]
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
    job[AT], job[LEFT] = at, stop - at
    fetch_add(handle, wide(EDGES), came)
