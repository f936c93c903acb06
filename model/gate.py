"""The gate behind a cycle of micro-training: what may be published, and why not.

A new version of the weights is refused if its vectors are not finite, if they drifted from the
published ones or changed their length, or if they predict fresh pairs that were held back worse, by
more than chance.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.align import Drift, common, drift
from model.positives import Positives
from model.quality import ranks, recall_at_k, reciprocal_rank
from model.settings import MicroConfig

Float32s = npt.NDArray[np.float32]

DEVIATIONS = 2.0  # a loss of quality within so many standard errors is chance


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate says.

    Attributes:
        reason: why the vectors are refused; empty: they may pass.
        moved: how far the new vectors lie from the published ones.
        recall_before, recall_after: Recall@20 of the held-back pairs by the published vectors and
            by the new ones; NaN without such pairs.
    """

    reason: str
    moved: Drift
    recall_before: float
    recall_after: float


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
    moved = drift(new, published)
    before, after, worse = _compare(published, new, pairs, config)
    reason = ""
    if moved.mean_cosine < config.min_cosine:
        reason = (
            f"mean cosine to the published vectors {moved.mean_cosine:.3f} < {config.min_cosine}"
        )
    elif moved.titles and max(moved.norm_ratio, 1 / moved.norm_ratio) > config.max_norm_ratio:
        reason = f"mean norm changed by a factor {moved.norm_ratio:.2f}"
    elif worse:
        reason = f"recall on held-back pairs fell from {before:.4f} to {after:.4f}"
    return Judgement(reason, moved, before, after)


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
    before, after = reciprocal_rank(rank_old), reciprocal_rank(rank_new)
    error = float(np.std(after - before)) / len(rows) ** 0.5
    lost = float(np.mean(before - after))
    worse = lost > config.max_loss_of_recall * float(np.mean(before)) and lost > DEVIATIONS * error
    return float(recall_at_k(rank_old).mean()), float(recall_at_k(rank_new).mean()), worse
