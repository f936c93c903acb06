"""All weighted draws of a row at once, for the 16-ary index: what makes sampling fast.

A draw waits for a cache line at each step: a node's sums, its weights, the child's record. One
after the other, ten draws wait ten times. Here the draws of a row take each step together: every
line that the next step needs is asked for before the first is looked at. Draws are bit by bit those
of `draws.draw_weighted`.
"""

import numpy as np
import numpy.typing as npt

from store.blocks import (
    CAPACITIES,
    RECORD,
    SUMS,
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
from store.jit import inlined, step
from store.lanes import LANES, find16, pick16, scan16, unpack16
from store.leaf import id_at
from store.random_bits import lower, number, onward, row_key, upper
from store.sums16 import pick
from store.words import floats_room, longs_room, onwards, prefetch, wide, words_room

Floats = npt.NDArray[np.float32]

WIDTH = 32  # draws taken together
BITS, BLOCK, META, BASE, GROUP = 0, 1, 2, 3, 4
FIELDS = 5
STATE = FIELDS * WIDTH
FEW = 4  # groups of a leaf that are scanned before they are drawn from
SCANS = LANES * FEW


@inlined
def small_row(
    words: Words,
    where: int,
    meta: int,
    base: int,
    key: int,
    skip: int,
    k: int,
    out: Words,
    to: int,
    scanned: Floats,
    unpacked: Words,
) -> None:
    """Draw from one leaf of up to 16 edges: scan it once, then look each draw up."""
    count, capacity = count_of(meta), wide(CAPACITIES[size_of(meta)])
    bits = upper_bits(form_of(meta))
    mass = scan16(words, where, count, scanned)
    ids = where + capacity
    if bits <= 4:
        unpack16(words, 2 * ids, 4 * ids + 2 * capacity, form_of(meta), base, unpacked)
        for j in range(k):
            lane = wide(find16(scanned, upper(number(key, skip + j)) * mass))
            out[to + j] = unpacked[lane] if lane >= 0 else -1
        return
    for j in range(k):
        lane = wide(find16(scanned, upper(number(key, skip + j)) * mass))
        out[to + j] = id_at(words, ids, capacity, bits, base, lane) if lane >= 0 else -1


@step
def few_groups(
    words: Words,
    where: int,
    meta: int,
    base: int,
    key: int,
    skip: int,
    k: int,
    out: Words,
    to: int,
) -> None:
    """Draw from one leaf of up to 64 edges, from most groups more than once: scan each first."""
    capacity, count = wide(CAPACITIES[size_of(meta)]), count_of(meta)
    uppers = upper_bits(form_of(meta))
    groups = (count + 15) >> 4
    scanned, scans, masses = floats_room(LANES), floats_room(SCANS), floats_room(FEW)
    unpacked = words_room(SCANS)
    mass = scan16(words, where + capacity, groups, scanned)
    ids = where + span(SUMS, capacity)
    for group in range(groups):
        here = onwards(scans, LANES * group)
        masses[group] = scan16(words, where + 16 * group, min(16, count - 16 * group), here)
        if uppers <= 4:
            half, byte = 2 * ids + 16 * group, 4 * ids + 2 * capacity + 2 * uppers * group
            unpack16(words, half, byte, form_of(meta), base, onwards(unpacked, LANES * group))
    for j in range(k):
        bits = number(key, skip + j)
        group = wide(find16(scanned, upper(bits) * mass))
        lane = wide(-1)
        if group >= 0:
            lane = wide(find16(onwards(scans, LANES * group), lower(bits) * masses[group]))
        slot = 16 * group + lane
        if lane < 0:
            out[to + j] = -1
        elif uppers <= 4:
            out[to + j] = unpacked[slot]
        else:
            out[to + j] = id_at(words, ids, capacity, uppers, base, slot)


@inlined
def leaf_row(
    words: Words,
    where: int,
    meta: int,
    base: int,
    key: int,
    skip: int,
    k: int,
    out: Words,
    to: int,
    scanned: Floats,
    state: Longs,
) -> None:
    """Draw from one leaf of up to 256 edges: find all groups, then all lanes."""
    capacity, count = wide(CAPACITIES[size_of(meta)]), count_of(meta)
    uppers = upper_bits(form_of(meta))
    groups = (count + 15) >> 4
    mass = scan16(words, where + capacity, groups, scanned)
    ids = where + span(SUMS, capacity)
    for j in range(k):
        bits = number(key, skip + j)
        group = wide(find16(scanned, upper(bits) * mass))
        state[FIELDS * j + GROUP] = group
        prefetch(words, where + 16 * group)
        prefetch(words, ids + 8 * group + 4)
    for j in range(k):
        first = 16 * state[FIELDS * j + GROUP]
        if first < 0:
            out[to + j] = -1
            continue
        lanes = min(16, count - first)
        lane = wide(pick16(words, where + first, lanes, lower(number(key, skip + j))))
        slot = first + lane
        out[to + j] = id_at(words, ids, capacity, uppers, base, slot) if lane >= 0 else -1


@inlined
def tree_row(
    words: Words,
    block: int,
    meta: int,
    base: int,
    key: int,
    skip: int,
    k: int,
    out: Words,
    to: int,
    state: Longs,
) -> None:
    """Draw from a tree: all draws go down a level together; all leaves are equally deep."""
    for j in range(k):
        state[FIELDS * j + BITS] = wide(number(key, skip + j))
        state[FIELDS * j + BLOCK], state[FIELDS * j + META], state[FIELDS * j + BASE] = (
            block,
            meta,
            base,
        )
    for level in range(level_of(meta), -1, -1):
        for j in range(k):
            if state[FIELDS * j + BLOCK] == 0:
                continue
            meta = state[FIELDS * j + META]
            capacity, count = wide(CAPACITIES[size_of(meta)]), count_of(meta)
            where = state[FIELDS * j + BLOCK] * UNIT
            group = 0
            if capacity > 256:
                group = -2  # more sums than a vector has lanes: the second step does both
            elif capacity > 16:
                groups = (count + 15) >> 4
                group = wide(
                    pick16(words, where + capacity, groups, upper(state[FIELDS * j + BITS]))
                )
                prefetch(words, where + 16 * group)
                if level == 0:
                    ids = where + span(SUMS, capacity)
                    prefetch(words, ids + 8 * group + 4)
                else:
                    prefetch(words, child(SUMS, meta, state[FIELDS * j + BLOCK], 16 * group))
                    prefetch(words, child(SUMS, meta, state[FIELDS * j + BLOCK], 16 * group + 8))
            state[FIELDS * j + GROUP] = group
        for j in range(k):
            if state[FIELDS * j + BLOCK] == 0:
                continue
            meta, block, bits = (
                state[FIELDS * j + META],
                state[FIELDS * j + BLOCK],
                state[FIELDS * j + BITS],
            )
            capacity, count = wide(CAPACITIES[size_of(meta)]), count_of(meta)
            where = block * UNIT
            group = state[FIELDS * j + GROUP]
            slot = -1
            if group == -2:
                slot = wide(pick(words, where, capacity, count, upper(bits), lower(bits)))
            elif group >= 0:
                lanes = min(16, count - 16 * group)
                uniform = lower(bits) if capacity > 16 else upper(bits)
                slot = wide(pick16(words, where + 16 * group, lanes, uniform))
                if slot >= 0:
                    slot += 16 * group
            if slot < 0:
                state[FIELDS * j + BLOCK] = 0
                out[to + j] = -1
            elif level == 0:
                ids = where + span(SUMS, capacity)
                uppers, base = upper_bits(form_of(meta)), state[FIELDS * j + BASE]
                out[to + j] = id_at(words, ids, capacity, uppers, base, slot)
            else:
                at = child(SUMS, meta, block, slot)
                below, below_meta = wide(words[at]), wide(words[at + 1])
                state[FIELDS * j + BLOCK], state[FIELDS * j + META] = below, below_meta
                state[FIELDS * j + BASE] = words[at + 2]
                state[FIELDS * j + BITS] = wide(onward(bits))
                prefetch(words, below * UNIT + wide(CAPACITIES[size_of(below_meta)]))


@step
def draw_volleys(
    table: Words,
    words: Words,
    vertices: Words,
    k: int,
    seed: int,
    first: int,
    last: int,
    out: Words,
) -> None:
    """Write k draws of each of the rows `first..last - 1` to `out`, shape (S * k,)."""
    scanned, unpacked, state = floats_room(LANES), words_room(LANES), longs_room(STATE)
    for row in range(first, last):
        if row + 16 < last:
            prefetch(table, RECORD * wide(vertices[row + 16]))
        if row + 8 < last:
            ahead = RECORD * wide(vertices[row + 8])
            where, meta = UNIT * wide(table[ahead]), wide(table[ahead + 1])
            capacity = wide(CAPACITIES[size_of(meta)])
            prefetch(words, where)
            prefetch(words, where + capacity)  # its sums, or, in a small leaf, its ids
            prefetch(words, where + capacity + (capacity >> 1))
            if 16 < capacity <= 16 * FEW:  # few_groups reads all of it
                for line in range(16, capacity, 16):
                    prefetch(words, where + line)
                for line in range(16, 20 + (capacity >> 1), 16):
                    prefetch(words, where + capacity + line)
        record = RECORD * wide(vertices[row])
        block, meta = wide(table[record]), wide(table[record + 1])
        base = wide(table[record + 2])
        key = row_key(seed, row)
        capacity = wide(CAPACITIES[size_of(meta)])
        where = block * UNIT
        for skip in range(0, k, WIDTH):
            some = min(WIDTH, k - skip)
            to = row * k + skip
            if block == 0:
                for j in range(some):
                    out[to + j] = -1
            elif level_of(meta) == 0 and capacity <= 16:
                small_row(words, where, meta, base, key, skip, some, out, to, scanned, unpacked)
            elif level_of(meta) == 0 and capacity <= 16 * FEW and capacity <= 8 * some:
                few_groups(words, where, meta, base, key, skip, some, out, to)
            elif level_of(meta) == 0 and capacity <= 256:
                leaf_row(words, where, meta, base, key, skip, some, out, to, scanned, state)
            else:
                tree_row(words, block, meta, base, key, skip, some, out, to, state)
