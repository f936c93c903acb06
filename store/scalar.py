"""Kernels for one change at a time: Python hands over numbers only, and half of it is the call.

What a relation is made of is told by the address of its *plan*:

    plan  (5,)  int64   handles (store/handle.py) of the FORWARD and the BACKWARD forest (0: there
                        is none); whether it is SYMMETRIC; HEADS and TAILS: where the id tables of
                        its vertex types say what is live (store/ids.py)
"""

from store.handle import EDGES, SCRATCH, VERTICES, room_for
from store.jit import inlined, kernel
from store.leaf import UNKNOWN
from store.samtree import DELETE, WAY, change
from store.words import longs_at, longs_room, single, wide, words_at, words_room

FORWARD, BACKWARD, SYMMETRIC, HEADS, TAILS = range(5)
LENGTHS, COUNT = 0, 1  # of an id table: where the lengths of names are, and how many


@kernel
def change_one(forest: int, vertex: int, number: int, amount: float, op: int) -> bool:
    """Apply one change to a forest, known by its handle; True: not done, its arena must grow."""
    handle = longs_at(forest)
    if not room_for(handle, wide(1)):
        return True
    path, scratch, guess = longs_room(WAY), words_room(SCRATCH), wide(UNKNOWN)
    handle[EDGES] += change(handle, vertex, number, single(amount), op, guess, guess, path, scratch)
    return False


@inlined
def is_live(table: int, number: int) -> bool:
    """Whether an id table says that this id has a name."""
    here = longs_at(table)
    live: bool = 0 <= number < here[COUNT] and words_at(here[LENGTHS])[number] >= 0
    return live


@kernel
def change_edge(plan: int, head: int, tail: int, weight: float, op: int) -> bool:
    """Apply one change to each forest of a relation; True: nothing is done.

    So it is where the change is bad, or an arena must grow first: the slow way finds out which.
    """
    known = longs_at(plan)
    amount = single(weight) + single(0)  # -0 becomes 0
    if not (amount >= 0 and amount - amount == 0 and 0 <= op <= DELETE):
        return True
    if not (is_live(known[HEADS], head) and is_live(known[TAILS], tail)):
        return True
    forward, back, twice = longs_at(known[FORWARD]), longs_at(known[BACKWARD]), head != tail
    symmetric, directed = known[SYMMETRIC] != 0, known[BACKWARD] != 0
    if not room_for(forward, wide(2)) or head >= forward[VERTICES]:
        return True
    if symmetric and tail >= forward[VERTICES]:
        return True
    if directed and (not room_for(back, wide(1)) or tail >= back[VERTICES]):
        return True
    path, scratch, guess = longs_room(WAY), words_room(SCRATCH), wide(UNKNOWN)
    first, second = head, tail
    for turn in range(2):
        handle = back if turn and directed else forward
        if turn == 0 or directed or (symmetric and twice):
            came = change(handle, first, second, amount, op, guess, guess, path, scratch)
            handle[EDGES] += came
        first, second = second, first
    return False
