"""The gate behind a cycle of micro-training: what may be published, and why not.

A new version of the weights is refused if its vectors are not finite, if titles lost theirs, if the
vectors drifted from the published ones or changed their length, or if they predict fresh pairs that
were held back worse, by more than chance.

Drift is measured twice. The mean cosine says how comparable a title's vector is to what consumers
hold. It says little of whether the titles kept their places among each other: all vectors of a
trained model have much in common (popularity), so that even a model whose titles were shuffled may
keep a mean cosine of 0.8. So the gate also correlates what is left of both tables once each one's
mean is taken off: 0 for shuffled, rotated and collapsed ones, and near 1 for a cycle's.

Pairs of one visit are alike: what makes a model worse for one of them makes it so for all. They
come one after the other and share titles, by which they are told from the next visit's; the error
of a mean is that between visits (cluster-robust), not between pairs.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from model.align import Drift, common, drift
from model.positives import Positives
from model.quality import ranks, recall_at_k, reciprocal_rank
from model.settings import MicroConfig

Float32s = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

CHANCE = 2e-4  # share of good cycles whose pairs may look so bad by chance alone
MIN_SHAPE = 0.8  # correlation of new and published vectors off their means; good cycles have > 0.95
MIN_COVERAGE = 0.9  # share of the published titles that must still have a vector


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate says.

    Attributes:
        reason: why the vectors are refused; empty: they may pass.
        moved: how far the new vectors lie from the published ones.
        shape: correlation of both tables off their means; NaN without common titles.
        recall_before, recall_after: Recall@20 of the held-back pairs by the published vectors and
            by the new ones; NaN without such pairs.
    """

    reason: str
    moved: Drift
    recall_before: float
    recall_after: float
    shape: float = float("nan")


def judge(new: Float32s, published: Float32s, pairs: Positives, config: MicroConfig) -> Judgement:
    """Compare new vectors to the published ones.

    Args:
        new: by dense id, zeros where a title has none, shape (T, D).
        published: likewise, of as many titles or not.
        pairs: fresh ones that the new weights did not train on.
    """
    if not np.isfinite(new).all():
        nan = float("nan")
        return Judgement("the vectors are not finite", Drift(0, nan, nan, nan), nan, nan)
    moved, alike, covered = drift(new, published), shape(new, published), coverage(new, published)
    before, after, worse = _compare(published, new, pairs, config)
    reason = ""
    if covered < MIN_COVERAGE:
        reason = f"only {covered:.1%} of the published titles have a vector"
    elif moved.mean_cosine < config.min_cosine:
        reason = (
            f"mean cosine to the published vectors {moved.mean_cosine:.3f} < {config.min_cosine}"
        )
    elif alike < MIN_SHAPE:
        reason = f"titles changed places: correlation off the mean {alike:.3f} < {MIN_SHAPE}"
    elif moved.titles and max(moved.norm_ratio, 1 / moved.norm_ratio) > config.max_norm_ratio:
        reason = f"mean norm changed by a factor {moved.norm_ratio:.2f}"
    elif worse:
        reason = f"held-back pairs rank lower (recall@20 {before:.4f} before, {after:.4f} after)"
    return Judgement(reason, moved, before, after, alike)


def shape(new: Float32s, published: Float32s) -> float:
    """How far titles kept their places among each other, -1 to 1; NaN without common titles.

    The correlation of both tables once each one's mean is taken off; 0 where all are alike.
    """
    new, published, both = common(new, published)
    if not both.any():
        return float("nan")
    ours, theirs = (
        one[both] - one[both].mean(axis=0, dtype=np.float64) for one in (new, published)
    )
    lengths = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float((ours * theirs).sum()) / lengths if lengths else 0.0


def coverage(new: Float32s, published: Float32s) -> float:
    """Share of the titles with a published vector that have a new one; NaN without such titles."""
    had = np.flatnonzero(published.any(axis=1))
    if not len(had):
        return float("nan")
    return float(new[had[had < len(new)]].any(axis=1).sum()) / len(had)


def _compare(
    old: Float32s, new: Float32s, pairs: Positives, config: MicroConfig
) -> tuple[float, float, bool]:
    """Recall by old and new vectors, and whether the loss is more than chance."""
    old, new, both = common(old, new)
    inside = (pairs.a < len(both)) & (pairs.b < len(both))
    a, b = pairs.a[inside], pairs.b[inside]
    rows = np.flatnonzero(both[a] & both[b] & (a != b))[-config.gate_rows :]
    if not len(rows):
        return float("nan"), float("nan"), False
    rank_old = ranks(old, a[rows], b[rows], candidates=both)
    rank_new = ranks(new, a[rows], b[rows], candidates=both)
    before, after = reciprocal_rank(rank_old).mean(), reciprocal_rank(rank_new).mean()
    # A reciprocal rank hangs on the few pairs near the top: no sum of them is nearly normal.
    fallen = np.log(rank_new + 1.0) - np.log(rank_old + 1.0)
    worse = bool(
        before - after > config.max_loss_of_recall * before
        and more_than_chance(fallen, visits(a[rows], b[rows]))
    )
    return float(recall_at_k(rank_old).mean()), float(recall_at_k(rank_new).mean()), worse


def more_than_chance(values: npt.NDArray[np.floating], cluster: Int64s) -> bool:
    """Whether their mean is above 0 by more than `CHANCE` allows (one-sided, Student's t).

    Args:
        values, cluster: as for `standard_error`.
    """
    freedom = int(cluster.max(initial=0))
    if freedom < 1:
        return False
    bound = float(stdtrit(freedom, 1 - CHANCE)) * standard_error(values, cluster)
    return float(values.mean()) > bound


def visits(a: Int32s, b: Int32s) -> Int64s:
    """Which visit each pair is of, shape (P,): one goes on while the next pair shares a title."""
    apart = (a[1:] != a[:-1]) & (a[1:] != b[:-1]) & (b[1:] != a[:-1]) & (b[1:] != b[:-1])
    return np.concatenate([[0], np.cumsum(apart)]) if len(a) else np.zeros(0, np.int64)


def standard_error(values: npt.NDArray[np.floating], cluster: Int64s) -> float:
    """Of their mean, where values of one cluster go together; infinite for fewer than two clusters.

    Args:
        values: shape (P,).
        cluster: numbered from 0 without a gap, shape (P,).

    Source: the cluster-robust variance of a mean, K.-Y. Liang and S. Zeger, "Longitudinal data
    analysis using generalized linear models", Biometrika 73(1), 1986, with the factor G / (G - 1).
    """
    sums = np.bincount(cluster, weights=values - values.mean()) if len(values) else np.zeros(0)
    groups = len(sums)
    if groups < 2:
        return float("inf")
    return float(np.sqrt((sums**2).sum() * groups / (groups - 1))) / len(values)
