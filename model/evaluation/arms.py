"""What an arm is: something that learns from the world as it goes, and scores titles.

Source-free: each arm's own room says where it comes from (`counts.py`, `vectors.py`, `gnn.py`).
"""

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from model.evaluation.queries import Scorer
from model.evaluation.world import World

Float32s = npt.NDArray[np.float32]

ARMS = (
    "popularity_fresh",
    "cocount_frozen",
    "cocount_fresh",
    "kg_cosine",
    "transe",
    "lightgcn",
    "frozen",
    "frozen_fresh_graph",
    "incremental",
    "retrain",
)


class Arm(Protocol):
    """One way to score titles.

    Attributes:
        drift: mean cosine of the vectors of the last `update` to those before; NaN without any.
    """

    drift: float

    def start(self, world: World) -> None:
        """Learn from history, once."""
        ...

    def update(self, world: World) -> None:
        """A window begins: titles came, and the plays of the window before were ingested."""
        ...

    def scorer(self, world: World) -> Scorer:
        """Scores by what is learnt; the world has not moved since `update`."""
        ...


class Without:
    """Of arms that have no vectors: no drift; nothing to do but where they say so."""

    drift = math.nan

    def start(self, world: World) -> None:
        return None

    def update(self, world: World) -> None:
        return None


def dot_scorer(vectors_TD: Float32s) -> Scorer:
    """Scores are dot products; a title without a vector (all zeros) is scored below all others."""
    has_T = vectors_TD.any(axis=1)
    missing_T = np.flatnonzero(~has_T)

    def score(mix: sparse.csr_array) -> Float32s:
        scores_QT: Float32s = np.asarray(mix @ vectors_TD, np.float32) @ vectors_TD.T
        scores_QT[:, missing_T] = -np.inf
        return scores_QT

    return score


def unit(rows_TD: Float32s) -> Float32s:
    """Rows at length 1; rows of zeros stay."""
    length_T1 = np.linalg.norm(rows_TD, axis=1, keepdims=True)
    return np.asarray(rows_TD / np.where(length_T1 > 0, length_T1, 1.0), np.float32)
