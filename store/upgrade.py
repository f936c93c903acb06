"""Forests of snapshots of version 1, made into those of today where they lie.

Then a leaf's ids were 16-bit offsets, as in form 0 now, or whole and one after another; there were
fewer capacity classes; and a meta word held entries (16 bits), class (8), whether the ids were
16-bit offsets (1), and the level (5). Blocks were as large as they are now, and slots are left as
they were: so an old snapshot answers and draws as it did.
"""

import numpy as np

from store.blocks import (
    CAPACITIES,
    MAX_HEIGHT,
    RECORD,
    UNIT,
    WHOLE,
    Words,
    count_of,
    form_of,
    level_of,
    pack,
    size_of,
    span,
    upper_bits,
)
from store.inner import child
from store.jit import kernel, step
from store.leaf import write_ids
from store.words import longs_room, pointer, wide, words_room

_OLD = [*range(4, 33, 4), *range(48, 129, 16), *range(160, 257, 32), *range(320, 513, 64)]
_OLD += range(640, 1025, 128)
CLASSES = np.searchsorted(CAPACITIES, _OLD)  # today's class of each old one
MOST = 1024  # entries of a node
STACK = 2 * MOST * MAX_HEIGHT


@step
def renewed(meta: int) -> int:
    """An old meta word as one of today."""
    form = 0 if (meta >> 24) & 1 or meta >> 25 else WHOLE
    return pack(meta & 0xFFFF, CLASSES[(meta >> 16) & 0xFF], form, meta >> 25)


@kernel
def upgrade(mode: int, table: Words, words: Words, vertices: int) -> None:
    """Make the trees of the vertices 0..vertices - 1 such as are made today."""
    table, words = pointer(table), pointer(words)
    stack, numbers = longs_room(STACK), words_room(MOST)
    for vertex in range(vertices):
        if table[RECORD * vertex] == 0:
            continue
        meta = wide(renewed(wide(table[RECORD * vertex + 1])))
        table[RECORD * vertex + 1] = meta
        stack[0], stack[1] = table[RECORD * vertex], meta
        waiting = 2
        while waiting > 0:
            waiting -= 2
            block, meta = stack[waiting], stack[waiting + 1]
            count, capacity = count_of(meta), CAPACITIES[size_of(meta)]
            if level_of(meta) > 0:
                for k in range(count):
                    at = child(mode, meta, block, k)
                    words[at + 1] = renewed(wide(words[at + 1]))
                    stack[waiting], stack[waiting + 1] = words[at], words[at + 1]
                    waiting += 2
            elif form_of(meta) == WHOLE:
                ids = block * UNIT + span(mode, capacity)
                for i in range(count):
                    numbers[i] = words[ids + i]
                write_ids(words, ids, capacity, upper_bits(WHOLE), wide(0), count, numbers)
