"""How a samtree changes its shape: split of full nodes, merge of underfull ones.

A full leaf is split around a pivot whose rank is within ALPHA of the middle (alpha-split): the
exact median would take more passes and buys nothing. An underfull node is merged with a neighbour
where both fit into three quarters of a node, so that the next insertion does not split them again.
Blocks go back to the pools.

Source: alpha-split is from X. Huang et al., "PlatoD2GL: An Efficient Dynamic Deep Graph Learning
System for Graph Neural Network Training on Billion-Scale Graphs", ICDE 2024. Merging is ours.
"""

from store import inner, leaf, weights
from store.blocks import (
    CAPACITIES,
    MAX_HEIGHT,
    RECORD,
    UNIT,
    Longs,
    Words,
    class_of,
    count_of,
    form_of,
    inner_units,
    leaf_units,
    level_of,
    release,
    size_of,
    span,
    upper_bits,
)
from store.jit import step
from store.words import onwards, wide

ALPHA = 0.125  # a pivot's rank may be off the middle by this share of the leaf
SPARE = 2 * MAX_HEIGHT  # of a path: the word where two records may be written meanwhile


@step
def roomy(count: int, top: int) -> int:
    """The class for `count` entries and an eighth more."""
    return min(class_of(count + (count >> 3)), top)


@step
def pivot(numbers: Words, count: int) -> int:
    """An id whose rank among `count` distinct ones is near the middle; reorders them (quickselect).

    The ids below it are at least one, and it is among the others.
    """
    slack = int(count * ALPHA)
    least, most = max(1, count // 2 - slack), min(count - 1, count // 2 + slack)
    low, high = 0, count - 1
    while low < high:
        middle = numbers[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while numbers[i] < middle:
                i += 1
            while numbers[j] > middle:
                j -= 1
            if i <= j:
                numbers[i], numbers[j] = numbers[j], numbers[i]
                i += 1
                j -= 1
        # Now all before i are below all from i on.
        if least <= i <= most and i <= high:
            least_above = numbers[i]
            for at in range(i + 1, high + 1):
                least_above = min(least_above, numbers[at])
            return wide(least_above)
        if j >= count // 2:
            high = j
        elif i <= count // 2:
            low = i
        else:
            break
    return wide(numbers[count // 2])


@step
def split_leaf(
    mode: int,
    top: int,
    words: Words,
    pool: Longs,
    heap: Longs,
    at: int,
    new: int,
    scratch: Words,
) -> int:
    """Split a full leaf in two: the first part takes its record, the second's is written to `new`.

    Returns:
        The least id that belongs to the second part.
    """
    block, meta, base = wide(words[at]), wide(words[at + 1]), wide(words[at + 2])
    count, form, capacity = count_of(meta), form_of(meta), CAPACITIES[size_of(meta)]
    where, bits = block * UNIT, upper_bits(form)
    ids = where + span(mode, capacity)
    leaf.read_ids(words, ids, capacity, bits, base, count, scratch)
    separator = pivot(scratch, count)
    leaf.read_ids(words, ids, capacity, bits, base, count, scratch)

    below, least, less, more, most = 0, separator, wide(0), separator, separator
    for i in range(count):
        number = wide(scratch[i])
        if number < separator:
            below += 1
            least, less = min(least, number), max(less, number)
        else:
            more, most = min(more, number), max(most, number)
    first, second = roomy(below, top), roomy(count - below, top)
    leaf.create(mode, top, words, pool, heap, at, first, least, less)
    leaf.create(mode, top, words, pool, heap, new, second, more, most)
    for i in range(count):
        number = wide(scratch[i])
        weight = weights.get(mode, words, where, i)
        leaf.append(mode, words, at if number < separator else new, number, weight, False)
    release(words, pool, block, leaf_units(mode, capacity, form))
    return separator


@step
def split_inner(
    mode: int, top: int, words: Words, pool: Longs, heap: Longs, at: int, new: int
) -> int:
    """As `split_leaf`, for an inner node: in the middle of its children."""
    block, meta = wide(words[at]), wide(words[at + 1])
    count, capacity = count_of(meta), CAPACITIES[size_of(meta)]
    half = count // 2
    here, records = inner.separators(mode, meta, block), inner.child(mode, meta, block, 0)
    level = level_of(meta)
    inner.create(mode, words, pool, heap, at, roomy(half, top), level)
    inner.create(mode, words, pool, heap, new, roomy(count - half, top), level)
    for k in range(count):
        to = at if k < half else new
        inner.append(mode, words, to, wide(words[here + k]), words, records + RECORD * k)
    separator = wide(words[here + half])
    release(words, pool, block, inner_units(mode, capacity))
    return separator


@step
def split(
    mode: int,
    top: int,
    words: Words,
    pool: Longs,
    heap: Longs,
    path: Longs,
    depth: int,
    scratch: Words,
) -> None:
    """Split the full leaf at the end of a path, and every full node above it first.

    Args:
        path: records and children from the root on (store/samtree.py); afterwards out of date.
    """
    root = path[0]
    spare = path[SPARE]
    first = depth  # the highest node that must be split
    while first > 0:
        if count_of(wide(words[path[2 * first - 2] + 1])) < CAPACITIES[top]:
            break
        first -= 1

    # From above, so that a parent has room before its child is split; but then the child's record
    # may have moved to the parent's second part: find it again by its place among the children.
    for d in range(first, depth + 1):
        at = path[2 * d]
        if d == depth:
            separator = split_leaf(mode, top, words, pool, heap, at, spare, scratch)
        else:
            separator = split_inner(mode, top, words, pool, heap, at, spare)
        parent, k = root, 0
        if d == 0:
            _raise_root(mode, words, pool, heap, root, spare, separator)
        else:
            parent, k = path[2 * d - 2], path[2 * d - 1]
            inner.insert(mode, words, pool, heap, parent, k, separator, spare, scratch)
        if d < depth:  # where the next node's record stands now
            block, meta = wide(words[parent]), wide(words[parent + 1])
            here = inner.child(mode, meta, block, k)
            left = count_of(wide(words[here + 1]))
            if path[2 * d + 1] >= left:
                path[2 * d + 1] -= left
                here = inner.child(mode, meta, block, k + 1)
            path[2 * d] = here
            block, meta = wide(words[here]), wide(words[here + 1])
            path[2 * d + 2] = inner.child(mode, meta, block, path[2 * d + 1])


@step
def _raise_root(
    mode: int, words: Words, pool: Longs, heap: Longs, root: int, spare: int, separator: int
) -> None:
    """Put a new root above the two parts whose records stand at `root` and `spare`."""
    part = spare + RECORD
    for i in range(RECORD):
        words[part + i] = words[root + i]
    level = level_of(wide(words[root + 1])) + 1
    inner.create(mode, words, pool, heap, root, wide(0), level)
    inner.append(mode, words, root, wide(0), words, part)
    inner.append(mode, words, root, separator, words, spare)


@step
def merge(
    mode: int,
    top: int,
    words: Words,
    pool: Longs,
    heap: Longs,
    parent: int,
    k: int,
    scratch: Words,
    spare: int,
) -> None:
    """Merge the children k and k + 1 of a node into one, in the place of k."""
    block, meta = wide(words[parent]), wide(words[parent + 1])
    left, right = inner.child(mode, meta, block, k), inner.child(mode, meta, block, k + 1)
    separator = wide(words[inner.separators(mode, meta, block) + k + 1])
    count = count_of(wide(words[left + 1])) + count_of(wide(words[right + 1]))
    size = roomy(count, top)
    if level_of(wide(words[left + 1])) == 0:
        _merge_leaves(mode, top, words, pool, heap, left, right, spare, size, scratch)
    else:
        level = level_of(wide(words[left + 1]))
        inner.create(mode, words, pool, heap, spare, size, level)
        for part in (left, right):
            block, meta = wide(words[part]), wide(words[part + 1])
            here, records = inner.separators(mode, meta, block), inner.child(mode, meta, block, 0)
            for j in range(count_of(meta)):
                from_parent = part == right and j == 0
                bound = separator if from_parent else wide(words[here + j])
                inner.append(mode, words, spare, bound, words, records + RECORD * j)
            release(words, pool, block, inner_units(mode, CAPACITIES[size_of(meta)]))
    for i in range(RECORD):
        words[left + i] = words[spare + i]
    inner.erase(mode, words, parent, k + 1, scratch)
    block, meta = wide(words[parent]), wide(words[parent + 1])
    mass = inner.total(mode, words, left)
    capacity, count = CAPACITIES[size_of(meta)], count_of(meta)
    weights.put(mode, words, block * UNIT, capacity, count, k, mass, False)


@step
def _merge_leaves(
    mode: int,
    top: int,
    words: Words,
    pool: Longs,
    heap: Longs,
    left: int,
    right: int,
    spare: int,
    size: int,
    scratch: Words,
) -> None:
    together = wide(0)
    for part in (left, right):
        block, meta, base = wide(words[part]), wide(words[part + 1]), wide(words[part + 2])
        capacity, bits = CAPACITIES[size_of(meta)], upper_bits(form_of(meta))
        ids = block * UNIT + span(mode, capacity)
        to = onwards(scratch, together)
        leaf.read_ids(words, ids, capacity, bits, base, count_of(meta), to)
        together += count_of(meta)
    least, most = leaf.extent(scratch, together) if together else (wide(0), wide(0))
    leaf.create(mode, top, words, pool, heap, spare, size, least, most)
    done = wide(0)
    for part in (left, right):
        block, meta = wide(words[part]), wide(words[part + 1])
        for i in range(count_of(meta)):
            weight = weights.get(mode, words, block * UNIT, i)
            leaf.append(mode, words, spare, wide(scratch[done + i]), weight, False)
        done += count_of(meta)
        release(words, pool, block, leaf_units(mode, CAPACITIES[size_of(meta)], form_of(meta)))


@step
def tidy(
    mode: int,
    top: int,
    words: Words,
    pool: Longs,
    heap: Longs,
    path: Longs,
    depth: int,
    scratch: Words,
) -> None:
    """After a removal from the leaf at the end of a path: shrink, merge, and lower the tree."""
    root = path[0]
    at = path[2 * depth]
    meta = wide(words[at + 1])
    count, capacity = count_of(meta), CAPACITIES[size_of(meta)]
    if depth == 0 and count == 0:
        leaf.drop(mode, words, pool, root)
        return
    if 2 * count <= capacity and size_of(meta) > 0:
        size, form = roomy(max(count, 1), top), form_of(meta)
        if leaf_units(mode, CAPACITIES[size], form) < leaf_units(mode, capacity, form):
            leaf.move(mode, top, words, pool, heap, at, size, wide(-1), scratch)

    for d in range(depth, 0, -1):
        count = count_of(wide(words[path[2 * d] + 1]))
        if 4 * count >= CAPACITIES[top]:
            break
        parent, k = path[2 * d - 2], path[2 * d - 1]
        block, meta = wide(words[parent]), wide(words[parent + 1])
        siblings = count_of(meta)
        if siblings == 1:
            continue
        k = k if k + 1 < siblings else k - 1
        left, right = inner.child(mode, meta, block, k), inner.child(mode, meta, block, k + 1)
        both = count_of(wide(words[left + 1])) + count_of(wide(words[right + 1]))
        if 4 * both > 3 * CAPACITIES[top]:
            break
        merge(mode, top, words, pool, heap, parent, k, scratch, path[SPARE])

    meta = wide(words[root + 1])
    while level_of(meta) > 0 and count_of(meta) == 1:
        block = wide(words[root])
        only = inner.child(mode, meta, block, 0)
        for i in range(RECORD):
            words[root + i] = words[only + i]
        release(words, pool, block, inner_units(mode, CAPACITIES[size_of(meta)]))
        meta = wide(words[root + 1])
    if words[root + 3] == 0 and words[root] != 0:
        clear(mode, words, pool, root)


@step
def clear(mode: int, words: Words, pool: Longs, root: int) -> None:
    """Give back every node of a tree without edges: its empty leaves may stand far apart."""
    while words[root] != 0:
        at, parent = root, wide(-1)
        meta = wide(words[at + 1])
        while level_of(meta) > 0 and count_of(meta) > 0:
            parent = at
            at = inner.child(mode, meta, wide(words[at]), count_of(meta) - 1)
            meta = wide(words[at + 1])
        if level_of(meta) == 0:
            leaf.drop(mode, words, pool, at)
        else:
            units = inner_units(mode, CAPACITIES[size_of(meta)])
            release(words, pool, wide(words[at]), units)
            for i in range(RECORD):
                words[at + i] = 0
        if parent >= 0:
            words[parent + 1] -= 1  # its entries stand in the lowest bits
