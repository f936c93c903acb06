"""Arms that count: popularity, co-counts, and cosine over concepts. Nothing is trained.

    popularity_fresh   plays so far
    cocount_*          P(j | i), smoothed towards popularity: (c_ij + k p_j) / (s_i + k); k is the
                       one of `PRIORS` that does best on the newest tenth of history
    kg_cosine          cosine over a title's concepts, weighted by inverse document frequency

Shape suffixes: Q questions, T titles, C concepts.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import sparse

from model.evaluation.arms import Without
from model.evaluation.queries import Scorer
from model.evaluation.world import World

Float32s = npt.NDArray[np.float32]
Choose = Callable[[Callable[[World, float], Scorer], tuple[float, ...]], float]

PRIORS = (1.0, 5.0, 20.0, 100.0)


class Popularity(Without):
    """Plays so far, whatever was played before."""

    def scorer(self, world: World) -> Scorer:
        plays_T = world.plays_T.astype(np.float32)

        def score(mix: sparse.csr_array) -> Float32s:
            return np.broadcast_to(plays_T, (mix.shape[0], len(plays_T)))

        return score


class CoCounts(Without):
    """P(j | i) by co-plays.

    Args:
        fresh: whether co-plays of the stream count, or those of history only.
        prior: k above.
    """

    def __init__(self, *, fresh: bool, prior: float) -> None:
        self._fresh, self._prior = fresh, prior
        self._frozen: Scorer | None = None

    def start(self, world: World) -> None:
        self._frozen = cocount_scorer(world, self._prior)

    def scorer(self, world: World) -> Scorer:
        if self._fresh or self._frozen is None:
            return cocount_scorer(world, self._prior)
        return self._frozen


def cocount_scorer(world: World, prior: float) -> Scorer:
    """(c_ij + k p_j) / (s_i + k), p by plays."""
    counts = world.counts()
    plays_T = world.plays_T.astype(np.float64)
    share_T = (plays_T / max(plays_T.sum(), 1.0)).astype(np.float32)
    total_T = np.asarray(counts.sum(axis=1)).ravel().astype(np.float32)
    weight_T = 1.0 / (total_T + np.float32(prior))
    rows = sparse.csr_array(sparse.diags_array(weight_T) @ counts)

    def score(mix: sparse.csr_array) -> Float32s:
        back_Q1 = np.asarray(mix @ (prior * weight_T), np.float32)[:, None]
        return np.asarray((mix @ rows).toarray() + back_Q1 * share_T, np.float32)

    return score


class ConceptCosine(Without):
    """Cosine over concepts."""

    def scorer(self, world: World) -> Scorer:
        table = world.concepts()
        titles = max(int(world.known_T.sum()), 1)
        holders_C = np.bincount(table.indices, minlength=table.shape[1])
        idf_C = np.log(titles / np.maximum(holders_C, 1)).astype(np.float32)
        weighted = sparse.csr_array(table @ sparse.diags_array(idf_C))
        length_T = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
        scale_T = 1.0 / np.where(length_T > 0, length_T, 1.0)
        unit_TC = sparse.csr_array(sparse.diags_array(scale_T.astype(np.float32)) @ weighted)
        unit_CT = sparse.csr_array(unit_TC.T)

        def score(mix: sparse.csr_array) -> Float32s:
            return np.asarray(((mix @ unit_TC) @ unit_CT).toarray(), np.float32)

        return score
