"""What a thread is asked to do, in words that a kernel of another thread reads: a *job*.

    job  (20,)  int64   TO_RUN: address of the routine that does it; FOREST: of the forest's handle;
                        HEADS: of the vertices, and ROWS, how many; PART of PARTS: which share of
                        them is meant; LATE: how much the first part does while other threads wake;
                        LEFT: rows still to do; HOLDER and TICKET, see store/handover.py; then what
                        each routine wants besides

One batch is as many jobs as threads share it, shape (parts, 20). They hold addresses: what stands
there must be kept until they are done.
"""

import numpy as np
import numpy.typing as npt

from store.blocks import Longs, Words
from store.jit import kernel
from store.words import address, pointer, wide

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

JOB = 20
TO_RUN, FOREST, HEADS, ROWS, PART, PARTS, LATE, LEFT, HOLDER, TICKET = range(10)
UPDATES_LATE, DRAWS_LATE = 700, 5000  # as many as take the time in which a thread wakes
# Of an update: addresses of TAILS, AMOUNTS, OPS, of the ORDER of its rows and of SPARE room; the
# next row, AT, of those that are in order, STOP; MOST is the greatest vertex if rows are to be
# sorted, else 0.
TAILS, AMOUNTS, OPS, ORDER, SPARE, AT, STOP, MOST = range(10, 18)
# Of a draw: K draws a row, from SEED, to OUT; WEIGHTED or not, and whether to REPLACE.
OUT, K, SEED, WEIGHTED, REPLACE = range(10, 15)


def blank(parts: int) -> Longs:
    """Jobs for so many parts, shape (parts, 20); all is 0."""
    return np.zeros((parts, JOB), np.int64)


@kernel
def describe_rows(
    jobs: Longs,
    parts: int,
    routine: int,
    forest: int,
    vertices: Words,
    numbers: Words,
    amounts: Floats,
    ops: Bytes,
    most: int,
    room: Words,
) -> None:
    """Make jobs of a batch of changes; columns as of `Forest.apply`.

    Args:
        jobs: written, as `blank` makes them.
        routine: `apply_rows`.
        most: the greatest vertex if rows are to be sorted, else 0.
        room: two words a row and part.
    """
    jobs, rows = pointer(jobs), wide(len(vertices))
    for part in range(parts):
        at = JOB * part
        jobs[at + TO_RUN], jobs[at + FOREST], jobs[at + ROWS] = routine, forest, rows
        jobs[at + PART], jobs[at + PARTS], jobs[at + LATE] = part, parts, UPDATES_LATE
        jobs[at + HEADS], jobs[at + TAILS] = address(vertices), address(numbers)
        jobs[at + AMOUNTS], jobs[at + OPS] = address(amounts), address(ops)
        jobs[at + ORDER] = address(room) + 8 * rows * part
        jobs[at + SPARE] = jobs[at + ORDER] + 4 * rows
        jobs[at + MOST], jobs[at + LEFT] = most, rows


@kernel
def describe_draws(
    jobs: Longs,
    parts: int,
    routine: int,
    forest: int,
    vertices: Words,
    k: int,
    seed: int,
    weighted: bool,
    replace: bool,
    out: Words,
) -> None:
    """Make jobs of draws; arguments as of `Forest.sample`.

    Args:
        jobs: written, as `blank` makes them.
        routine: `draw_rows`.
        out: shape (S * k,).
    """
    jobs, rows = pointer(jobs), wide(len(vertices))
    for part in range(parts):
        at = JOB * part
        jobs[at + TO_RUN], jobs[at + FOREST], jobs[at + ROWS] = routine, forest, rows
        jobs[at + PART], jobs[at + PARTS], jobs[at + LATE] = part, parts, DRAWS_LATE
        jobs[at + LEFT] = rows
        jobs[at + HEADS], jobs[at + OUT], jobs[at + K] = address(vertices), address(out), k
        jobs[at + SEED], jobs[at + WEIGHTED], jobs[at + REPLACE] = seed, weighted, replace
