"""The samtree: the weighted neighbours of one vertex, as a tree that grows with them.

A tree is one leaf as long as its edges fit. Then leaves stand in ranges of ids under inner nodes,
to any height. Layout of an inner node's block: the weight index over its children's sums; then
`capacity` separators; then `capacity` records (pointer, meta, base, edges below). Child k holds the
ids from separator k up to separator k + 1; separator 0 is not looked at.

Source: X. Huang et al., "PlatoD2GL: An Efficient Dynamic Deep Graph Learning System for Graph
Neural Network Training on Billion-Scale Graphs", ICDE 2024. Ours: separators, and the index over
the children's sums, of which its text says nothing.
"""

from store import leaf, restructure, weights
from store.blocks import (
    CAPACITIES,
    UNIT,
    Longs,
    Words,
    class_of,
    count_of,
    form_of,
    level_of,
    size_of,
    span,
    upper_bits,
)
from store.handle import HEAP, MODE, TOP, WORDS, pool_of, root_of, workplace
from store.inner import child, route, route_by, separators, total
from store.jit import inlined, step
from store.order import shard_of
from store.words import longs_at, single, wide, words_at

ADD, SET, DELETE = 0, 1, 2
WAY = restructure.SPARE + 1


@inlined
def descend(mode: int, words: Words, root: int, number: int, guess: int, path: Longs) -> int:
    """Find the leaf for an id.

    Args:
        root: the word where the top node's record starts.
        guess: the child of the top node, or any other number.
        path: written, shape (2 * MAX_HEIGHT,): for each node on the way the word where its record
            starts, and the number of the child taken in it.

    Returns:
        The leaf's row of `path`.
    """
    at, depth = root, 0
    block, meta = wide(words[at]), wide(words[at + 1])
    path[0] = at
    while level_of(meta) > 0:
        k = route_by(words, separators(mode, meta, block), count_of(meta), number, guess)
        path[2 * depth + 1] = k
        guess = wide(leaf.UNKNOWN)
        depth += 1
        at = child(mode, meta, block, k)
        path[2 * depth] = at
        block, meta = wide(words[at]), wide(words[at + 1])
    return depth


@step
def refresh(mode: int, words: Words, path: Longs, depth: int, change: int, mass: float) -> None:
    """Bring the sums and counts above a changed leaf up to date; its sum is `mass`, or -1."""
    for d in range(depth - 1, -1, -1):
        at = path[2 * d]
        block, meta = wide(words[at]), wide(words[at + 1])
        capacity, count = CAPACITIES[size_of(meta)], count_of(meta)
        if mass < 0:
            mass = total(mode, words, path[2 * d + 2])
        mass = weights.put(mode, words, block * UNIT, capacity, count, path[2 * d + 1], mass, d > 0)
        words[at + 3] += change


@step
def change(
    handle: Longs,
    vertex: int,
    number: int,
    weight: float,
    op: int,
    guess: int,
    slot: int,
    path: Longs,
    scratch: Words,
) -> int:
    """Apply one change to a vertex's tree; the arena has room for it.

    Args:
        handle: of the forest (store/handle.py).
        guess: the top node's child where the id stands, or would; it may be wrong.
        slot: where in its leaf it stands, which may be wrong; ABSENT: it is not there.
        path: for the way down, shape (WAY,).
        scratch: room for a leaf's ids, and for a node's sums.

    Returns:
        1 where an edge came, -1 where one went, else 0.
    """
    words, heap, mode, top = (
        words_at(handle[WORDS]),
        longs_at(handle[HEAP]),
        handle[MODE],
        handle[TOP],
    )
    root, pool = root_of(handle, vertex), pool_of(handle, vertex)
    path[restructure.SPARE] = workplace(shard_of(vertex))
    if words[root] == 0:  # an empty tree's record is all 0
        if op == DELETE:
            return 0
        leaf.create(mode, top, words, pool, heap, root, wide(0), wide(0), number)
        leaf.append(mode, words, root, number, weight, False)
        return 1

    depth = descend(mode, words, root, number, guess, path)
    at = path[2 * depth]
    block, meta, base = wide(words[at]), wide(words[at + 1]), wide(words[at + 2])
    capacity, count, bits = CAPACITIES[size_of(meta)], count_of(meta), upper_bits(form_of(meta))
    where = block * UNIT
    ids = where + span(mode, capacity)
    slot = leaf.find_by(words, ids, capacity, bits, base, count, number, slot)
    if slot >= 0 and op != DELETE:
        if op == ADD:
            mass = weights.add(mode, words, where, capacity, count, slot, weight, depth > 0)
        else:
            mass = weights.put(mode, words, where, capacity, count, slot, weight, depth > 0)
        refresh(mode, words, path, depth, wide(0), mass)
        return 0
    if op == DELETE:
        if slot < 0:
            return 0
        leaf.remove(mode, words, at, slot)
        refresh(mode, words, path, depth, wide(-1), single(-1))
        if 2 * count <= capacity or count == 1:
            restructure.tidy(mode, top, words, pool, heap, path, depth, scratch)
        return -1

    if not leaf.fits(capacity, meta, base, number):
        if count < capacity:  # the id is out of the leaf's reach
            leaf.move(mode, top, words, pool, heap, at, class_of(count + 1), number, scratch)
        elif size_of(meta) < top:
            size = min(class_of(capacity + (capacity >> 3) + 1), top)
            leaf.move(mode, top, words, pool, heap, at, size, number, scratch)
        else:
            restructure.split(mode, top, words, pool, heap, path, depth, scratch)
            depth = descend(mode, words, root, number, wide(leaf.UNKNOWN), path)
            at = path[2 * depth]
            size = size_of(wide(words[at + 1]))
            if not leaf.fits(CAPACITIES[size], wide(words[at + 1]), wide(words[at + 2]), number):
                bigger = size + 1 if count_of(wide(words[at + 1])) == CAPACITIES[size] else size
                leaf.move(mode, top, words, pool, heap, at, bigger, number, scratch)
    mass = leaf.append(mode, words, at, number, weight, depth > 0)
    refresh(mode, words, path, depth, wide(1), mass)
    return 1


@step
def lookup(mode: int, table: Words, words: Words, vertex: int, number: int) -> float:
    """Weight of one edge; -1 where there is none."""
    block, meta = wide(table[4 * vertex]), wide(table[4 * vertex + 1])
    base = wide(table[4 * vertex + 2])
    if block == 0:
        return single(-1)
    while level_of(meta) > 0:
        k = route(words, separators(mode, meta, block), count_of(meta), number)
        at = child(mode, meta, block, k)
        block, meta, base = wide(words[at]), wide(words[at + 1]), wide(words[at + 2])
    capacity = CAPACITIES[size_of(meta)]
    ids, bits = block * UNIT + span(mode, capacity), upper_bits(form_of(meta))
    slot = leaf.find(words, ids, capacity, bits, base, count_of(meta), number)
    return weights.get(mode, words, block * UNIT, slot) if slot >= 0 else single(-1)
