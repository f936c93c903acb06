"""What a batch looks at before its turn: so that no change waits for memory.

A change reads the vertex's record, the top node, in a hub a child's record and its leaf, and at
last the weights of one group. Each is known only when the one before is there: so each is asked for
some changes after the one before it, and by the time of the change all are near. What was found on
the way is handed to the change as a guess, which it checks by a look or two.
"""

from store.blocks import (
    CAPACITIES,
    RECORD,
    UNIT,
    Words,
    count_of,
    form_of,
    level_of,
    size_of,
    span,
    upper_bits,
)
from store.inner import child, holds, route, separators
from store.jit import inlined, step
from store.leaf import ABSENT, UNKNOWN, spot
from store.words import prefetch, wide

# How many changes ahead a batch asks for its columns, the trees' records, their top nodes, the
# records of hubs' children, these children, and the weights.
COLUMNS, TREES, NODES, CHILDREN, LEAVES, WEIGHTS = 32, 20, 14, 9, 6, 2
RING = 16  # guesses that are kept; above CHILDREN
LINE = 16  # words of a cache line
NEAR = 64  # edges of a leaf whose weights are all asked for with it
LARGE = -2  # in place of a child's number: a tree of one leaf, with more edges


@step
def ask_node(mode: int, words: Words, block: int, meta: int) -> None:
    """Ask for the lines that a change reads of a top node: ids or separators, sums, first weights.

    A line that is asked for twice costs less than a branch that the processor does not foresee.
    """
    capacity, count = wide(CAPACITIES[size_of(meta)]), count_of(meta)
    where = block * UNIT
    here = where + span(mode, capacity)
    end = here + (count if level_of(meta) > 0 else capacity >> 1)
    for line in range(0, NEAR, LINE):
        prefetch(words, where + min(line, count))
    prefetch(words, here - 1)
    for line in range(0, 7 * LINE, LINE):
        prefetch(words, min(here + line, end))
    prefetch(words, end)


@inlined
def ask_child(mode: int, table: Words, words: Words, vertex: int, number: int) -> int:
    """Ask for the record of the child under which a hub holds an id.

    Returns:
        The child's number; where the tree is one leaf, LARGE or UNKNOWN.
    """
    record = RECORD * vertex
    block, meta = wide(table[record]), wide(table[record + 1])
    if level_of(meta) == 0:
        return wide(UNKNOWN) if CAPACITIES[size_of(meta)] <= NEAR else wide(LARGE)
    k = route(words, separators(mode, meta, block), count_of(meta), number)
    prefetch(words, child(mode, meta, block, k))
    return k


@inlined
def ask_leaf(mode: int, table: Words, words: Words, vertex: int, k: int) -> None:
    """Ask for all ids of a hub's child `k`, and for its sums; for nothing where k is below 0."""
    record = RECORD * vertex
    block, meta = wide(table[record]), wide(table[record + 1])
    if 0 <= k < count_of(meta):  # by now the hub may have other children, or none
        at = child(mode, meta, block, k)
        block, meta = wide(words[at]), wide(words[at + 1])
        capacity = wide(CAPACITIES[size_of(meta)])
        here = block * UNIT + span(mode, capacity)
        prefetch(words, here - 1)
        for line in range(0, 8 * LINE, LINE):
            prefetch(words, here + line)
        prefetch(words, here + (capacity >> 1) + LINE)


@inlined
def ask_weights(mode: int, table: Words, words: Words, vertex: int, number: int, k: int) -> int:
    """Seek an id in a large leaf, and ask for the weights that its change will read.

    Args:
        k: what `ask_child` said.

    Returns:
        The slot, which other changes may make wrong; ABSENT, which only a change of this very edge
        can; or UNKNOWN.
    """
    record = RECORD * vertex
    block, meta, base = wide(table[record]), wide(table[record + 1]), wide(table[record + 2])
    if level_of(meta) > 0:
        if not holds(words, separators(mode, meta, block), count_of(meta), number, k):
            return wide(UNKNOWN)
        prefetch(words, block * UNIT + k)
        at = child(mode, meta, block, k)
        block, meta, base = wide(words[at]), wide(words[at + 1]), wide(words[at + 2])
    capacity, bits = wide(CAPACITIES[size_of(meta)]), upper_bits(form_of(meta))
    if level_of(meta) > 0 or capacity <= NEAR:
        return wide(UNKNOWN)
    ids, count = block * UNIT + span(mode, capacity), count_of(meta)
    slot = spot(words, ids, capacity, bits, base, count, number)
    prefetch(words, block * UNIT + (slot if slot >= 0 else count))
    return slot if slot >= 0 else wide(ABSENT)
