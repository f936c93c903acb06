"""Kernels for one change at a time: Python hands over numbers only, and half of it is the call."""

from store.jit import kernel
from store.lanes import longs_at, longs_room, words_room
from store.updates import SCRATCH, WAY, change_tree, room_for

FULL = 2  # the arena must grow first


@kernel
def change_one(forest: int, vertex: int, number: int, amount: float, op: int) -> int:
    """Apply one change to a forest, known by its handle: 1 an edge came, -1 one went, or FULL."""
    handle = longs_at(forest)
    if not room_for(handle, 1):
        return FULL
    return change_tree(handle, vertex, number, amount, op, longs_room(WAY), words_room(SCRATCH))
