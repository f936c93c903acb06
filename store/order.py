"""In which order a batch's rows are applied: by vertex, those of one as they came.

A *shard* is a set of vertices that one thread at a time works on. Rows are dealt to threads by
whole shards; each thread picks its own out of all, and sorts them.
"""

import numpy as np

from store.blocks import Longs, Words
from store.jit import inlined, kernel, step
from store.words import longs_room, pointer, wide

SHARDS = 16
DIGITS = 2049
SAMPLE = 16384  # rows by which a batch is dealt


@inlined
def shard_of(vertex: int) -> int:
    """The shard of a vertex: four records share a cache line, and so a shard."""
    return (vertex >> 2) & (SHARDS - 1)


@kernel
def count_shards(vertices: Words, stride: int, counts: Longs) -> None:
    """Write how many of every `stride`-th row are each shard's, shape (SHARDS,)."""
    for shard in range(SHARDS):
        counts[shard] = 0
    for i in range(0, len(vertices), stride):
        counts[shard_of(wide(vertices[i]))] += 1


def deal(vertices: Words, threads: int) -> list[int]:
    """From which shard on each thread takes a batch's rows, and the end; [0, 0]: one takes all.

    A whole number of shards a thread, as near to equal parts as can be, by a sample of the rows.

    Args:
        vertices: of each row, shape (E,), E > 0.
    """
    if threads == 1:
        return [0, 0]
    counts = np.zeros(SHARDS, np.int64)
    count_shards(vertices, max(1, len(vertices) // SAMPLE), counts)
    ends = np.concatenate([[0], np.cumsum(counts)])
    parts = np.linspace(0, ends[-1], threads + 1)[1:-1]
    between: list[int] = np.abs(ends[:, None] - parts).argmin(axis=0).tolist()
    return sorted({0, *between, SHARDS})


@step
def pick_rows(vertices: Words, low: int, high: int, order: Words) -> int:
    """Write the rows of the shards `low..high - 1` to `order`, as they came; returns how many."""
    rows, heads = pointer(order), pointer(vertices)
    at, wanted = wide(0), (1 << high) - (1 << low)  # a bit a shard
    for i in range(len(vertices)):
        rows[at] = i
        at += (wanted >> shard_of(wide(heads[i]))) & 1
    return at


@step
def sort_rows(vertices: Words, order: Words, spare: Words, count: int, most: int) -> None:
    """Order the rows `order[:count]` by vertex: radix sort, 11 bits a pass, stable.

    Args:
        spare: room, as long as `order`.
        most: the greatest vertex.
    """
    digits = longs_room(DIGITS)
    heads, rows, others = pointer(vertices), pointer(order), pointer(spare)
    shift = 0
    while most >> shift > 0:
        for i in range(DIGITS):
            digits[i] = 0
        for i in range(count):
            digits[((heads[rows[i]] >> shift) & 2047) + 1] += 1
        for i in range(2048):
            digits[i + 1] += digits[i]
        for i in range(count):
            digit = (heads[rows[i]] >> shift) & 2047
            others[digits[digit]] = rows[i]
            digits[digit] += 1
        rows, others = others, rows
        shift += 11
    if (shift // 11) & 1:  # the last pass wrote to the other array
        for i in range(count):
            order[i] = spare[i]
