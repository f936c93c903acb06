"""The weight index of a block, whichever of the three it is.

The mode is a number that the compiled code branches on: every block of a graph has the same, so the
branch is always foreseen, and one compile serves all three.
"""

from store import cstable, fstable, sums16
from store.blocks import CUMULATIVE, SUMS, Words
from store.jit import step
from store.words import load_float, single, store_float


@step
def get(mode: int, words: Words, at: int, slot: int) -> float:
    """Weight of a slot."""
    if mode == SUMS:
        return sums16.get(words, at, slot)
    if mode == CUMULATIVE:
        return cstable.get(words, at, slot)
    return fstable.get(words, at, slot)


@step
def put(
    mode: int,
    words: Words,
    at: int,
    capacity: int,
    count: int,
    slot: int,
    weight: float,
    deep: bool,
) -> float:
    """Overwrite the weight of a slot.

    Returns:
        The sum of all where it is wanted, for a node above, and the index has it at hand; else -1.
    """
    if mode == SUMS:
        return sums16.put(words, at, capacity, count, slot, single(weight), deep)
    if mode == CUMULATIVE:
        cstable.add(words, at, count, slot, single(weight) - cstable.get(words, at, slot))
    else:
        fstable.add(words, at, count, slot, single(weight) - fstable.get(words, at, slot))
    return single(-1)


@step
def add(
    mode: int,
    words: Words,
    at: int,
    capacity: int,
    count: int,
    slot: int,
    change: float,
    deep: bool,
) -> float:
    """Add to the weight of a slot; returns as `put`."""
    if mode == SUMS:
        weight = single(sums16.get(words, at, slot) + single(change))
        return sums16.put(words, at, capacity, count, slot, weight, deep)
    if mode == CUMULATIVE:
        cstable.add(words, at, count, slot, single(change))
    else:
        fstable.add(words, at, count, slot, single(change))
    return single(-1)


@step
def push(
    mode: int, words: Words, at: int, capacity: int, count: int, weight: float, deep: bool
) -> float:
    """Append a weight to `count` others; returns as `put`."""
    if mode == SUMS:
        return sums16.put(words, at, capacity, count + 1, count, single(weight), deep)
    if mode == CUMULATIVE:
        cstable.push(words, at, count, weight)
    else:
        fstable.push(words, at, count, weight)
    return single(-1)


@step
def remove(mode: int, words: Words, at: int, capacity: int, count: int, slot: int) -> None:
    """Put the last of `count` weights in a slot's place; a prefix needs nothing to be cut short."""
    if mode == SUMS:
        sums16.remove(words, at, capacity, count, slot)
    elif slot != count - 1:
        put(mode, words, at, capacity, count, slot, get(mode, words, at, count - 1), False)


@step
def total(mode: int, words: Words, at: int, capacity: int, count: int) -> float:
    """Sum of `count` weights."""
    if mode == SUMS:
        return sums16.total(words, at, capacity, count)
    if mode == CUMULATIVE:
        return cstable.total(words, at, count)
    return fstable.total(words, at, count)


@step
def pick(
    mode: int, words: Words, at: int, capacity: int, count: int, first: float, second: float
) -> int:
    """A slot drawn in proportion to its weight, by uniforms in [0, 1); -1: all are 0."""
    if mode == SUMS:
        return sums16.pick(words, at, capacity, count, first, second)
    slot = 0
    if mode == CUMULATIVE:
        slot = cstable.pick(words, at, count, first)
    else:
        slot = fstable.pick(words, at, count, first)
    # Rounding may have led to a slot of weight 0: the nearest that has a weight stands for it.
    below = slot
    while below >= 0 and get(mode, words, at, below) <= 0:
        below -= 1
    if below >= 0:
        return below
    while slot < count and get(mode, words, at, slot) <= 0:
        slot += 1
    return slot if slot < count else -1


@step
def copy(
    mode: int, words: Words, source: int, source_capacity: int, to: int, capacity: int, count: int
) -> None:
    """Copy the index of `count` weights to a block of another capacity."""
    for i in range(count):
        words[to + i] = words[source + i]
    if mode == SUMS and capacity > 16:
        groups = (count + 15) >> 4
        if source_capacity > 16:
            for group in range(groups):
                words[to + capacity + group] = words[source + source_capacity + group]
        else:
            for group in range(groups):
                sums16.fix(words, to, capacity, count, group)


@step
def scale(mode: int, words: Words, at: int, capacity: int, count: int, factor: float) -> None:
    """Multiply all weights by a power of two: sums stay exact, so nothing is added up anew."""
    groups = (count + 15) >> 4 if mode == SUMS and capacity > 16 else 0
    for i in range(count):
        store_float(words, at + i, load_float(words, at + i) * single(factor))
    for i in range(groups):
        k = at + capacity + i
        store_float(words, k, load_float(words, k) * single(factor))
