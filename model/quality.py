"""How good a ranking is: ranks, what is made of them, and how sure we are.

Item-side: given a title, rank all others; the *rank* of the one that came next counts those scored
higher, plus half of those scored the same (its expected place under a random order of ties), plus
one. So all-equal scores are worth what chance is worth, and no order of ids can help.

Shape suffixes: Q queries, T candidate titles, D width.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

CHUNK = 4096  # queries scored at once


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def ranks(
    vectors: npt.NDArray[np.float32],
    previous: Ints,
    following: Ints,
    *,
    candidates: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float64]:
    """Rank of each following title among all candidates but the previous one, shape (Q,).

    Scores are dot products. A following title that is no candidate (it has no vector) ranks last,
    at infinity; so does every one where the previous title has no vector.

    Args:
        vectors: shape (T, D).
        previous, following: rows of `vectors`, shape (Q,).
        candidates: rows that have a vector, shape (T,); None: all.
    """
    out = np.full(len(previous), np.inf)
    known = np.ones(len(vectors), bool) if candidates is None else candidates
    rows = np.flatnonzero(known[previous] & known[following] & (previous != following))
    hidden = np.flatnonzero(~known)
    for at in range(0, len(rows), CHUNK):
        chunk = rows[at : at + CHUNK]
        here = np.arange(len(chunk))
        score = vectors[previous[chunk]] @ vectors.T
        target = score[here, following[chunk]].copy()[:, None]
        score[:, hidden] = -np.inf
        score[here, previous[chunk]] = -np.inf
        above = (score > target).sum(1)
        ties = (score == target).sum(1) - 1
        out[chunk] = above + ties / 2 + 1
    return out


def recall_at_k(rank: Floats, k: int = 20) -> Floats:
    """1 where the rank is at most k, shape (Q,)."""
    return (rank <= k).astype(np.float64)


def ndcg_at_k(rank: Floats, k: int = 20) -> Floats:
    """1 / log2(rank + 1) up to rank k, else 0, shape (Q,)."""
    return np.where(rank <= k, 1.0 / np.log2(rank + 1.0), 0.0)


def reciprocal_rank(rank: Floats) -> Floats:
    """1 / rank, shape (Q,); 0 at infinity."""
    return 1.0 / rank


def bootstrap(values: Floats, cluster: Ints, *, seed: int, draws: int = 500) -> Interval:
    """Mean of `values` with an interval that draws whole clusters (users) anew.

    Args:
        values: shape (Q,).
        cluster: user of each query, shape (Q,); queries of one user are not independent.

    Returns:
        NaN throughout where there is nothing; a point where there is one user.
    """
    return Resampling(cluster, seed=seed, draws=draws).interval(values)


class Resampling:
    """Draws of whole clusters, made once for any number of figures over the same queries.

    Args:
        cluster: user of each query, shape (Q,).
        seed: of the draws; the same for two figures makes their difference a paired one.
    """

    def __init__(self, cluster: Ints, *, seed: int, draws: int = 500) -> None:
        found, self._cluster = np.unique(cluster, return_inverse=True)
        self._clusters = len(found)
        rng = np.random.default_rng(seed)
        self._times = np.empty((draws, self._clusters), np.float32)  # each is drawn so often
        for draw in range(draws if self._clusters else 0):
            drawn = rng.integers(self._clusters, size=self._clusters)
            self._times[draw] = np.bincount(drawn, minlength=self._clusters)
        self._count = self._times @ self._sum(np.ones(len(cluster)))

    def interval(self, values: Floats) -> Interval:
        """Mean of `values`, shape (Q,), and its interval; NaN throughout where there is nothing."""
        if not len(values):
            return Interval(float("nan"), float("nan"), float("nan"))
        means = (self._times @ self._sum(values)) / self._count
        low, high = np.percentile(means, [2.5, 97.5])
        return Interval(float(np.mean(values)), float(low), float(high))

    def _sum(self, values: Floats) -> npt.NDArray[np.float64]:
        """By cluster."""
        total = np.bincount(self._cluster, values, minlength=self._clusters)
        return total.astype(np.float64)
