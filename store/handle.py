"""How kernels know a forest: by one number, the address of its handle.

    handle  (8,)  int64   addresses of TABLE, WORDS, POOLS and HEAP; number of VERTICES; the MODE of
                          its weight index, and its TOP capacity class; number of EDGES

Kernels reach every record, of the table too, by its distance in words from the arena's start.
"""

from store.blocks import FREE, LIMIT, NEED, NEXT, RECORD, UNIT, WIDEST, Longs
from store.jit import inlined
from store.lanes import PAD
from store.order import shard_of
from store.words import longs_at, onwards, wide

TABLE, WORDS, POOLS, HEAP, VERTICES, MODE, TOP, EDGES = range(8)
SCRATCH = 2048 + PAD  # words of room for what one change rearranges


@inlined
def root_of(handle: Longs, vertex: int) -> int:
    """The word where a vertex's record starts."""
    return wide(((handle[TABLE] - handle[WORDS]) >> 2) + RECORD * vertex)


@inlined
def pool_of(handle: Longs, vertex: int) -> Longs:
    """The pools of a vertex's shard."""
    heap = longs_at(handle[HEAP])
    return onwards(longs_at(handle[POOLS]), shard_of(vertex) * (FREE + 1 + heap[WIDEST]))


@inlined
def workplace(shard: int) -> int:
    """The word from which on a shard's records may be written that have no other place yet."""
    return UNIT * 2 * (shard + 1)


@inlined
def room_for(handle: Longs, changes: int) -> bool:
    """Whether so few changes find room, whatever they do."""
    heap = longs_at(handle[HEAP])
    enough: bool = heap[LIMIT] - heap[NEXT] >= changes * heap[NEED]
    return enough
