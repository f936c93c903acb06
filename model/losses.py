"""The loss of link prediction: a sampled softmax that estimates the full one.

For a pair i -> j the model's probability is exp(s_ij) / sum_k exp(s_ik) over all titles k but i.
The sum is estimated from negatives k drawn with replacement from q, each weighted by
1 / (n q_k): the logQ correction. A draw that hits j or i is masked. Half of the draws even, half
by popularity: even ones alone hardly ever meet a rival of a popular title.

Source of the correction: Y. Bengio, J.-S. Senecal, "Adaptive Importance Sampling to Accelerate
Training of a Neural Probabilistic Language Model", IEEE Trans. Neural Networks 19(4), 2008.

Shape suffixes: B pairs, K negatives, T titles, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Negatives:
    """Titles drawn against a batch.

    Attributes:
        title_K: local titles, shape (K,), int64.
        log_q_K: logarithm of the number of times that each was to be expected, shape (K,).
    """

    title_K: Tensor
    log_q_K: Tensor


class NegativeSampler:
    """Draws of titles from an even and a popularity-weighted part.

    Args:
        popularity_T: >= 0, shape (T,); where it sums to 0 all draws are even.
        uniform: even draws.
        popular: draws by popularity.
    """

    def __init__(self, popularity_T: Tensor, *, uniform: int, popular: int) -> None:
        titles = len(popularity_T)
        total = popularity_T.sum()
        if float(total) <= 0:
            uniform, popular = uniform + popular, 0
        self.titles, self.uniform, self.popular = titles, uniform, popular
        expected_T = torch.full_like(popularity_T, uniform / max(titles, 1))
        if popular:
            expected_T = expected_T + popular * popularity_T / total
        self.log_expected_T = torch.log(expected_T)
        self.cumulative_T = torch.cumsum(popularity_T.double(), 0)

    def draw(self, generator: torch.Generator) -> Negatives:
        even = torch.randint(self.titles, (self.uniform,), generator=generator)
        if not self.popular:
            return Negatives(even, self.log_expected_T[even])
        u = torch.rand(self.popular, generator=generator, dtype=torch.float64)
        hit = torch.searchsorted(self.cumulative_T, u * self.cumulative_T[-1], right=True)
        title_K = torch.cat([even, hit.clamp(max=self.titles - 1)])
        return Negatives(title_K, self.log_expected_T[title_K])


def sampled_softmax(z_TD: Tensor, from_B: Tensor, to_B: Tensor, negatives: Negatives) -> Tensor:
    """Mean of -log P(to | from) over the batch, estimated; a scalar.

    Args:
        z_TD: vectors of all local titles.
        from_B, to_B: local titles of each pair, int64.
    """
    source_BD = z_TD.index_select(0, from_B)
    target_BD = z_TD.index_select(0, to_B)
    negative_KD = z_TD.index_select(0, negatives.title_K)
    hit_B = (source_BD * target_BD).sum(1)
    miss_BK = torch.addmm(-negatives.log_q_K, source_BD, negative_KD.T)
    title_K = negatives.title_K
    same_BK = (title_K == to_B[:, None]) | (title_K == from_B[:, None])
    miss_BK = miss_BK.masked_fill(same_BK, -torch.inf)
    logit_BL = torch.cat([hit_B.unsqueeze(1), miss_BK], 1)
    return F.cross_entropy(logit_BL, to_B.new_zeros(len(to_B)))


def distillation(z_TD: Tensor, old_TD: Tensor) -> Tensor:
    """Mean of 1 - cosine to the vectors that are published, over titles that have one; a scalar."""
    return (1.0 - F.cosine_similarity(z_TD, old_TD, dim=1)).mean()
