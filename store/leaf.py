"""A leaf: ids and weights of up to c edges, in no order.

Layout of its block: the weight index (store/weights.py), then the ids; int32 each, or, in a narrow
leaf, 16-bit offsets from the leaf's base, two a word. A search compares 16 ids at a time. Deletion
puts the last edge in the gap.

A node is known by its record, four words of the arena: pointer, meta, base, edges below. It stands
in the node's parent. A tree's top node has it in the vertex table; while the tree is worked on, it
stands in the arena too (store/samtree.py).

Source: compression of the ids inside samtree nodes is from X. Huang et al., "PlatoD2GL: An
Efficient Dynamic Deep Graph Learning System for Graph Neural Network Training on Billion-Scale
Graphs", ICDE 2024; the form of it is ours.
"""

import numpy as np

from store import weights
from store.blocks import (
    CAPACITIES,
    NARROW_FROM,
    UNIT,
    Longs,
    Words,
    allocate,
    count_of,
    leaf_units,
    narrow_of,
    release,
    size_of,
    span,
)
from store.jit import inlined, step
from store.lanes import load_half, lowest, match_halves, match_words, store_half, wide

WINDOW = 65536  # ids that 16 bits can tell apart


@inlined
def id_at(words: Words, ids: int, narrow: int, base: int, slot: int) -> int:
    """The id in a slot; `ids` is the word where the leaf's ids start."""
    if narrow:
        return base + load_half(words, 2 * ids + slot)
    return wide(words[ids + slot])


@inlined
def set_id(words: Words, ids: int, narrow: int, base: int, slot: int, number: int) -> None:
    """Write an id that the leaf can hold."""
    if narrow:
        store_half(words, 2 * ids + slot, number - base)
    else:
        words[ids + slot] = number


@inlined
def find(words: Words, ids: int, narrow: int, base: int, count: int, number: int) -> int:
    """The slot that holds `number`, or -1."""
    if narrow:
        offset = number - base
        if offset < 0 or offset >= WINDOW:
            return -1
        for i in range(0, count, 16):
            mask = match_halves(words, 2 * ids + i, np.int32(offset))
            if mask:
                slot = i + lowest(mask)
                return slot if slot < count else -1
        return -1
    for i in range(0, count, 16):
        mask = match_words(words, ids + i, np.int32(number))
        if mask:
            slot = i + lowest(mask)
            return slot if slot < count else -1
    return -1


@step
def window(least: int, most: int, capacity: int) -> int:
    """The base from which 16 bits reach all of `least..most`, or -1 where a leaf is to be wide."""
    if capacity < NARROW_FROM or most - least >= WINDOW:
        return -1
    return max(0, (least + most + 1) // 2 - WINDOW // 2)


@step
def extent(words: Words, ids: int, narrow: int, base: int, count: int) -> tuple[int, int]:
    """Least and greatest id of a leaf that is not empty."""
    least = id_at(words, ids, narrow, base, 0)
    most = least
    for i in range(1, count):
        number = id_at(words, ids, narrow, base, i)
        least = min(least, number)
        most = max(most, number)
    return least, most


@step
def move(
    mode: int,
    words: Words,
    pool: Longs,
    heap: Longs,
    at: int,
    size: int,
    extra: int,
) -> None:
    """Move a leaf to a block of another class, and choose anew how its ids are held.

    Args:
        at: the word where the leaf's record starts.
        size: the new class, with room for the leaf's edges.
        extra: an id that is about to come in, or -1.
    """
    block, meta, base = wide(words[at]), wide(words[at + 1]), wide(words[at + 2])
    count, narrow, old = count_of(meta), narrow_of(meta), CAPACITIES[size_of(meta)]
    source = block * UNIT
    ids = source + span(mode, old)
    capacity = CAPACITIES[size]

    least, most = extra, extra
    if count > 0:
        least, most = extent(words, ids, narrow, base, count)
        if extra >= 0:
            least, most = min(least, extra), max(most, extra)
    new_base = window(least, most, capacity) if most >= 0 else -1
    new_narrow = 1 if new_base >= 0 else 0
    new_base = max(new_base, 0)

    new = allocate(words, pool, heap, leaf_units(mode, capacity, new_narrow))
    to = new * UNIT
    weights.copy(mode, words, source, old, to, capacity, count)
    new_ids = to + span(mode, capacity)
    for i in range(count):
        number = id_at(words, ids, narrow, base, i)
        set_id(words, new_ids, new_narrow, new_base, i, number)
    release(words, pool, block, leaf_units(mode, old, narrow))
    words[at] = new
    words[at + 1] = count | (size << 16) | (new_narrow << 24)
    words[at + 2] = new_base


@step
def append(mode: int, words: Words, at: int, number: int, weight: float) -> None:
    """Add an edge to a leaf that has room, and can hold the id."""
    block, meta, base = wide(words[at]), wide(words[at + 1]), wide(words[at + 2])
    count, capacity = count_of(meta), CAPACITIES[size_of(meta)]
    where = block * UNIT
    set_id(words, where + span(mode, capacity), narrow_of(meta), base, count, number)
    weights.push(mode, words, where, capacity, count, weight)
    words[at + 1] = meta + 1
    words[at + 3] += 1


@step
def remove(mode: int, words: Words, at: int, slot: int) -> None:
    """Remove the edge in a slot; the last one takes its place."""
    block, meta, base = wide(words[at]), wide(words[at + 1]), wide(words[at + 2])
    count, capacity, narrow = count_of(meta), CAPACITIES[size_of(meta)], narrow_of(meta)
    where = block * UNIT
    ids = where + span(mode, capacity)
    last = count - 1
    if slot != last:
        moved = weights.get(mode, words, where, last)
        weights.put(mode, words, where, capacity, count, slot, moved)
        set_id(words, ids, narrow, base, slot, id_at(words, ids, narrow, base, last))
    weights.pop(mode, words, where, capacity, count)
    words[at + 1] = meta - 1
    words[at + 3] -= 1


@inlined
def fits(capacity: int, meta: int, base: int, number: int) -> bool:
    """Whether a leaf has room for one more edge, and can hold this id."""
    if count_of(meta) >= capacity:
        return False
    return narrow_of(meta) == 0 or 0 <= number - base < WINDOW


@step
def drop(mode: int, words: Words, pool: Longs, at: int) -> None:
    """Give a leaf's block back; its record is empty."""
    meta = wide(words[at + 1])
    units = leaf_units(mode, CAPACITIES[size_of(meta)], narrow_of(meta))
    release(words, pool, wide(words[at]), units)
    for i in range(4):
        words[at + i] = 0


@step
def create(
    mode: int,
    words: Words,
    pool: Longs,
    heap: Longs,
    at: int,
    size: int,
    base: int,
) -> None:
    """An empty leaf of a class; `base` >= 0 makes it narrow, -1 wide."""
    narrow = 1 if base >= 0 else 0
    units = leaf_units(mode, CAPACITIES[size], narrow)
    words[at] = allocate(words, pool, heap, units)
    words[at + 1] = (size << 16) | (narrow << 24)
    words[at + 2] = max(base, 0)
    words[at + 3] = 0
