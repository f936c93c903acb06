"""Kernels of the id table: a hash table over bytes, in flat arrays.

Layout (n ids were ever given out; a name is its UTF-8 bytes):

    slots    (2**k,) int32   an id, EMPTY, or GONE where an id was released; linear probing
    hashes   (n,)    uint32  hash of each id's name
    offsets  (n,)    int64   where its name starts in `blob`
    lengths  (n,)    int32   bytes of its name; -1: the id is free
    free     (n,)    int32   free ids, a stack of `state[FREE]` entries
    blob     (b,)    uint8   names, one after another, with the remains of released ones
    state    (5,)    int64   see the numbers below

The hash is FNV-1a with a final mix. It is not keyed: names come from a catalogue, and whoever can
choose a million of them to collide can slow the table down, but not make it wrong.

Source: G. Fowler, L. C. Noll, K.-P. Vo, "FNV hash" (public domain), and the finaliser of
A. Appleby's MurmurHash3.
"""

import numpy as np
import numpy.typing as npt

from store.jit import kernel
from store.words import wide

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint32]

EMPTY, GONE = -1, -2
NEXT, LIVE, FREE, USED, WASTE = 0, 1, 2, 3, 4  # ids given, live, free; blob bytes used, wasted


@kernel
def hash_name(blob: Bytes, start: int, stop: int) -> int:
    """Hash of `blob[start:stop]`, in 0..2**32 - 1."""
    value = np.uint64(0xCBF29CE484222325)
    for i in range(start, stop):
        value = (value ^ np.uint64(blob[i])) * np.uint64(0x100000001B3)
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(33)
    return np.int64(value & np.uint64(0xFFFFFFFF))  # type: ignore[return-value]


@kernel
def probe(
    slots: Ints,
    hashes: Hashes,
    offsets: Longs,
    lengths: Ints,
    blob: Bytes,
    names: Bytes,
    start: int,
    stop: int,
    value: int,
) -> int:
    """The slot that holds name `names[start:stop]` of hash `value`; or -1."""
    mask = len(slots) - 1
    at = value & mask
    while slots[at] != EMPTY:
        number = slots[at]
        if number >= 0 and hashes[number] == value and lengths[number] == stop - start:
            offset = offsets[number]
            i = 0
            while i < stop - start and blob[offset + i] == names[start + i]:
                i += 1
            if i == stop - start:
                return at
        at = (at + 1) & mask
    return -1


@kernel
def find(
    slots: Ints,
    hashes: Hashes,
    offsets: Longs,
    lengths: Ints,
    blob: Bytes,
    names: Bytes,
    ends: Longs,
    out: Ints,
) -> None:
    """Write the id of each name to `out`, -1 where there is none.

    Args:
        names: the names' bytes, one after another.
        ends: where each ends, shape (N,).
        out: written, shape (N,).
    """
    start = wide(0)
    for i in range(len(ends)):
        stop = ends[i]
        value = hash_name(names, start, stop)
        at = probe(slots, hashes, offsets, lengths, blob, names, start, stop, value)
        out[i] = slots[at] if at >= 0 else -1
        start = stop


@kernel
def intern(
    slots: Ints,
    hashes: Hashes,
    offsets: Longs,
    lengths: Ints,
    free: Ints,
    blob: Bytes,
    state: Longs,
    names: Bytes,
    ends: Longs,
    out: Ints,
) -> None:
    """As `find`, but a name without an id gets one. The arrays have room for all names."""
    mask = len(slots) - 1
    start = wide(0)
    for i in range(len(ends)):
        stop = ends[i]
        value = hash_name(names, start, stop)
        at = probe(slots, hashes, offsets, lengths, blob, names, start, stop, value)
        if at >= 0:
            out[i] = slots[at]
            start = stop
            continue
        if state[FREE] > 0:
            state[FREE] -= 1
            number = np.int64(free[state[FREE]])
        else:
            number = state[NEXT]
            state[NEXT] += 1
        offset = state[USED]
        for k in range(stop - start):
            blob[offset + k] = names[start + k]
        state[USED] = offset + stop - start
        hashes[number] = value
        offsets[number] = offset
        lengths[number] = stop - start
        state[LIVE] += 1
        at = value & mask
        while slots[at] >= 0:
            at = (at + 1) & mask
        slots[at] = number
        out[i] = number
        start = stop


@kernel
def release(
    slots: Ints, hashes: Hashes, lengths: Ints, free: Ints, state: Longs, ids: Ints
) -> None:
    """Free live ids, without repeats: the last one is the first to be given out again."""
    mask = len(slots) - 1
    for i in range(len(ids)):
        number = ids[i]
        at = np.int64(hashes[number]) & mask
        while slots[at] != number:
            at = (at + 1) & mask
        slots[at] = GONE
        state[WASTE] += lengths[number]
        lengths[number] = -1
        free[state[FREE]] = number
        state[FREE] += 1
        state[LIVE] -= 1


@kernel
def rehash(slots: Ints, hashes: Hashes, lengths: Ints, state: Longs) -> None:
    """Fill the empty table `slots` with all live ids."""
    mask = len(slots) - 1
    for number in range(state[NEXT]):
        if lengths[number] >= 0:
            at = np.int64(hashes[number]) & mask
            while slots[at] != EMPTY:
                at = (at + 1) & mask
            slots[at] = number


@kernel
def gather(offsets: Longs, lengths: Ints, blob: Bytes, ids: Ints, out: Bytes) -> None:
    """Copy the names of `ids` to `out`, one after another."""
    at = 0
    for i in range(len(ids)):
        offset = offsets[ids[i]]
        for k in range(lengths[ids[i]]):
            out[at + k] = blob[offset + k]
        at += lengths[ids[i]]


@kernel
def compact(offsets: Longs, lengths: Ints, blob: Bytes, state: Longs, out: Bytes) -> None:
    """Copy the live names to `out`, one after another, and point `offsets` there."""
    at = np.int64(0)
    for number in range(state[NEXT]):
        if lengths[number] >= 0:
            offset = offsets[number]
            for k in range(lengths[number]):
                out[at + k] = blob[offset + k]
            offsets[number] = at
            at += lengths[number]
    state[USED] = at
    state[WASTE] = 0
