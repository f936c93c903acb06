"""How neighbours are drawn at random.

At each level of a tree fresh bits decide, since 24 bits once would not tell ten million neighbours
apart.

Source: draws in proportion are inverse transform sampling, level by level. Draws without
replacement are successive draws that skip what was drawn before; where too many are skipped, the
rest is decided by exponential keys: P. Efraimidis, P. Spirakis, "Weighted random sampling with a
reservoir", Information Processing Letters 97(5), 2006. That is exact: given what has been drawn,
the draws to come do not depend on how often one was skipped.
"""

import numpy as np
import numpy.typing as npt

from store import leaf, weights
from store.blocks import (
    CAPACITIES,
    SUMS,
    UNIT,
    Words,
    count_of,
    form_of,
    level_of,
    size_of,
    span,
    upper_bits,
)
from store.handle import MODE, TABLE, WORDS
from store.inner import child
from store.jit import Routine, step
from store.job import FOREST, HEADS, LATE, LEFT, OUT, PART, PARTS, REPLACE, ROWS, SEED, WEIGHTED, K
from store.random_bits import GOLDEN, lower, mix, number, onward, row_key, upper
from store.rows import KEYS, PATH, first_leaf, next_leaf, read_leaf
from store.volley import draw_volleys
from store.words import load_float, longs_at, longs_room, single, wide, words_at, words_room

Doubles = npt.NDArray[np.float64]

TRIES = 4  # draws for each neighbour wanted, before exponential keys decide


@step
def draw_weighted(mode: int, table: Words, words: Words, vertex: int, bits: int) -> int:
    """A neighbour in proportion to its weight; -1: there is none of weight above 0."""
    block, meta = wide(table[4 * vertex]), wide(table[4 * vertex + 1])
    base = wide(table[4 * vertex + 2])
    if block == 0:
        return -1
    while True:
        capacity, count = CAPACITIES[size_of(meta)], count_of(meta)
        slot = weights.pick(mode, words, block * UNIT, capacity, count, upper(bits), lower(bits))
        if slot < 0:
            return -1
        if level_of(meta) == 0:
            break
        at = child(mode, meta, block, slot)
        block, meta, base = wide(words[at]), wide(words[at + 1]), wide(words[at + 2])
        bits = onward(bits)
    ids = block * UNIT + span(mode, capacity)
    return leaf.id_at(words, ids, capacity, upper_bits(form_of(meta)), base, slot)


@step
def neighbour_of_rank(mode: int, table: Words, words: Words, vertex: int, rank: int) -> int:
    """Neighbour number `rank` in the tree's order, 0 <= rank < degree."""
    block, meta = wide(table[4 * vertex]), wide(table[4 * vertex + 1])
    base = wide(table[4 * vertex + 2])
    while level_of(meta) > 0:
        at = child(mode, meta, block, 0)
        while rank >= words[at + 3]:
            rank -= words[at + 3]
            at += 4
        block, meta, base = wide(words[at]), wide(words[at + 1]), wide(words[at + 2])
    capacity = CAPACITIES[size_of(meta)]
    ids = block * UNIT + span(mode, capacity)
    return leaf.id_at(words, ids, capacity, upper_bits(form_of(meta)), base, rank)


@step
def draw_uniform(mode: int, table: Words, words: Words, vertex: int, bits: int) -> int:
    """A neighbour, each as likely; -1: there is none."""
    degree = wide(table[4 * vertex + 3])
    if degree == 0:
        return -1
    rank = wide(((np.uint64(bits) >> np.uint64(32)) * np.uint64(degree)) >> np.uint64(32))
    return neighbour_of_rank(mode, table, words, vertex, rank)


@step
def fill_by_keys(
    mode: int,
    table: Words,
    words: Words,
    vertex: int,
    key: int,
    weighted: bool,
    out: Words,
    start: int,
    have: int,
    k: int,
) -> None:
    """Draw the rest of k distinct neighbours by exponential keys, in one pass over the row.

    Args:
        out: `out[start : start + have]` are drawn already; written up to `start + k`.
    """
    block, meta = wide(table[4 * vertex]), wide(table[4 * vertex + 1])
    base = wide(table[4 * vertex + 2])
    times = np.empty(k - have, np.float64)  # the soonest so far, soonest first
    found = np.empty(k - have, np.int64)
    filled = 0
    keys = longs_room(KEYS)
    one, path = words_room(1), longs_room(PATH)
    depth = first_leaf(mode, words, block, meta, path)
    more = True
    while more:
        if depth > 0:
            d = depth - 1
            at = child(mode, path[3 * d + 1], path[3 * d], path[3 * d + 2])
            block, meta = wide(words[at]), wide(words[at + 1])
            base = wide(words[at + 2])
        count = read_leaf(mode, words, block, meta, base, keys)
        for i in range(count):
            neighbour = keys[i] >> 32
            one[0] = keys[i] & 0xFFFFFFFF
            weight = load_float(one, 0) if weighted else single(1)
            taken = weight <= 0
            for j in range(have):
                taken = taken or out[start + j] == neighbour
            if taken:
                continue
            bits = mix(np.uint64(key) ^ (np.uint64(neighbour) * np.uint64(GOLDEN)))
            uniform = (np.float64(np.uint64(bits) >> np.uint64(11)) + 0.5) * 2.0**-53
            time = -np.log(uniform) / np.float64(weight)
            if filled == len(times) and time >= times[filled - 1]:
                continue
            j = min(filled, len(times) - 1)
            while j > 0 and times[j - 1] > time:
                times[j], found[j] = times[j - 1], found[j - 1]
                j -= 1
            times[j], found[j] = time, neighbour
            filled = min(filled + 1, len(times))
        more = next_leaf(mode, words, path, depth)
    for j in range(k - have):
        out[start + have + j] = found[j] if j < filled else -1


@step
def draw_distinct(
    mode: int,
    table: Words,
    words: Words,
    vertex: int,
    key: int,
    weighted: bool,
    out: Words,
    start: int,
    k: int,
) -> None:
    """Write k distinct neighbours to `out[start : start + k]`, -1 where there are no more."""
    degree = wide(table[4 * vertex + 3])
    if degree == 0:
        for j in range(k):
            out[start + j] = -1
        return
    have = 0
    if degree > k:
        draw = 0
        while have < k and draw < TRIES * k:
            bits = number(key, draw)
            draw += 1
            if weighted:
                neighbour = draw_weighted(mode, table, words, vertex, bits)
            else:
                neighbour = draw_uniform(mode, table, words, vertex, bits)
            if neighbour < 0:
                break
            fresh = True
            for j in range(have):
                fresh = fresh and out[start + j] != neighbour
            if fresh:
                out[start + have] = neighbour
                have += 1
    if have < k:
        again = number(key, -2)
        fill_by_keys(mode, table, words, vertex, again, weighted, out, start, have, k)


@Routine
def draw_rows(address: int) -> None:
    """Do one part of a draw: the job at an address, see store/job.py."""
    job = longs_at(address)
    handle = longs_at(job[FOREST])
    mode, table, words = handle[MODE], words_at(handle[TABLE]), words_at(handle[WORDS])
    vertices, out = words_at(job[HEADS]), words_at(job[OUT])
    k, seed = job[K], job[SEED]
    weighted, replace = job[WEIGHTED] != 0, job[REPLACE] != 0
    rows, part, parts = job[ROWS], job[PART], job[PARTS]
    more = min(job[LATE] // max(k, wide(1)), rows) if parts > 1 else 0  # for the first part
    first = more + (rows - more) * part // parts if part else 0
    last = more + (rows - more) * (part + 1) // parts
    if mode == SUMS and weighted and replace:
        draw_volleys(table, words, vertices, k, seed, first, last, out)
        job[LEFT] = 0
        return
    for row in range(first, last):
        vertex = wide(vertices[row])
        key = row_key(seed, row)
        if not replace:
            draw_distinct(mode, table, words, vertex, key, weighted, out, row * k, k)
        elif weighted:
            for j in range(k):
                bits = number(key, j)
                out[row * k + j] = draw_weighted(mode, table, words, vertex, bits)
        else:
            for j in range(k):
                bits = number(key, j)
                out[row * k + j] = draw_uniform(mode, table, words, vertex, bits)
    job[LEFT] = 0
