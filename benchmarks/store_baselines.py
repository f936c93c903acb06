"""Two stores to compare with, written here: a static alias table, and blocks under keys.

The alias table is the fastest way to draw from what never changes: two random numbers and a line or
two a draw, whatever the degree; a change rebuilds the row.

Blocks under keys are ours, in the manner of PlatoGL as X. Huang et al., ICDE 2024, describe it: a
hash table maps (vertex, block number) to a block of 64 edges, and each vertex has a table of
cumulative sums (CSTable) for inverse transform sampling; an update writes the table anew from the
changed edge on. It is no measurement of PlatoGL itself.
"""

import numpy as np

from store.jit import kernel
from store.random_bits import lower, number, row_key, upper

BLOCK = 64  # edges of a block


@kernel
def build_alias(indptr, weights, chance, other) -> None:
    """Vose's tables of each row: `chance` to stay in a slot, and the `other` slot."""
    for v in range(len(indptr) - 1):
        first, last = indptr[v], indptr[v + 1]
        n = last - first
        if n == 0:
            continue
        total = 0.0
        for e in range(first, last):
            total += weights[e]
        small, large = np.empty(n, np.int64), np.empty(n, np.int64)
        scaled = np.empty(n, np.float64)
        smalls = larges = 0
        for i in range(n):
            scaled[i] = weights[first + i] * n / total
            if scaled[i] < 1:
                small[smalls] = i
                smalls += 1
            else:
                large[larges] = i
                larges += 1
        while smalls and larges:
            smalls -= 1
            low, high = small[smalls], large[larges - 1]
            chance[first + low], other[first + low] = scaled[low], high
            scaled[high] -= 1 - scaled[low]
            if scaled[high] < 1:
                larges -= 1
                small[smalls] = high
                smalls += 1
        for i in range(smalls):
            chance[first + small[i]], other[first + small[i]] = 1, small[i]
        for i in range(larges):
            chance[first + large[i]], other[first + large[i]] = 1, large[i]


@kernel
def draw_alias(indptr, ids, chance, other, seeds, k, seed, out) -> None:
    """Draw k neighbours of each seed."""
    for row in range(len(seeds)):
        first = indptr[seeds[row]]
        n = indptr[seeds[row] + 1] - first
        key = row_key(seed, row)
        for j in range(k):
            if n == 0:
                out[row * k + j] = -1
                continue
            bits = number(key, j)
            slot = min(np.int64(upper(bits) * n), n - 1)
            if lower(bits) >= chance[first + slot]:
                slot = other[first + slot]
            out[row * k + j] = ids[first + slot]


class AliasTable:
    """Rows of a static graph, with alias tables: 12 bytes an edge."""

    def __init__(self, indptr, ids, weights) -> None:
        self.indptr, self.ids = indptr, ids
        self.chance = np.empty(len(ids), np.float32)
        self.other = np.empty(len(ids), np.int32)
        build_alias(indptr, weights, self.chance, self.other)

    def sample(self, seeds, k: int, seed: int):
        out = np.empty(len(seeds) * k, np.int32)
        draw_alias(self.indptr, self.ids, self.chance, self.other, seeds, k, seed, out)
        return out


@kernel
def slot_of(keys, key) -> int:
    """The slot of the hash table where `key` stands, or would."""
    mask = len(keys) - 1
    at = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)) & mask
    while keys[at] != key and keys[at] != -1:
        at = (at + 1) & mask
    return at


@kernel
def change_blocks(
    degree, starts, rooms, keys, values, ids, weights, sums, state, heads, tails, amounts, ops
) -> None:
    """Insert, reweight or delete, one edge after another."""
    for e in range(len(heads)):
        v, tail = np.int64(heads[e]), tails[e]
        n = degree[v]
        found = -1
        for b in range((n + BLOCK - 1) // BLOCK):
            base = values[slot_of(keys, v * 65536 + b)] * BLOCK
            for i in range(min(BLOCK, n - b * BLOCK)):
                if ids[base + i] == tail:
                    found = b * BLOCK + i
                    break
            if found >= 0:
                break
        if ops[e] == 2 and found < 0:
            continue
        if found < 0:
            found = n
            if n % BLOCK == 0:
                at = slot_of(keys, v * 65536 + n // BLOCK)
                if keys[at] == -1:
                    keys[at], values[at] = v * 65536 + n // BLOCK, state[0]
                    state[0] += 1
            if n == rooms[v]:
                room = max(4, 2 * rooms[v])
                for i in range(n):
                    sums[state[1] + i] = sums[starts[v] + i]
                starts[v], rooms[v] = state[1], room
                state[1] += room
            degree[v] = n = n + 1
            ids[values[slot_of(keys, v * 65536 + found // BLOCK)] * BLOCK + found % BLOCK] = tail
        here = values[slot_of(keys, v * 65536 + found // BLOCK)] * BLOCK + found % BLOCK
        if ops[e] == 2:
            last = n - 1
            there = values[slot_of(keys, v * 65536 + last // BLOCK)] * BLOCK + last % BLOCK
            ids[here], weights[here] = ids[there], weights[there]
            degree[v] = n = last
        else:
            weights[here] = amounts[e]
        total = sums[starts[v] + found - 1] if found > 0 else np.float32(0)
        for b in range(found // BLOCK, (n + BLOCK - 1) // BLOCK):
            base = values[slot_of(keys, v * 65536 + b)] * BLOCK
            for i in range(max(found, b * BLOCK), min(n, (b + 1) * BLOCK)):
                total += weights[base + i - b * BLOCK]
                sums[starts[v] + i] = total


@kernel
def draw_blocks(degree, starts, keys, values, ids, sums, seeds, k, seed, out) -> None:
    """Draw k neighbours of each seed: binary search in the sums, then the block by its key."""
    for row in range(len(seeds)):
        v = np.int64(seeds[row])
        n = degree[v]
        key = row_key(seed, row)
        for j in range(k):
            if n == 0:
                out[row * k + j] = -1
                continue
            mass = upper(number(key, j)) * sums[starts[v] + n - 1]
            low, left = 0, n
            while left > 1:
                half = left >> 1
                if sums[starts[v] + low + half - 1] <= mass:
                    low += half
                left -= half
            base = values[slot_of(keys, v * 65536 + low // BLOCK)] * BLOCK
            out[row * k + j] = ids[base + low % BLOCK]


class KeyedBlocks:
    """Blocks of edges in a key-value table, with a CSTable a vertex."""

    def __init__(self, vertices: int, blocks: int, sums: int) -> None:
        slots = 1 << int(np.ceil(np.log2(blocks / 0.7)))
        self.degree = np.zeros(vertices, np.int32)
        self.starts, self.rooms = np.zeros(vertices, np.int64), np.zeros(vertices, np.int32)
        self.keys, self.values = np.full(slots, -1, np.int64), np.zeros(slots, np.int64)
        self.ids = np.zeros(blocks * BLOCK, np.int32)
        self.weights = np.zeros(blocks * BLOCK, np.float32)
        self.sums = np.zeros(sums, np.float32)
        self.state = np.zeros(2, np.int64)

    @classmethod
    def of_rows(cls, indptr, ids, weights) -> "KeyedBlocks":
        """Loaded from rows; with room for a fifth more edges."""
        degrees = np.diff(indptr)
        blocks = int((-(-degrees // BLOCK)).sum())
        store = cls(len(degrees), blocks * 13 // 10 + 1000, int(degrees.sum()) * 4)
        rooms = np.maximum(degrees, 4)
        store.starts[:] = np.cumsum(rooms) - rooms
        store.rooms[:] = rooms
        store.degree[:] = degrees
        store.state[1] = rooms.sum()
        fill_blocks(
            indptr, ids, weights, store.starts, store.keys, store.values, store.ids,
            store.weights, store.sums, store.state,
        )  # fmt: skip
        return store

    def apply(self, heads, tails, amounts, ops) -> None:
        change_blocks(
            self.degree, self.starts, self.rooms, self.keys, self.values, self.ids,
            self.weights, self.sums, self.state, heads, tails, amounts, ops,
        )  # fmt: skip

    def sample(self, seeds, k: int, seed: int):
        out = np.empty(len(seeds) * k, np.int32)
        draw_blocks(
            self.degree, self.starts, self.keys, self.values, self.ids, self.sums, seeds, k, seed,
            out,
        )  # fmt: skip
        return out

    def nbytes(self) -> int:
        """Bytes in use: keys at a load of 0.7, blocks given out, sums given out, vertex table."""
        blocks, sums = self.state.tolist()
        return int(blocks * (16 / 0.7 + 8 * BLOCK) + 4 * sums + 16 * len(self.degree))


@kernel
def fill_blocks(
    indptr, ids, weights, starts, keys, values, to_ids, to_weights, sums, state
) -> None:
    """Load rows into blocks."""
    for v in range(len(indptr) - 1):
        total = np.float32(0)
        base = 0
        for e in range(indptr[v], indptr[v + 1]):
            i = e - indptr[v]
            if i % BLOCK == 0:
                at = slot_of(keys, v * 65536 + i // BLOCK)
                keys[at], values[at] = v * 65536 + i // BLOCK, state[0]
                base = state[0] * BLOCK
                state[0] += 1
            to_ids[base + i % BLOCK], to_weights[base + i % BLOCK] = ids[e], weights[e]
            total += weights[e]
            sums[starts[v] + i] = total
