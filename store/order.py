"""In which order a batch's rows are applied: by vertex, those of one as they came.

A *shard* is a set of vertices that one thread at a time works on. Rows are dealt to threads by
whole shards; each thread picks its own out of all, and sorts them.
"""

from store.blocks import Words
from store.jit import inlined, step
from store.lanes import bits_of, write_where
from store.words import longs_room, onwards, wide

SHARDS = 16
BLOCK = 6  # 64 vertices in a row share a shard; with 4, a half of a batch took 2 % longer
PASS = 2049  # counts of one pass of the sort, moved up by one
DIGITS = 3 * PASS
COUNTS = 4 * SHARDS
LINE = 16  # rows of a cache line
SAMPLE = 65536  # rows by which a batch is dealt


@inlined
def shard_of(vertex: int) -> int:
    """The shard of a vertex: as neighbours share cache lines and pages, they share a shard."""
    return (vertex >> BLOCK) & (SHARDS - 1)


@step
def deal_shards(heads: Words, count: int, thread: int, threads: int, late: int) -> int:
    """The shards whose rows a thread takes, as bits: so that all end at nearly the same time.

    The largest shard first, each to the thread that would be the first to end. How large they are
    is told by a sample of the rows, of whole cache lines. Each thread asks this for itself: while
    the caller does, the others wake up.

    Args:
        heads: the vertex of each row, shape (count,).
        thread: 0 is the caller's.
        threads: at most SHARDS.
        late: by how many rows the others start later than the caller.
    """
    counts = longs_room(COUNTS)
    lines = count // LINE
    stride = max(wide(1), LINE * lines // SAMPLE)
    for i in range(COUNTS):
        counts[i] = 0
    # To add to what has just been added to takes five times as long: so there are four tables.
    for line in range(0, lines, stride):
        for i in range(LINE):
            counts[SHARDS * (i & 3) + shard_of(wide(heads[LINE * line + i]))] += 1
    for i in range(SHARDS, 4 * SHARDS):
        counts[i & (SHARDS - 1)] += counts[i]
        counts[i] = 0
    loads, masks = onwards(counts, wide(SHARDS)), onwards(counts, wide(2 * SHARDS))
    for other in range(1, threads):
        loads[other] = min(late, count // 80) // stride
    for _ in range(SHARDS):
        largest, first = 0, 0
        for shard in range(1, SHARDS):
            if counts[shard] > counts[largest]:
                largest = shard
        for other in range(1, threads):
            if loads[other] < loads[first]:
                first = other
        masks[first] |= 1 << largest
        loads[first] += counts[largest]
        counts[largest] = -1
    return wide(masks[thread])


@step
def pick_rows(heads: Words, count: int, wanted: int, rows: Words) -> int:
    """Write those of `count` rows whose shards have a bit in `wanted` to `rows`, as they came.

    Returns:
        How many.
    """
    at, whole = wide(0), count & -8
    for i in range(0, whole, 8):
        at += write_where(rows, at, i, bits_of(heads, i, BLOCK, SHARDS - 1, wanted))
    for i in range(whole, count):
        rows[at] = i
        at += (wanted >> shard_of(wide(heads[i]))) & 1
    return at


@step
def sort_rows(heads: Words, order: Words, spare: Words, count: int, most: int) -> None:
    """Order the rows `order[:count]` by vertex: radix sort, 11 bits a pass, stable.

    Args:
        heads: the vertex of each row.
        spare: room, as long as `order`.
        most: the greatest vertex.
    """
    digits = longs_room(DIGITS)
    rows, others = order, spare
    for i in range(DIGITS):
        digits[i] = 0
    # Digits are counted for all passes at once, while the vertices still come one after the other.
    for i in range(count):
        head = wide(heads[rows[i]])
        digits[(head & 2047) + 1] += 1
        digits[PASS + ((head >> 11) & 2047) + 1] += 1
        if most >> 22:
            digits[2 * PASS + (head >> 22) + 1] += 1
    shift, first = 0, 0
    while most >> shift > 0:
        for i in range(first, first + 2048):
            digits[i + 1] += digits[i]
        for i in range(count):
            digit = first + ((heads[rows[i]] >> shift) & 2047)
            others[digits[digit]] = rows[i]
            digits[digit] += 1
        rows, others = others, rows
        shift += 11
        first += PASS
    if (shift // 11) & 1:  # the last pass wrote to the other array
        for i in range(count):
            order[i] = spare[i]
