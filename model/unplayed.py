"""The vector of a title that nobody has played, by what is known of those that were.

The model's own vector of it, its *bare* vector, comes from training on played titles that a step
hides. But what stays unplayed is not such a title: it is one that people passed by. So it is read
with weights of its own, theta, which are learnt from first plays (model/first_plays.py):

    z = (theta_1 bare + theta_2 a + (theta_3.. . s) p) / theta_0

    a   its concepts' answers. The answer of a concept is the ridge regression of what titles have
        of it (inverse document frequency, rows of length 1) on their published vectors: so q . a
        estimates, for a question q, the cosine over concepts, as far as such vectors can tell it.
    p   the regression of 1 on the published vectors: q . p is about 1 whatever q is, so that what
        does not depend on the question can stand in a vector.
    theta_0  what the scores of played titles are to be multiplied with to be log-odds: a model is
        surer of what it was trained on than it should be, and all are to be on one scale.
    s   1, log(1 + number of concepts), and the mean and the sum over the concepts of: log(1 +
        holders), log played holders, log of their co-play weight, the last two a holder and over
        the catalogue's mean. A state forgets such sums: attention is a mean.

Answers and statistics are made from the graph and the vectors of now with each full inference, so
they turn with the space, and are nobody's parameters. As long as theta is (1, 1, 0, 0...), the
vector is the bare one.

Ours. The direction p is the intercept of a log-linear model in a published vector.

Shape suffixes: T titles, C concepts, E edges between the two, D width, K weights, W columns.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor, nn

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

STATISTICS = (
    "level",
    "concepts",
    "mean_holders",
    "mean_played",
    "mean_weight",
    "sum_holders",
    "sum_played",
    "sum_weight",
)
WEIGHTS = ("played", "bare", "answers", *STATISTICS)
SHARED = 3  # from this weight on, what they weigh does not depend on the question
# Standard deviations of the weights before any first play was seen: wide where a feature is small
# (answers are cosines of a few hundredths), narrow where it is large (sums over concepts).
SPREAD = np.array([0.5, 0.2, 30.0, 3.0, 0.5, 0.3, 0.3, 0.3, 0.05, 0.05, 0.05])
RIDGE = 0.01  # over the mean square of a vector's entries; a tenth of it makes no difference
SHRINK = 5.0  # holders of the catalogue's mean that each concept is given on top of its own
COUNT, MEANS, SQUARE, ANSWER = 0, slice(1, 4), 4, slice(5, None)  # columns of a concept


class Unplayed(nn.Module):
    """What was learnt from first plays: a normal distribution of theta.

    Buffers, and no parameters: gradient steps leave it alone.

    Attributes:
        theta: its mean, by `WEIGHTS`, shape (K,), float64.
        precision: inverse of its covariance, shape (K, K), float64.
    """

    def __init__(self) -> None:
        super().__init__()
        self.theta: Tensor
        self.precision: Tensor
        theta = torch.zeros(len(WEIGHTS), dtype=torch.float64)
        theta[:2] = 1.0
        self.register_buffer("theta", theta)
        self.register_buffer("precision", torch.diag(torch.from_numpy(SPREAD**-2.0)))


@dataclass(frozen=True, slots=True)
class ConceptTable:
    """What titles sum up over their concepts, as of one full inference.

    Attributes:
        rows: by dense id: 1, the three statistics, squared idf, idf times answer; and last, one for
            all concepts that came later, shape (C + 1, 5 + D).
        toward: p above, shape (D,).
    """

    rows: Float32s
    toward: Float32s

    @classmethod
    def empty(cls, dim: int) -> "ConceptTable":
        return cls(np.zeros((1, 5 + dim), np.float32), np.zeros(dim, np.float32))

    @classmethod
    def of(
        cls,
        title_E: Int64s,
        concept_E: npt.NDArray[np.integer],
        strength_T: Float32s,
        bare_TD: Float32s,
        num_concepts: int,
    ) -> "ConceptTable":
        """Make it.

        Args:
            title_E, concept_E: which title has which concept: rows of the other tables, dense ids.
            strength_T: summed co-play weight, 0 where nobody has played a title, float32.
            bare_TD: float32; those of unplayed titles do not count.
            num_concepts: C, above all dense ids.
        """
        titles = len(strength_T)
        num_concepts += 1  # the last, which nobody has, stands for those that come later
        has_TC = _table(title_E, concept_E, titles, num_concepts)
        strong_T = strength_T.astype(np.float64)
        played_T = strong_T > 0
        per_concept = sparse.csr_array(has_TC.T)
        holders_C = np.asarray(per_concept.sum(axis=1), np.float64).ravel()
        idf_C = np.log(np.maximum(titles / np.maximum(holders_C, 1.0), 1.0))
        square_T = has_TC @ idf_C**2
        scale_T = 1.0 / np.sqrt(np.where(square_T > 0, square_T, 1.0))

        # Weighted by the root of what is known of a title: a few hits must not be all that counts.
        weight_TD = np.sqrt(strong_T)[:, None] * bare_TD.astype(np.float64)
        gram_DD = weight_TD.T @ bare_TD
        gram_DD += np.eye(len(gram_DD)) * max(RIDGE * np.trace(gram_DD) / len(gram_DD), 1e-12)
        answer_CD = (
            idf_C[:, None]
            * np.linalg.solve(gram_DD, (per_concept @ (scale_T[:, None] * weight_TD)).T).T
        )
        toward_D = np.linalg.solve(gram_DD, weight_TD.sum(0))
        rows_CW = np.column_stack(
            [
                np.ones(num_concepts),
                np.log1p(holders_C),
                _over_mean(per_concept @ played_T.astype(np.float64), holders_C, played_T),
                _over_mean(per_concept @ strong_T, holders_C, strong_T),
                idf_C**2,
                idf_C[:, None] * answer_CD,
            ]
        )
        return cls(rows_CW.astype(np.float32), toward_D.astype(np.float32))

    def sums(
        self, title_E: Int64s, concept_E: npt.NDArray[np.integer], num_titles: int
    ) -> Float32s:
        """Sums of rows over each title's concepts, shape (T, 5 + D), float32.

        Args:
            title_E, concept_E: which title has which concept: 0..T - 1, dense ids.
        """
        known_E = np.minimum(concept_E, len(self.rows) - 1)
        has_TC = _table(title_E, known_E, num_titles, len(self.rows))
        return np.asarray(has_TC @ self.rows, np.float32)


def answers(sums_TW: Float32s) -> Float32s:
    """a above, shape (T, D)."""
    length_T1 = np.sqrt(np.maximum(sums_TW[:, SQUARE], 0.0))[:, None]
    return np.asarray(sums_TW[:, ANSWER] / np.where(length_T1 > 0, length_T1, 1.0), np.float32)


def statistics(sums_TW: Float32s) -> Float32s:
    """s above, shape (T, K - 3)."""
    count_T1 = sums_TW[:, COUNT : COUNT + 1]
    summed_TM = sums_TW[:, MEANS]
    mean_TM = summed_TM / np.maximum(count_T1, 1.0)
    columns = [np.ones_like(count_T1), np.log1p(count_T1), mean_TM, summed_TM]
    return np.concatenate(columns, 1, dtype=np.float32)


def read(theta_K: Float64s, bare_TD: Float32s, sums_TW: Float32s, table: ConceptTable) -> Float32s:
    """z above, shape (T, D)."""
    theta = (theta_K / theta_K[0]).astype(np.float32)
    shift_T1 = (statistics(sums_TW) @ theta[SHARED:])[:, None]
    out_TD: Float32s = theta[1] * bare_TD + theta[2] * answers(sums_TW) + shift_T1 * table.toward
    return out_TD


def _table(
    title_E: Int64s, concept_E: npt.NDArray[np.integer], titles: int, concepts: int
) -> sparse.csr_array:
    ones = np.ones(len(title_E))
    return sparse.csr_array(
        sparse.coo_array((ones, (title_E, concept_E)), shape=(titles, concepts))
    )


def _over_mean(sum_C: Float64s, holders_C: Float64s, of_T: npt.NDArray[np.generic]) -> Float64s:
    """log of the mean over a concept's holders, shrunk, over that of all titles; 0 if that is 0."""
    mean = float(of_T.mean()) if len(of_T) else 0.0
    if mean <= 0:
        return np.zeros(len(sum_C))
    out: Float64s = np.log((sum_C / mean + SHRINK) / (holders_C + SHRINK))
    return out
