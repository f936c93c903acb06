"""The store's workload: a skewed graph, a stream of mixed changes, and seeds to sample from.

Out- and in-degrees follow Zipf's law with exponent 0.8, weights are lognormal. Changes are half new
edges, three tenths new weights, two tenths deletions. Everything follows from the seed.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

ADD, SET, DELETE = 0, 1, 2


@dataclass(frozen=True)
class Workload:
    """Edges that are loaded, changes to them, edges to grow by, and seeds of draws.

    Attributes:
        heads, tails: int32, shape (E,), no edge twice.
        weights: float32, shape (E,).
        to_heads, to_tails, to_weights, ops: changes (0 insert, 1 reweight, 2 delete), shape (U,).
        new_heads, new_tails, new_weights: edges that are not loaded, shape (E // 5,).
        seeds: vertices with edges, with repeats, shape (100_000,), int32.
        few_seeds: such vertices without repeats, shape (4096,), int32.
    """

    vertices: int
    heads: np.ndarray
    tails: np.ndarray
    weights: np.ndarray
    to_heads: np.ndarray
    to_tails: np.ndarray
    to_weights: np.ndarray
    ops: np.ndarray
    new_heads: np.ndarray
    new_tails: np.ndarray
    new_weights: np.ndarray
    seeds: np.ndarray
    few_seeds: np.ndarray


def make(vertices: int = 200_000, edges: int = 5_000_000, *, seed: int = 7) -> Workload:
    """The workload of a size; a fifth as many edges again are kept apart, to be inserted."""
    rng = np.random.default_rng(seed)
    ranks = 1.0 / np.arange(1, vertices + 1) ** 0.8
    share = np.cumsum(ranks / ranks.sum())
    out, into = rng.permutation(vertices), rng.permutation(vertices)
    total = edges + edges // 5
    keys = np.empty(0, np.int64)
    while len(keys) < total:
        some = max(100_000, int((total - len(keys)) * 1.3))
        heads = out[np.minimum(np.searchsorted(share, rng.random(some)), vertices - 1)]
        tails = into[np.minimum(np.searchsorted(share, rng.random(some)), vertices - 1)]
        keys = np.unique(np.concatenate([keys, heads.astype(np.int64) * vertices + tails]))
    rng.shuffle(keys)
    keys = keys[:total]
    all_heads, all_tails = (keys // vertices).astype(np.int32), (keys % vertices).astype(np.int32)
    weights = np.exp(rng.standard_normal(total)).astype(np.float32)

    changes = edges // 5
    ops = rng.choice(3, changes, p=[0.5, 0.3, 0.2]).astype(np.uint8)
    row = np.empty(changes, np.int64)
    count = [int((ops == op).sum()) for op in range(3)]
    mixed = rng.permutation(edges)
    row[ops == ADD] = edges + np.arange(count[ADD])
    row[ops == DELETE] = mixed[: count[DELETE]]
    row[ops == SET] = rng.choice(mixed[count[DELETE] :], count[SET])
    present = np.unique(all_heads[:edges])
    return Workload(
        vertices,
        all_heads[:edges],
        all_tails[:edges],
        weights[:edges],
        all_heads[row],
        all_tails[row],
        np.exp(rng.standard_normal(changes)).astype(np.float32),
        ops,
        all_heads[edges:],
        all_tails[edges:],
        weights[edges:],
        rng.choice(present, 100_000).astype(np.int32),
        rng.choice(present, min(4096, len(present)), replace=False).astype(np.int32),
    )


@dataclass(frozen=True)
class Rows:
    """A workload of any size: rows that are sorted already, some changes to them, and seeds.

    Attributes:
        indptr, ids, weights: as `Forest.build` takes them, shapes (V + 1,), (E,), (E,).
        heads, tails, amounts, ops: changes, in the order and the shares of `Workload`, shape (U,).
        seeds: vertices with edges, with repeats, shape (100_000,), int32.
    """

    indptr: np.ndarray
    ids: np.ndarray
    weights: np.ndarray
    heads: np.ndarray
    tails: np.ndarray
    amounts: np.ndarray
    ops: np.ndarray
    seeds: np.ndarray


def make_rows(vertices: int, edges: int, changes: int, *, seed: int = 7, parts: int = 64) -> Rows:
    """Rows of about so many edges, drawn by the same laws; a part of the vertices at a time.

    So it takes ten bytes an edge, and not a hundred: how often each vertex is a head is drawn
    first, then each part's tails. A pair that is drawn twice stands once.
    """
    rng = np.random.default_rng(seed)
    ranks = 1.0 / np.arange(1, vertices + 1) ** 0.8
    share = ranks / ranks.sum()
    upto, into = np.cumsum(share), rng.permutation(vertices).astype(np.int32)
    twice = 0.03 + 0.23 * (1e6 / edges) ** 0.35  # share of pairs that are drawn again, as seen
    drawn = rng.multinomial(int(edges * (1 + twice)), share)[rng.permutation(vertices)]
    ops = rng.choice(3, changes, p=[0.5, 0.3, 0.2]).astype(np.uint8)
    spared = int((ops == ADD).sum()) / (edges * 1.02) * 1.1  # share of edges kept to be inserted
    degrees = np.zeros(vertices, np.int64)
    ids, weights, fresh = [], [], []
    bounds = np.linspace(0, vertices, parts + 1).astype(np.int64).tolist()
    for first, last in pairwise(bounds):
        heads = np.repeat(np.arange(last - first), drawn[first:last])
        uniform = np.sort(rng.random(len(heads)))  # what ascends is found much sooner
        tails = into[np.minimum(np.searchsorted(upto, uniform), vertices - 1)]
        keys = np.unique(heads * vertices + rng.permutation(tails))
        later = rng.random(len(keys)) < spared
        fresh.append(keys[later] + first * vertices)
        keys = keys[~later]
        degrees[first:last] = np.bincount(keys // vertices, minlength=last - first)
        ids.append((keys % vertices).astype(np.int32))
        weights.append(np.exp(rng.standard_normal(len(keys), np.float32)))
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    columns = np.concatenate(ids), np.concatenate(weights)

    known = rng.choice(len(columns[0]), int((ops != ADD).sum()), replace=False, shuffle=False)
    known = rng.permutation(known)
    pairs = rng.permutation(np.concatenate(fresh))[: int((ops == ADD).sum())]
    heads, tails = np.empty(changes, np.int32), np.empty(changes, np.int32)
    heads[ops == ADD], tails[ops == ADD] = pairs // vertices, pairs % vertices
    heads[ops != ADD] = np.searchsorted(indptr, known, side="right") - 1
    tails[ops != ADD] = columns[0][known]
    amounts = np.exp(rng.standard_normal(changes, np.float32))
    seeds = rng.choice(np.flatnonzero(degrees), 100_000).astype(np.int32)
    return Rows(indptr, *columns, heads, tails, amounts, ops, seeds)
