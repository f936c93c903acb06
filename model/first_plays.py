"""How titles that nobody had played are read, learnt from those that were then played first.

A window of co-plays asks questions: by the titles that a play was paired with, which title was
played? All titles have the vector that they had, or would have had, before the window: played ones
as they are, the others by theta (model/unplayed.py). Two multinomial logits are fitted in turn.
Which of the unplayed titles was it, given that it was one: the partial likelihood of D. R. Cox,
"Partial Likelihood", Biometrika 62(2), 1975, with these titles at risk; it gives what tells them
apart. Then which of all titles was it: that gives the level, and the scale of the played ones'
scores. In one fit, what sets the level from question to question would stand in the way of what
tells titles apart. Window after window the posterior is the next one's prior, both taken as normal
(Laplace's approximation): nothing of the past need be kept, and few first plays move theta little.

The model must not have learnt from the window's co-plays, or it knows the answers.

Shape suffixes: Q questions, N dense ids, P unplayed titles, K weights, D width.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.special import logsumexp, softmax

from model.align import drift
from model.inference import Embedder
from model.positives import Positives
from model.reading import Reading
from model.semantic_gnn import SemanticGNN
from model.unplayed import SPREAD, WEIGHTS, answers, read, statistics

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]

QUESTIONS = 128  # of first plays, and as many of others; drawn where there are more
AT_RISK = 4096  # unplayed titles; likewise
MEMORY = 200_000  # questions after which what is known counts for 1 / e: tastes change
NOTHING = 1e-3  # share of a step that is not worth while
ITERATIONS, ENOUGH = 50, 1e-3  # Newton steps, and the step at which they end, over `SPREAD`
LONGEST = 2.0  # of a step, likewise: the first ones are far from where it is quadratic
CHUNK = 16  # questions whose features are made at once
LEVEL = WEIGHTS.index("level")
ALL_SHARE = np.array([WEIGHTS.index("played"), LEVEL])
APART = np.setdiff1d(np.arange(len(WEIGHTS)), ALL_SHARE)


@dataclass(frozen=True, slots=True)
class Questions:
    """Plays and what they were paired with.

    Attributes:
        partners: dense ids by question, as compressed rows, each summing to 1, shape (Q, N).
        target: dense id of what was played, shape (Q,).
        weight: how many questions each stands for, shape (Q,).
    """

    partners: sparse.csr_array
    target: Int64s
    weight: Float64s

    @classmethod
    def of(cls, pairs: Positives, num_titles: int) -> "Questions":
        """A play is what all pairs of one moment have in common; of a lone pair, either title."""
        title = np.concatenate([pairs.a, pairs.b]).astype(np.int64)
        other = np.concatenate([pairs.b, pairs.a]).astype(np.int64)
        moment = np.tile(pairs.time_ms, 2)
        order = np.lexsort((title, moment))
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(title[order]) != 0) | (np.diff(moment[order]) != 0)
        group = np.empty(len(order), np.int64)
        group[order] = np.cumsum(new) - 1
        size = np.bincount(group)[group]
        half = len(pairs)
        kept = np.concatenate([size[:half] >= size[half:], size[half:] >= size[:half]])
        question, first, row = np.unique(group[kept], return_index=True, return_inverse=True)
        count = np.bincount(row)
        partners = sparse.coo_array(
            ((1.0 / count[row]).astype(np.float32), (row, other[kept])),
            shape=(len(question), num_titles),
        )
        return cls(sparse.csr_array(partners), title[kept][first], np.ones(len(question)))

    def some(self, rng: np.random.Generator, among: npt.NDArray[np.bool_], most: int) -> Int64s:
        """Rows drawn from those that `among` marks, at most `most`."""
        rows = np.flatnonzero(among)
        return rng.choice(rows, min(most, len(rows)), replace=False) if len(rows) else rows

    def drawn(self, rng: np.random.Generator, first_N: npt.NDArray[np.bool_]) -> "Questions":
        """`QUESTIONS` for first plays, and `QUESTIONS` for others."""
        is_first = first_N[self.target]
        kinds = (is_first, ~is_first)
        rows = [self.some(rng, among, QUESTIONS) for among in kinds]
        weight = [
            np.full(len(one), among.sum() / max(len(one), 1))
            for one, among in zip(rows, kinds, strict=True)
        ]
        both = np.concatenate(rows)
        return Questions(self.partners[both], self.target[both], np.concatenate(weight))


def first_played(reading: Reading, window: Positives) -> Int32s:
    """Titles all of whose co-plays are in `window`, dense ids, ascending.

    Args:
        window: pairs that the graph held as it was read.
    """
    title = np.concatenate([window.a, window.b])
    weight_N = np.bincount(
        title, np.tile(window.weight.astype(np.float64), 2), minlength=reading.title_capacity
    )
    mine = weight_N[reading.titles]
    return reading.titles[(mine > 0) & (mine >= (1 - 1e-3) * reading.strength)]


def learn_first_plays(
    model: SemanticGNN,
    reading: Reading,
    window: Positives,
    rng: np.random.Generator,
    *,
    same_mass: bool = False,
    least_cosine: float | None = None,
) -> int:
    """Move the model's theta by a window of co-plays.

    Args:
        model: bound to the graph that was read; it has not learnt from `window`.
        window: newest co-plays, in that graph already.
        same_mass: whether all of them together keep the share of the probability that their bare
            vectors have: a single window is of too few people to say how many plays are first ones,
            and taken at its word it once put unplayed titles before all others.
        least_cosine: to the vectors by the theta of before, in the mean over unplayed titles: theta
            goes only so far; the rest is left to the next window.

    Returns:
        The number of questions whose answer was a title not played before; 0 and nothing moves
        where no title is unplayed.
    """
    live, capacity = reading.titles, reading.title_capacity
    first = first_played(reading, window)
    at_risk = (reading.strength <= 0) | np.isin(live, first)
    played = live[~at_risk]
    if not len(window) or not at_risk.any() or not len(played):
        return 0
    embedder = Embedder(model)
    embedder.full_from(reading, hidden=first)
    first_N = np.zeros(capacity, bool)
    first_N[first] = True
    asked = Questions.of(window, capacity)
    events, questions = int(first_N[asked.target].sum()), len(asked.target)
    asked = asked.drawn(rng, first_N)

    answered = np.unique(asked.target[first_N[asked.target]])
    others = np.setdiff1d(live[at_risk], answered)
    drawn = rng.choice(others, min(AT_RISK, len(others)), replace=False)
    pool = np.concatenate([answered, drawn]).astype(np.int32)
    bare_PD, sums_PW = embedder.unplayed(reading, pool)
    log_weight_P = np.zeros(len(pool))
    log_weight_P[len(answered) :] = np.log(max(len(others), 1) / max(len(drawn), 1))

    vectors_ND = embedder.vectors(np.arange(capacity))
    question_QD = np.asarray(asked.partners @ vectors_ND, np.float32)
    scores = Scores(
        Rivals(question_QD, vectors_ND[played], _masked(asked.partners, played)),
        question_QD @ bare_PD.T,
        question_QD @ answers(sums_PW).T,
        question_QD @ embedder.table.toward,
        statistics(sums_PW),
        log_weight_P,
    )
    answer_Q = _places(asked.target, played, pool, capacity)
    before_K, known_KK = model.unplayed.theta.numpy(), model.unplayed.precision.numpy()
    nothing_KK = np.diag(SPREAD**-2.0)
    prior_KK = nothing_KK + np.exp(-questions / MEMORY) * (known_KK - nothing_KK)
    theta_K, precision_KK = before_K, prior_KK
    if events:
        theta_K, precision_KK = newton(
            scores, answer_Q, asked.weight, theta_K, precision_KK, free=APART, rivals=False
        )
    if same_mass:
        theta_K = scores.with_mass_of_bare(theta_K)
    else:
        theta_K, precision_KK = newton(
            scores, answer_Q, asked.weight, theta_K, precision_KK, free=ALL_SHARE
        )
    if not (np.isfinite(theta_K).all() and np.isfinite(precision_KK).all() and theta_K[0] > 0):
        return 0
    share = 1.0
    if least_cosine is not None:

        def vectors(share: float) -> Float32s:
            theta = before_K + share * (theta_K - before_K)
            return read(theta, bare_PD, sums_PW, embedder.table)

        start_PD = vectors(0.0)
        while share > NOTHING and drift(vectors(share), start_PD).mean_cosine < least_cosine:
            share *= 0.8
    model.unplayed.theta.add_(torch.from_numpy(share * (theta_K - before_K)))
    precision_KK = prior_KK + share * (precision_KK - prior_KK)
    model.unplayed.precision.copy_(torch.from_numpy(precision_KK))
    return events


@dataclass(frozen=True, slots=True)
class Rivals:
    """The R played titles, whose scores are their vectors' dot products with the questions.

    Attributes:
        question_QD, vector_RD: float32.
        out: which of them are partners, and so no answers, as compressed rows, shape (Q, R).
    """

    question_QD: Float32s
    vector_RD: Float32s
    out: sparse.csr_array

    def scores(self, rows: slice) -> Float32s:
        """Shape (questions, R); -inf for what is no answer."""
        score_QR = self.question_QD[rows] @ self.vector_RD.T
        score_QR[self.out[rows].nonzero()] = -np.inf
        return np.asarray(score_QR, np.float32)


@dataclass(frozen=True, slots=True)
class Scores:
    """What theta weighs: of the question, of the title, or of both.

    Attributes:
        rivals: by the first weight.
        bare_QP, answers_QP: of the P unplayed titles, by the next two.
        toward_Q, statistics_PS: their products, by the others.
        log_weight_P: logarithm of how many titles each stands for.
    """

    rivals: Rivals
    bare_QP: Float32s
    answers_QP: Float32s
    toward_Q: Float32s
    statistics_PS: Float32s
    log_weight_P: Float64s

    def features(self, rows: slice) -> Float32s:
        """Of the unplayed titles, shape (questions, P, K - 1)."""
        shared = self.toward_Q[rows, None, None] * self.statistics_PS
        both = np.stack([self.bare_QP[rows], self.answers_QP[rows]], -1)
        return np.concatenate([both, shared], -1, dtype=np.float32)

    def with_mass_of_bare(self, theta_K: Float64s) -> Float64s:
        """The level at which the titles' scores and their bare ones sum up to the same."""
        theta_K, moved_Q = theta_K.copy(), np.empty(len(self.toward_Q))
        theta_K[LEVEL] = 0.0
        for start in range(0, len(moved_Q), CHUNK):
            rows = slice(start, start + CHUNK)
            read_QP = self.features(rows) @ theta_K[1:] + self.log_weight_P
            bare_QP = theta_K[0] * self.bare_QP[rows] + self.log_weight_P
            moved_Q[rows] = logsumexp(bare_QP, axis=1) - logsumexp(read_QP, axis=1)
        toward = float(self.toward_Q.mean())
        theta_K[LEVEL] = moved_Q.mean() / toward if toward > 0 else 0.0
        return theta_K

    def only(self, chosen: Int64s) -> "Scores":
        """Of some of the questions."""
        of = self.rivals
        return replace(
            self,
            rivals=Rivals(of.question_QD[chosen], of.vector_RD, of.out[chosen]),
            bare_QP=self.bare_QP[chosen],
            answers_QP=self.answers_QP[chosen],
            toward_Q=self.toward_Q[chosen],
        )


def newton(
    scores: Scores,
    answer_Q: Int64s,
    weight_Q: Float64s,
    theta_K: Float64s,
    precision_KK: Float64s,
    *,
    free: Int64s,
    rivals: bool = True,
) -> tuple[Float64s, Float64s]:
    """The posterior's mode and precision.

    Args:
        answer_Q: place among the R played titles, or R + place among the P unplayed.
        weight_Q: how many questions each stands for.
        theta_K, precision_KK: of the prior.
        free: weights that are moved; the others stay as they are.
        rivals: whether the played titles are candidates; else only questions that an unplayed one
            answers count.
    """
    apart = np.ix_(free, free)
    if not rivals:
        asked = np.flatnonzero(answer_Q >= len(scores.rivals.vector_RD))
        scores, answer_Q, weight_Q = scores.only(asked), answer_Q[asked], weight_Q[asked]
    mean_K, theta_K = theta_K, theta_K.copy()
    hessian_KK = precision_KK
    for _ in range(ITERATIONS):
        gradient_K = -precision_KK @ (theta_K - mean_K)
        hessian_KK = precision_KK.copy()
        for start in range(0, len(answer_Q), CHUNK):
            rows = slice(start, start + CHUNK)
            moments = _moments(scores, rows, answer_Q[rows], theta_K, rivals=rivals)
            gradient_K += weight_Q[rows] @ moments[0]
            hessian_KK[apart] += np.tensordot(weight_Q[rows], moments[1], 1)[apart]
        step_K = np.linalg.solve(hessian_KK[apart], gradient_K[free])
        longest = float(np.abs(step_K / SPREAD[free]).max())
        theta_K[free] += step_K * min(LONGEST / max(longest, 1e-12), 1.0)
        if longest < ENOUGH:
            break
    return theta_K, hessian_KK


def _moments(
    scores: Scores, rows: slice, answer_Q: Int64s, theta_K: Float64s, *, rivals: bool
) -> tuple[Float64s, Float64s]:
    """What the answers' features have over the expected ones, (Q, K), and their covariance."""
    rival_QR = scores.rivals.scores(rows)
    some_QPK = scores.features(rows)
    played = rival_QR.shape[1]
    out_QR = np.isneginf(rival_QR) | (not rivals)
    rival_QR[out_QR] = 0.0
    logit_QR = np.where(out_QR, -np.inf, theta_K[0] * rival_QR)
    logit_QP = some_QPK @ theta_K[1:].astype(np.float32) + scores.log_weight_P
    chance_QX = softmax(np.concatenate([logit_QR, logit_QP], 1), axis=1).astype(np.float32)
    away_QK = np.zeros((len(answer_Q), len(theta_K)))
    spread_QKK = np.zeros((len(answer_Q), len(theta_K), len(theta_K)))
    for at, answer in enumerate(answer_Q.tolist()):
        of_rival_R, of_pool_P = chance_QX[at, :played], chance_QX[at, played:]
        one_PK, score_R = some_QPK[at], rival_QR[at]
        expected_K = np.concatenate([[of_rival_R @ score_R], of_pool_P @ one_PK]).astype(np.float64)
        if answer < played:
            away_QK[at, 0] = score_R[answer]
        else:
            away_QK[at, 1:] = one_PK[answer - played]
        away_QK[at] -= expected_K
        spread_QKK[at, 0, 0] = of_rival_R @ score_R**2
        spread_QKK[at, 1:, 1:] = (one_PK * of_pool_P[:, None]).T @ one_PK
        spread_QKK[at] -= np.outer(expected_K, expected_K)
    return away_QK, spread_QKK


def _masked(partners: sparse.csr_array, played: Int32s) -> sparse.csr_array:
    """Which of the played titles are partners, shape (Q, R)."""
    return sparse.csr_array(sparse.csc_array(partners)[:, played])


def _places(target_Q: Int64s, played: Int32s, pool: Int32s, capacity: int) -> Int64s:
    """Where each answer stands among the played titles, then those of the pool."""
    place_N = np.zeros(capacity, np.int64)
    place_N[np.concatenate([played, pool])] = np.arange(len(played) + len(pool))
    return place_N[target_Q]
