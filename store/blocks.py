"""The arena: blocks of 32-bit words, given out in size classes and taken back into pools.

    words  (W,)     int32   the arena; a unit is 8 words (32 bytes), a block a number of units
    heap   (5,)     int64   NEXT unit never given out, LIMIT unit, units of a SLAB, units that one
                            change may NEED, and the WIDEST block's units
    pools  (S, P)   int64   a row a shard: CURRENT and END of its slab, units in USE, then for each
                            size in units the first free block (its first word: the next one)

A pointer is the number of a block's first unit; 0 is none. A block of 8 units or more starts on a
cache line. A shard is a set of vertices that one thread at a time works on; it takes whole slabs
from the heap, in one atomic step, so that threads need no latch.

A *meta* word tells what a block holds: entries (16 bits), capacity class (8), the form of a leaf's
ids (3), and the level above the leaves (4).

A leaf's ids are offsets from its base, of 16 + h bits: h is 0, 2, 4, 8 or 16 in the forms 0 to 4.
First stand the low halves of all of them, two a word, and then their upper h bits, packed: so a
search reads two bytes an edge, whatever the form, and upper bits only where the low ones are alike.
"""

import numpy as np
import numpy.typing as npt

from store.atomics import fetch_add
from store.jit import inlined, kernel, step
from store.words import wide

Words = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]

FENWICK, CUMULATIVE, SUMS = 0, 1, 2

UNIT = 8
NEXT, LIMIT, SLAB, NEED, WIDEST = 0, 1, 2, 3, 4
CURRENT, END, USE, FREE = 0, 1, 2, 3

_SIZES = [
    *(4, 5, 8, 10, 12, 15),  # with ids of 18 bits 5, 10 and 15 edges fill their units
    *range(16, 33, 4),
    *range(40, 49, 8),
    *range(64, 257, 16),
    *range(320, 513, 64),
    *range(640, 1025, 128),
]
CAPACITIES = np.array(_SIZES, np.int64)
WHOLE = 4  # the form in which ids are whole
MAX_HEIGHT = 16
RECORD = 4  # words of a reference: pointer, meta, base, edges below


@kernel
def class_of(count: int) -> int:
    """The least class with room for `count` entries; past the last class, there is none."""
    k = 0
    while CAPACITIES[k] < count:
        k += 1
    return k


@inlined
def span(mode: int, capacity: int) -> int:
    """Words of the weight index of a block."""
    if mode == SUMS and capacity > 16:
        return capacity + ((capacity + 15) >> 4)
    return capacity


@inlined
def upper_bits(form: int) -> int:
    """Bits of an id above its low half."""
    return (1 << form) & ~1


@kernel
def leaf_units(mode: int, capacity: int, form: int) -> int:
    """Units of a leaf: weight index, then ids."""
    need = 4 * span(mode, capacity) + 2 * capacity + ((capacity * upper_bits(form) + 7) >> 3)
    units = (need + 4 * UNIT - 1) // (4 * UNIT)
    return units if units < 8 else (units + 1) & ~1


@kernel
def inner_units(mode: int, capacity: int) -> int:
    """Units of an inner node: weight index, then separators, then a record a child."""
    need = span(mode, capacity) + (1 + RECORD) * capacity
    units = (need + UNIT - 1) // UNIT
    return units if units < 8 else (units + 1) & ~1


@step
def pack(count: int, size: int, form: int, level: int) -> int:
    """A meta word: entries, capacity class, form of the ids, level."""
    return count | (size << 16) | (form << 24) | (level << 27)


@inlined
def count_of(meta: int) -> int:
    """Entries in the block."""
    return meta & 0xFFFF


@inlined
def size_of(meta: int) -> int:
    """Capacity class of the block."""
    return (meta >> 16) & 0xFF


@inlined
def form_of(meta: int) -> int:
    """Form of a leaf's ids."""
    return (meta >> 24) & 7


@inlined
def level_of(meta: int) -> int:
    """0 for a leaf, else 1 more than its children's."""
    return meta >> 27


@step
def allocate(words: Words, pool: Longs, heap: Longs, units: int) -> int:
    """A block; the heap has been checked to have room."""
    pool[USE] += units
    block = wide(pool[FREE + units])
    if block > 0:
        pool[FREE + units] = words[block * UNIT]
        return block
    for larger in range(units + 8, heap[WIDEST] + 1):
        block = wide(pool[FREE + larger])
        if block > 0:  # no block of this size is free: cut one off a larger one
            pool[FREE + larger] = words[block * UNIT]
            rest, size = block + units, larger - units
            if rest & 1:
                words[rest * UNIT] = pool[FREE + 1]
                pool[FREE + 1] = rest
                rest, size = rest + 1, size - 1
            words[rest * UNIT] = pool[FREE + size]
            pool[FREE + size] = rest
            return block
    block = wide(pool[CURRENT])
    if units >= 8 and block & 1:  # on a cache line; the unit before it serves a small leaf
        if block < pool[END]:
            words[block * UNIT] = pool[FREE + 1]
            pool[FREE + 1] = block
        block += 1
    if block + units > pool[END]:
        rest = pool[END] - block
        if 0 < rest <= heap[WIDEST]:
            words[block * UNIT] = pool[FREE + rest]
            pool[FREE + rest] = block
        block = fetch_add(heap, NEXT, heap[SLAB])
        pool[END] = block + heap[SLAB]
    pool[CURRENT] = block + units
    return block


@step
def release(words: Words, pool: Longs, block: int, units: int) -> None:
    """Give a block back to its shard's pool."""
    pool[USE] -= units
    words[block * UNIT] = pool[FREE + units]
    pool[FREE + units] = block
