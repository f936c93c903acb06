"""Weight index of raw weights and one exact sum for every sixteen: the default.

Layout at `at`: the weights, `capacity` words; then, where the capacity is above 16, the sum of each
group of 16 weights. A change writes one weight and computes its group's sum anew: 16 lanes, one
vector step. Nothing is ever added to a sum, so nothing drifts: a weight reads back bit by bit, and
a sum depends on the 16 weights alone. A draw scans at most 16 sums, then 16 weights: two cache
lines, where a Fenwick tree of 256 entries takes eight dependent steps.

Source: ours. The idea of a B-ary sum tree with a cache line a node is old; see G. Pibiri and
R. Venturini, "Practical trade-offs for the prefix-sum problem", Software: Practice and Experience
51(5), 2021.
"""

import numpy as np

from store.blocks import Words
from store.jit import inlined, step
from store.lanes import patch16, pick16, sum16
from store.words import load_float, single, store_float


@inlined
def fix(words: Words, at: int, capacity: int, count: int, group: int) -> None:
    """Compute the sum of one group anew."""
    start = group * 16
    lanes = np.int32(min(16, count - start))
    store_float(words, at + capacity + group, sum16(words, at + start, lanes))


@inlined
def get(words: Words, at: int, slot: int) -> float:
    """Weight of a slot."""
    return load_float(words, at + slot)


@inlined
def total_with(words: Words, sums: int, groups: int, group: int, part: float) -> float:
    """As `total`, as if `part` stood as the sum of a group already."""
    result = single(0)
    for first in range(0, groups, 16):
        some = np.int32(min(16, groups - first))
        lane = np.int32(group - first)  # no lane at all, where it is in another sixteen
        result += patch16(words, sums + first, some, lane, part)
    return result


@inlined
def put(
    words: Words, at: int, capacity: int, count: int, slot: int, weight: float, deep: bool
) -> float:
    """Overwrite the weight of a slot, or append it as the last of `count`.

    Returns:
        The total where it is wanted, else -1.
    """
    if capacity <= 16:
        whole = single(-1)
        if deep:
            whole = patch16(words, at, np.int32(count), np.int32(slot), weight)
        store_float(words, at + slot, weight)
        return whole
    group = slot >> 4
    lanes = np.int32(min(16, count - 16 * group))
    part = patch16(words, at + 16 * group, lanes, np.int32(slot & 15), weight)
    whole = single(-1)
    if deep:
        whole = total_with(words, at + capacity, (count + 15) >> 4, group, part)
    store_float(words, at + slot, weight)
    store_float(words, at + capacity + group, part)
    return whole


@step
def remove(words: Words, at: int, capacity: int, count: int, slot: int) -> None:
    """Put the last of `count` weights in a slot's place."""
    last = count - 1
    if slot != last:
        put(words, at, capacity, count, slot, load_float(words, at + last), False)
    if capacity > 16:
        part = sum16(words, at + 16 * (last >> 4), np.int32(last & 15))
        store_float(words, at + capacity + (last >> 4), part)


@inlined
def total(words: Words, at: int, capacity: int, count: int) -> float:
    """Sum of `count` weights."""
    if capacity <= 16:
        return sum16(words, at, np.int32(count))
    groups = (count + 15) >> 4
    sums = at + capacity
    result = sum16(words, sums, np.int32(min(16, groups)))
    for first in range(16, groups, 16):
        result += sum16(words, sums + first, np.int32(min(16, groups - first)))
    return result


@step
def pick(words: Words, at: int, capacity: int, count: int, first: float, second: float) -> int:
    """A slot drawn in proportion to its weight, by two uniforms in [0, 1); -1: all are 0."""
    if capacity <= 16:
        return pick16(words, at, np.int32(count), first)
    groups = (count + 15) >> 4
    group = 0
    if groups <= 16:
        group = pick16(words, at + capacity, np.int32(groups), first)
    else:
        group = _pick_group(words, at + capacity, groups, first)
    if group < 0:
        return -1
    start = group * 16
    lane = pick16(words, at + start, np.int32(min(16, count - start)), second)
    return start + lane if lane >= 0 else -1


@step
def _pick_group(words: Words, sums: int, groups: int, uniform: float) -> int:
    """As `pick16`, over more than 16 sums; a running sum, since this is the rare, large node."""
    whole = single(0)
    for group in range(groups):
        whole += load_float(words, sums + group)
    mass = single(uniform) * whole
    below = single(0)
    last = -1
    for group in range(groups):
        weight = load_float(words, sums + group)
        if weight > 0:
            last = group
            below += weight
            if mass < below:
                break
    return last
