"""A checkpoint from a data set, and one that takes the place of another."""

import numpy as np

from streams.bootstrap import bare_vectors_of
from streams.settings import GraphSettings
from streams.snapshot import load_snapshot
from tests.streams.small import TITLES, small_checkpoint


def test_a_model_trained_anew_has_its_vectors_near_those_in_use(tmp_path):
    """Titles are found by name: the new one has more of them, and numbers them the other way."""
    small_checkpoint(tmp_path / "old", titles=TITLES - 5)
    old = load_snapshot(tmp_path / "old", GraphSettings())

    free = small_checkpoint(tmp_path / "free", seed=1)
    near = small_checkpoint(tmp_path / "near", seed=1, near=old)

    assert "drift_cosine" not in free.metrics
    assert near.metrics["drift_cosine"] > 0.9
    new = load_snapshot(tmp_path / "near", GraphSettings())
    mine = bare_vectors_of(new, new.state.graph)
    theirs = bare_vectors_of(old, new.state.graph)
    known = theirs.any(1)
    assert known.sum() == TITLES - 5
    cosine = (mine * theirs).sum(1)[known]
    cosine /= np.linalg.norm(mine[known], axis=1) * np.linalg.norm(theirs[known], axis=1)
    assert cosine.mean() > 0.9
