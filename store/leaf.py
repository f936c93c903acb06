"""A leaf: ids and weights of up to c edges, in no order.

Layout of its block: the weight index (store/weights.py), then the ids: their low halves, two a
word, then their upper bits (store/blocks.py). A search compares 16 or 32 low halves at a time.
Deletion puts the last edge in the gap.

A node is known by its record, four words of the arena: pointer, meta, base, edges below. It stands
in the node's parent. A tree's top node has it in the vertex table; while the tree is worked on, it
stands in the arena too (store/samtree.py).

Source: compression of the ids inside samtree nodes is from X. Huang et al., "PlatoD2GL: An
Efficient Dynamic Deep Graph Learning System for Graph Neural Network Training on Billion-Scale
Graphs", ICDE 2024; the form of it is ours.
"""

from store import weights
from store.blocks import (
    CAPACITIES,
    UNIT,
    Longs,
    Words,
    allocate,
    count_of,
    form_of,
    leaf_units,
    pack,
    release,
    size_of,
    span,
    upper_bits,
)
from store.jit import inlined, step
from store.lanes import match_halves, match_more_halves
from store.words import load_byte, load_half, load_pair, lowest, store_byte, store_half, wide

UNKNOWN, ABSENT = -1, -2  # in place of a slot
VECTOR = 16  # a leaf that is not larger has no sums, and is drawn from in one step


@inlined
def upper_at(words: Words, ids: int, capacity: int, bits: int, slot: int) -> int:
    """The upper bits of the id in a slot."""
    at = slot * bits
    # Where there are none, what is read, and masked, is the last sum: its line is at hand.
    start = 4 * ids + (2 * capacity if bits else -4)
    return (load_pair(words, start + (at >> 3)) >> (at & 7)) & ((1 << bits) - 1)


@inlined
def id_at(words: Words, ids: int, capacity: int, bits: int, base: int, slot: int) -> int:
    """The id in a slot; `ids` is the word where the leaf's ids start, `bits` their upper bits."""
    upper = upper_at(words, ids, capacity, bits, slot)
    return base + load_half(words, 2 * ids + slot) + (upper << 16)


@inlined
def set_id(
    words: Words, ids: int, capacity: int, bits: int, base: int, slot: int, number: int
) -> None:
    """Write an id that the leaf can hold."""
    offset = number - base
    store_half(words, 2 * ids + slot, offset)
    if bits:
        upper, at = offset >> 16, slot * bits
        byte = 4 * ids + 2 * capacity + (at >> 3)
        if bits < 8:
            shift = at & 7
            others = load_byte(words, byte) & ~(((1 << bits) - 1) << shift)
            upper = others | (upper << shift)
        store_byte(words, byte, upper)
        if bits == 16:
            store_byte(words, byte + 1, upper >> 8)


@step
def find(
    words: Words, ids: int, capacity: int, bits: int, base: int, count: int, number: int
) -> int:
    """The slot that holds `number`, or -1."""
    offset = number - base
    upper = offset >> 16
    if upper >> bits:  # below the base, too
        return -1
    i = 0
    while i < count:
        if capacity > 32:
            mask = match_more_halves(words, 2 * ids + i, offset)
            mask |= match_more_halves(words, 2 * ids + i + 32, offset) << 32
        elif capacity > 16:
            mask = match_more_halves(words, 2 * ids + i, offset)
        else:
            mask = match_halves(words, 2 * ids + i, offset)
        while mask:
            slot = i + wide(lowest(mask))
            if slot >= count:
                return -1
            if upper_at(words, ids, capacity, bits, slot) == upper:
                return slot
            mask &= mask - 1
        i += 64
    return -1


@inlined
def spot(
    words: Words, ids: int, capacity: int, bits: int, base: int, count: int, number: int
) -> int:
    """As `find`, without a branch that depends on whether it is found."""
    offset = number - base
    found, i = wide(-1), 0
    while i < count:
        mask = match_more_halves(words, 2 * ids + i, offset)
        mask |= match_more_halves(words, 2 * ids + i + 32, offset) << 32
        mask &= wide(-1) if count - i >= 64 else (wide(1) << (count - i)) - 1
        some = (mask | -mask) >> 63
        found = (found & ~some) | ((i + lowest(mask | (wide(-1) << 63))) & some)
        i += 64
    upper = offset >> 16
    held = upper_at(words, ids, capacity, bits, max(found, wide(0)))
    if ((upper ^ held) & ~(found >> 63)) != 0:  # another id with these low bits
        found = find(words, ids, capacity, bits, base, count, number)
    return found


@inlined
def find_by(
    words: Words,
    ids: int,
    capacity: int,
    bits: int,
    base: int,
    count: int,
    number: int,
    guess: int,
) -> int:
    """As `find`, in one look where the guess is right; any slot may be guessed, ABSENT is known."""
    if 0 <= guess < count and id_at(words, ids, capacity, bits, base, guess) == number:
        return guess
    if guess == ABSENT:
        return wide(-1)
    return find(words, ids, capacity, bits, base, count, number)


@step
def filled(mode: int, top: int, size: int, form: int) -> int:
    """The greatest class that takes no more units than this one."""
    units = leaf_units(mode, CAPACITIES[size], form)
    while (
        size < top
        and CAPACITIES[size] != VECTOR
        and leaf_units(mode, CAPACITIES[size + 1], form) == units
    ):
        size += 1
    return size


@step
def shape(mode: int, top: int, size: int, least: int, most: int) -> tuple[int, int, int]:
    """Class, form and base of a leaf of at least a class, for the ids `least..most`.

    The class is the greatest, and the form the widest, that take no more units than are needed.
    """
    form = 0
    while (most - least) >> (16 + upper_bits(form)):
        form += 1
    units = leaf_units(mode, CAPACITIES[size], form)
    size = filled(mode, top, size, form)
    if form == 0 and leaf_units(mode, CAPACITIES[size], wide(1)) == units:
        form = 1
    reach = 16 + upper_bits(form)
    base = wide(0)
    if most >> reach:
        base = max(base, (least + most + 1) // 2 - (1 << (reach - 1)))
    return size, form, base


@step
def read_ids(
    words: Words, ids: int, capacity: int, bits: int, base: int, count: int, out: Words
) -> None:
    """Write all ids of a leaf to `out`, shape (count,)."""
    for i in range(count):
        out[i] = base + load_half(words, 2 * ids + i)
    if bits:
        for i in range(count):
            out[i] += upper_at(words, ids, capacity, bits, i) << 16


@step
def write_ids(
    words: Words, ids: int, capacity: int, bits: int, base: int, count: int, numbers: Words
) -> None:
    """Write `numbers[:count]` as the ids of a leaf."""
    for i in range(count):
        store_half(words, 2 * ids + i, numbers[i] - base)
    start = 4 * ids + 2 * capacity
    if bits == 16:
        for i in range(count):
            upper = (numbers[i] - base) >> 16
            store_byte(words, start + 2 * i, upper)
            store_byte(words, start + 2 * i + 1, upper >> 8)
    elif bits:
        each = wide(8 // bits)  # ids in a byte
        for i in range(0, count, each):
            packed = 0
            for j in range(each):
                packed |= (((numbers[i + j] - base) >> 16) & ((1 << bits) - 1)) << (bits * j)
            store_byte(words, start, packed)
            start += 1


@step
def extent(numbers: Words, count: int) -> tuple[int, int]:
    """Least and greatest of `count` > 0 ids."""
    least, most = numbers[0], numbers[0]
    for i in range(1, count):
        least = min(least, numbers[i])
        most = max(most, numbers[i])
    return wide(least), wide(most)


@step
def grow(mode: int, top: int, words: Words, pool: Longs, heap: Longs, at: int, size: int) -> None:
    """Move a leaf to a block of a greater class, its ids held as they are: copied in planes."""
    block, meta = wide(words[at]), wide(words[at + 1])
    count, form, old = count_of(meta), form_of(meta), wide(CAPACITIES[size_of(meta)])
    size = filled(mode, top, size, form)
    capacity = wide(CAPACITIES[size])
    new = allocate(words, pool, heap, leaf_units(mode, capacity, form))
    source, to = block * UNIT, new * UNIT
    weights.copy(mode, words, source, old, to, capacity, count)
    low, ids = source + span(mode, old), to + span(mode, capacity)
    for i in range((count + 1) >> 1):
        words[ids + i] = words[low + i]
    start, end = 4 * low + 2 * old, 4 * ids + 2 * capacity
    for i in range((count * upper_bits(form) + 7) >> 3):
        store_byte(words, end + i, load_byte(words, start + i))
    release(words, pool, block, leaf_units(mode, old, form))
    words[at] = new
    words[at + 1] = pack(count, size, form, 0)


@step
def move(
    mode: int,
    top: int,
    words: Words,
    pool: Longs,
    heap: Longs,
    at: int,
    size: int,
    extra: int,
    scratch: Words,
) -> None:
    """Move a leaf to a block of another class, and choose anew how its ids are held.

    Args:
        at: the word where the leaf's record starts.
        size: the new class, with room for the leaf's edges, or a smaller than it will be.
        extra: an id that is about to come in, or -1.
        scratch: room for the leaf's ids.
    """
    block, meta, base = wide(words[at]), wide(words[at + 1]), wide(words[at + 2])
    count, form, old = count_of(meta), form_of(meta), CAPACITIES[size_of(meta)]
    source = block * UNIT
    if extra >= 0 and (extra - base) >> (16 + upper_bits(form)) == 0 and CAPACITIES[size] > old:
        grow(mode, top, words, pool, heap, at, size)
        return
    read_ids(words, source + span(mode, old), old, upper_bits(form), base, count, scratch)
    least, most = max(extra, wide(0)), max(extra, wide(0))
    if count > 0:
        low, high = extent(scratch, count)
        least, most = (min(low, extra), max(high, extra)) if extra >= 0 else (low, high)
    size, new_form, new_base = shape(mode, top, size, least, most)
    capacity, bits = CAPACITIES[size], upper_bits(new_form)

    new = allocate(words, pool, heap, leaf_units(mode, capacity, new_form))
    to = new * UNIT
    weights.copy(mode, words, source, old, to, capacity, count)
    ids = to + span(mode, capacity)
    write_ids(words, ids, capacity, bits, new_base, count, scratch)
    release(words, pool, block, leaf_units(mode, old, form))
    words[at] = new
    words[at + 1] = pack(count, size, new_form, 0)
    words[at + 2] = new_base


@step
def append(mode: int, words: Words, at: int, number: int, weight: float, deep: bool) -> float:
    """Add an edge to a leaf that has room, and can hold the id; returns as `weights.put`."""
    block, meta, base = wide(words[at]), wide(words[at + 1]), wide(words[at + 2])
    count, capacity, bits = count_of(meta), CAPACITIES[size_of(meta)], upper_bits(form_of(meta))
    where = block * UNIT
    set_id(words, where + span(mode, capacity), capacity, bits, base, count, number)
    words[at + 1] = meta + 1
    words[at + 3] += 1
    return weights.push(mode, words, where, capacity, count, weight, deep)


@step
def remove(mode: int, words: Words, at: int, slot: int) -> None:
    """Remove the edge in a slot; the last one takes its place."""
    block, meta, base = wide(words[at]), wide(words[at + 1]), wide(words[at + 2])
    count, capacity, bits = count_of(meta), CAPACITIES[size_of(meta)], upper_bits(form_of(meta))
    where = block * UNIT
    ids = where + span(mode, capacity)
    last = count - 1
    if slot != last:
        number = id_at(words, ids, capacity, bits, base, last)
        set_id(words, ids, capacity, bits, base, slot, number)
    words[at + 1] = meta - 1
    words[at + 3] -= 1
    weights.remove(mode, words, where, capacity, count, slot)


@inlined
def fits(capacity: int, meta: int, base: int, number: int) -> bool:
    """Whether a leaf has room for one more edge, and can hold this id."""
    reach = 16 + upper_bits(form_of(meta))
    return count_of(meta) < capacity and (number - base) >> reach == 0


@step
def drop(mode: int, words: Words, pool: Longs, at: int) -> None:
    """Give a leaf's block back; its record is empty."""
    meta = wide(words[at + 1])
    units = leaf_units(mode, CAPACITIES[size_of(meta)], form_of(meta))
    release(words, pool, wide(words[at]), units)
    for i in range(4):
        words[at + i] = 0


@step
def create(
    mode: int,
    top: int,
    words: Words,
    pool: Longs,
    heap: Longs,
    at: int,
    size: int,
    least: int,
    most: int,
) -> None:
    """An empty leaf of a class, or a greater, for the ids `least..most`."""
    size, form, base = shape(mode, top, size, least, most)
    words[at] = allocate(words, pool, heap, leaf_units(mode, CAPACITIES[size], form))
    words[at + 1] = pack(0, size, form, 0)
    words[at + 2] = base
    words[at + 3] = 0
