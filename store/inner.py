"""An inner node of a samtree: separators, the children's records, and an index over their sums.

Layout of its block: the weight index over the children's sums; then `capacity` separators; then
`capacity` records (pointer, meta, base, edges below). Child k holds the ids from separator k up to
separator k + 1; separator 0 is not looked at.
"""

from store import weights
from store.blocks import (
    CAPACITIES,
    RECORD,
    UNIT,
    Longs,
    Words,
    allocate,
    count_of,
    inner_units,
    level_of,
    pack,
    release,
    size_of,
    span,
)
from store.jit import inlined, step
from store.lanes import LANES, others_up_to
from store.words import load_float, store_float, wide


@inlined
def separators(mode: int, meta: int, block: int) -> int:
    """The word where a node's separators start."""
    return block * UNIT + span(mode, CAPACITIES[size_of(meta)])


@inlined
def child(mode: int, meta: int, block: int, k: int) -> int:
    """The word where the record of child k starts."""
    capacity = wide(CAPACITIES[size_of(meta)])
    return block * UNIT + span(mode, capacity) + capacity + RECORD * k


@step
def route(words: Words, at: int, count: int, number: int) -> int:
    """The child under whose separators `number` falls: halving without a branch, then one look."""
    low = 0
    left = count
    while left > LANES:
        half = left >> 1
        below = (wide(words[at + low + half]) - number - 1) >> 63  # all bits, or none
        low += half & below
        left -= half
    return low + others_up_to(words, at + low + 1, left - 1, number)


@inlined
def holds(words: Words, at: int, count: int, number: int, k: int) -> bool:
    """Whether `number` falls under child `k`; not where there is no such child."""
    if k < 0 or k >= count or (k > 0 and number < words[at + k]):
        return False
    return k == count - 1 or number < wide(words[at + k + 1])


@inlined
def route_by(words: Words, at: int, count: int, number: int, guess: int) -> int:
    """As `route`, in two looks where the guess is right; a guess may be any number."""
    if holds(words, at, count, number, guess):
        return guess
    return route(words, at, count, number)


@step
def total(mode: int, words: Words, at: int) -> float:
    """Sum of the weights below the node, leaf or inner, whose record starts at word `at`."""
    block, meta = wide(words[at]), wide(words[at + 1])
    return weights.total(mode, words, block * UNIT, CAPACITIES[size_of(meta)], count_of(meta))


@step
def create(
    mode: int,
    words: Words,
    pool: Longs,
    heap: Longs,
    at: int,
    size: int,
    level: int,
) -> None:
    """An inner node without children, of a class."""
    units = inner_units(mode, CAPACITIES[size])
    words[at] = allocate(words, pool, heap, units)
    words[at + 1] = pack(0, size, 0, level)
    words[at + 2] = 0
    words[at + 3] = 0


@step
def append(mode: int, words: Words, at: int, separator: int, records: Words, source: int) -> None:
    """Add a last child, whose record is copied from `records[source:]`; there is room."""
    block, meta = wide(words[at]), wide(words[at + 1])
    count = count_of(meta)
    to = child(mode, meta, block, count)
    for i in range(RECORD):
        words[to + i] = records[source + i]
    words[separators(mode, meta, block) + count] = separator
    mass = total(mode, words, to)
    weights.push(mode, words, block * UNIT, CAPACITIES[size_of(meta)], count, mass, False)
    words[at + 1] = meta + 1
    words[at + 3] += records[source + 3]


@step
def insert(
    mode: int,
    words: Words,
    pool: Longs,
    heap: Longs,
    at: int,
    k: int,
    separator: int,
    source: int,
    scratch: Words,
) -> None:
    """Put a second part beside child k, whose own record already holds its first part.

    The edges below the node are no more than before.

    Args:
        at: the word where the node's record starts; the node is not full at the top class.
        separator: the least id that belongs to the second part.
        source: the word where the second part's record starts.
        scratch: room for the node's sums.
    """
    block, meta = wide(words[at]), wide(words[at + 1])
    count, size = count_of(meta), size_of(meta)
    capacity = CAPACITIES[size]
    for j in range(count):
        store_float(scratch, j, weights.get(mode, words, block * UNIT, j))
    from_separators, from_records = separators(mode, meta, block), child(mode, meta, block, 0)
    old = block
    if count == capacity:
        size += 1
        block = allocate(words, pool, heap, inner_units(mode, CAPACITIES[size]))
    meta = pack(count + 1, size, 0, level_of(meta))
    to_separators, to_records = separators(mode, meta, block), child(mode, meta, block, 0)
    for j in range(count - 1, -1, -1):  # from the end: the place may be the same
        to = j + 1 if j > k else j
        words[to_separators + to] = words[from_separators + j]
        for i in range(RECORD):
            words[to_records + RECORD * to + i] = words[from_records + RECORD * j + i]
    words[to_separators + k + 1] = separator
    for i in range(RECORD):
        words[to_records + RECORD * (k + 1) + i] = words[source + i]

    for j in range(count + 1):
        if j == k or j == k + 1:
            mass = total(mode, words, to_records + RECORD * j)
        else:
            mass = load_float(scratch, j if j < k else j - 1)
        weights.push(mode, words, block * UNIT, CAPACITIES[size], j, mass, False)
    if block != old:
        release(words, pool, old, inner_units(mode, capacity))
    words[at] = block
    words[at + 1] = meta


@step
def erase(mode: int, words: Words, at: int, k: int, scratch: Words) -> None:
    """Remove child k's record; its block is the caller's business.

    What is left of it takes over its range: the ids before the next separator go to the child
    before it, or, where it was the first, to the next.
    """
    block, meta = wide(words[at]), wide(words[at + 1])
    count, capacity = count_of(meta), CAPACITIES[size_of(meta)]
    for j in range(count):
        store_float(scratch, j, weights.get(mode, words, block * UNIT, j))
    here, records = separators(mode, meta, block), child(mode, meta, block, 0)
    first = words[here]
    for j in range(k, count - 1):
        words[here + j] = words[here + j + 1]
        for i in range(RECORD):
            words[records + RECORD * j + i] = words[records + RECORD * (j + 1) + i]
    if k == 0:
        words[here] = first
    for j in range(count - 1):
        mass = load_float(scratch, j if j < k else j + 1)
        weights.push(mode, words, block * UNIT, capacity, j, mass, False)
    words[at + 1] = meta - 1
