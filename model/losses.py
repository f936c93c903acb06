"""The loss of link prediction: a softmax over all titles, or an estimate of it from a sample.

For a title i and one played with it, t, the model's probability is exp(s_it) / Z_i, where Z_i sums
exp(s_ik) over all titles k but i. Where the titles are few, Z_i is exact, and a step takes some
sources i with all that was counted of them (`exact_softmax`). Else it takes some targets of each,
since Z_i is the dear part and is shared by them: the targets enter as they are, and the rest is
estimated from *candidates* k, each weighted by 1 / (expected number of its draws): the logQ
correction. Half of the draws are even, half by popularity: even ones alone hardly ever meet a rival
of a popular title. A candidate that is a target of i, or i, is masked.

Source of the correction: Y. Bengio, J.-S. Senecal, "Adaptive Importance Sampling to Accelerate
Training of a Neural Probabilistic Language Model", IEEE Trans. Neural Networks 19(4), 2008.

Shape suffixes: S sources, M targets of each, K candidates, T titles, D width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Logits of an exact softmax that are made at once: 4 MB stay in a core's share of the cache; on a
# GPU fewer and larger steps count for more.
LOGITS, LOGITS_OF_A_GPU = 1 << 20, 1 << 26
# A published vector whose square is a smaller share of the mean one is held as if it were not.
NEXT_TO_NOTHING = 0.01


@dataclass(frozen=True, slots=True)
class Candidates:
    """Titles that stand for all in the sum.

    Attributes:
        title_K: local titles, ascending, without repeats, shape (K,), int64.
        log_weight_K: logarithm of how many titles each stands for, shape (K,).
    """

    title_K: Tensor
    log_weight_K: Tensor

    def to(self, device: torch.device) -> "Candidates":
        """All of it there."""
        return Candidates(self.title_K.to(device), self.log_weight_K.to(device))


class CandidateSampler:
    """Draws of titles, from an even and a popularity-weighted part.

    Args:
        popularity_T: >= 0, shape (T,); where it sums to 0 all draws are even.
        uniform: even draws.
        popular: draws by popularity. Where the draws are no fewer than the titles, all titles are
            taken and nothing is drawn.
        exact: up to so many titles that is done in any case.
    """

    def __init__(self, popularity_T: Tensor, *, uniform: int, popular: int, exact: int = 0) -> None:
        titles = len(popularity_T)
        total = popularity_T.sum()
        if float(total) <= 0:
            uniform, popular = uniform + popular, 0
        self.titles, self.uniform, self.popular = titles, uniform, popular
        self.exact = max(uniform + popular, exact) >= titles
        expected_T = torch.full_like(popularity_T, uniform / max(titles, 1))
        if popular:
            expected_T = expected_T + popular * popularity_T / total
        self.log_expected_T = torch.log(expected_T)
        self.cumulative_T = torch.cumsum(popularity_T.double(), 0)

    def draw(self, generator: torch.Generator) -> Candidates:
        if self.exact:
            all_T = torch.arange(self.titles)
            return Candidates(all_T, torch.zeros(self.titles))
        drawn = torch.randint(self.titles, (self.uniform,), generator=generator)
        if self.popular:
            u = torch.rand(self.popular, generator=generator, dtype=torch.float64)
            hit = torch.searchsorted(self.cumulative_T, u * self.cumulative_T[-1], right=True)
            drawn = torch.cat([drawn, hit.clamp(max=self.titles - 1)])
        title_K, count_K = torch.unique(drawn, return_counts=True)
        return Candidates(title_K, torch.log(count_K) - self.log_expected_T[title_K])


@dataclass(frozen=True, slots=True)
class Shares:
    """P(target | source), as it was counted, as compressed rows; a source is no target of its own.

    Attributes:
        ptr: targets of source s are ptr[s]:ptr[s + 1], shape (S + 1,), int64.
        target: titles, without repeats in a row, shape (Q,), int64.
        share: shape (Q,); those of a source sum to 1.
    """

    ptr: Tensor
    target: Tensor
    share: Tensor

    def to(self, device: torch.device) -> "Shares":
        """All of it there."""
        return Shares(self.ptr.to(device), self.target.to(device), self.share.to(device))


def exact_softmax(
    z_TD: Tensor, source_S: Tensor, shares: Shares, weight_S: Tensor, *, bf16: bool = False
) -> Tensor:
    """Cross entropy of P(target | source), as it was counted, to the model's; a scalar.

    Nothing is drawn but the sources: with a few targets of each, their noise would be most of the
    gradient.

    Args:
        z_TD: vectors of all titles.
        source_S: different titles, int64.
        weight_S: of each source in the mean; sums to 1.
        bf16: multiply the gradients in bfloat16; the scores are of float32 in any case, or those
            of alike titles would be the same.
    """
    loss: Tensor = _ExactSoftmax.apply(z_TD, source_S, shares, weight_S, bf16)  # type: ignore[no-untyped-call]
    return loss


class _ExactSoftmax(torch.autograd.Function):
    """By hand, some sources at a time, so that their logits stay in the cache.

    All that is read of a row is in it once, and the loss is one number: so the gradient is made on
    the way, and no table of (S, T) is ever written.
    """

    @staticmethod
    def forward(
        ctx: Any, z_TD: Tensor, source_S: Tensor, shares: Shares, weight_S: Tensor, bf16: bool
    ) -> Tensor:
        titles, sources = len(z_TD), len(source_S)
        logits = LOGITS if z_TD.device.type == "cpu" else LOGITS_OF_A_GPU
        step = max(logits // max(titles, 1), 1)
        source_SD = z_TD.index_select(0, source_S)
        coarse = torch.bfloat16 if bf16 else z_TD.dtype
        coarse_TD, coarse_SD = z_TD.to(coarse), source_SD.to(coarse)
        counts_S = torch.diff(shares.ptr)
        weight_Q = shares.share * torch.repeat_interleave(weight_S, counts_S)
        line_S = torch.arange(sources, device=z_TD.device) % step
        place_Q = torch.repeat_interleave(line_S * titles, counts_S) + shares.target
        grad_TD, loss = torch.zeros_like(z_TD), z_TD.new_zeros(())
        ends = [*shares.ptr[::step].cpu().tolist(), len(shares.share)]
        table_BT = z_TD.new_empty(min(step, sources), titles)
        for number, start in enumerate(range(0, sources, step)):
            source_B, source_BD = source_S[start : start + step], source_SD[start : start + step]
            weight_B1 = weight_S[start : start + step].unsqueeze(1)
            table = torch.mm(source_BD, z_TD.T, out=table_BT[: len(source_B)])
            some = slice(ends[number], ends[number + 1])
            loss -= table.view(-1).index_select(0, place_Q[some]) @ weight_Q[some]
            table.scatter_(1, source_B.unsqueeze(1), -torch.inf)
            most_B1 = table.amax(1, keepdim=True)
            table.sub_(most_B1).exp_()
            total_B1 = table.sum(1, keepdim=True)
            loss += (weight_B1 * (most_B1 + total_B1.log())).sum()
            # The gradient to the logits: w (P - share).
            table.mul_(weight_B1 / total_B1)
            table.view(-1).index_add_(0, place_Q[some], weight_Q[some], alpha=-1)
            gradient = table.to(coarse)
            grad_TD.add_(gradient.T @ coarse_SD[start : start + step])
            grad_TD.index_add_(0, source_B, (gradient @ coarse_TD).to(z_TD.dtype))
        ctx.save_for_backward(grad_TD)
        return loss

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad_TD,) = ctx.saved_tensors
        return grad_TD * above[0], None, None, None, None


def sampled_softmax(
    z_TD: Tensor, source_S: Tensor, target_SM: Tensor, candidates: Candidates
) -> Tensor:
    """Mean of -log P(target | source), estimated; a scalar.

    Args:
        z_TD: vectors of all local titles.
        source_S: local titles, int64.
        target_SM: local titles that were played with each source, int64, repeats allowed.
    """
    source_SD = z_TD.index_select(0, source_S)
    title_K = candidates.title_K
    rest_SK = torch.addmm(candidates.log_weight_K, source_SD, z_TD.index_select(0, title_K).T)
    known_SM = torch.sort(target_SM, dim=1).values
    target_SMD = z_TD.index_select(0, known_SM.flatten()).view(*known_SM.shape, -1)
    hit_SM = torch.einsum("sd,smd->sm", source_SD, target_SMD)
    # Out of the estimated rest: the source itself, and all that enters as a target.
    out_SL = torch.cat([source_S.unsqueeze(1), known_SM], 1)
    at_SL = torch.searchsorted(title_K, out_SL).clamp(max=len(title_K) - 1)
    there_SL = title_K[at_SL] == out_SL
    mask_SK = torch.zeros_like(rest_SK)
    mask_SK.scatter_add_(1, at_SL, there_SL.float())
    rest_SK = rest_SK.masked_fill(mask_SK > 0, -torch.inf)
    repeat_SM = torch.zeros_like(known_SM, dtype=torch.bool)
    repeat_SM[:, 1:] = known_SM[:, 1:] == known_SM[:, :-1]
    logit_SL = torch.cat([hit_SM.masked_fill(repeat_SM, -torch.inf), rest_SK], 1)
    return (torch.logsumexp(logit_SL, 1) - hit_SM.mean(1)).mean()


def distillation(z_TD: Tensor, old_TD: Tensor) -> Tensor:
    """Mean of |z - old|^2 / (2 |old|^2), over titles with a published vector `old`; a scalar.

    For vectors of one length that is 1 - cosine; but lengths are held too. With the cosine alone,
    the optimiser's noise lengthened all vectors some 10 % a cycle, and most those that little is
    known of: in the mean of several titles, these then counted for as much as any.
    """
    square_T = (old_TD * old_TD).sum(1)
    square_T = square_T.clamp(min=NEXT_TO_NOTHING * float(square_T.mean()))
    return ((z_TD - old_TD).square().sum(1) / (2.0 * square_T)).mean()
