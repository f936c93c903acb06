"""The store's workload: a skewed graph, a stream of mixed changes, and seeds to sample from.

Out- and in-degrees follow Zipf's law with exponent 0.8, weights are lognormal. Changes are half new
edges, three tenths new weights, two tenths deletions. Everything follows from the seed.
"""

from dataclasses import dataclass

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
