import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.align import align, drift, procrustes
from model.inference import Embedder


def rotation(rng, dim):
    """Any orthogonal matrix: turns and reflections."""
    return np.linalg.qr(rng.normal(size=(dim, dim)))[0]


@given(seed=st.integers(0, 2**32 - 1), dim=st.integers(1, 8), spare=st.integers(0, 5))
def test_a_planted_rotation_is_found(seed, dim, spare):
    rng = np.random.default_rng(seed)
    planted = rotation(rng, dim)
    new = rng.normal(size=(30 + spare, dim)).astype(np.float32)
    published = (new[:30] @ planted).astype(np.float32)
    published[rng.integers(30, size=3)] = 0.0  # titles that were never published

    found = procrustes(new, published)

    np.testing.assert_allclose(found, planted, atol=1e-4)
    assert drift((new @ found).astype(np.float32), published).p1_cosine > 0.9999


@given(seed=st.integers(0, 2**32 - 1))
def test_no_dot_product_changes(seed):
    rng = np.random.default_rng(seed)
    new, published = rng.normal(size=(2, 20, 5)).astype(np.float32)

    found = procrustes(new, published)

    np.testing.assert_allclose(found @ found.T, np.eye(5), atol=1e-9)
    turned = new @ found
    np.testing.assert_allclose(turned @ turned.T, new @ new.T, atol=1e-5)


def test_no_other_rotation_comes_nearer():
    rng = np.random.default_rng(0)
    new, published = rng.normal(size=(2, 40, 4)).astype(np.float32)

    best = np.linalg.norm(new @ procrustes(new, published) - published)

    others = [np.linalg.norm(new @ rotation(rng, 4) - published) for _ in range(200)]
    assert best <= min(others)


def test_an_aligned_model_publishes_the_turned_vectors(make_graph, make_model):
    graph = make_graph(6, [(0, 1, 2.0), (1, 2, 1.0)], {"genre": [(t, t % 2) for t in range(6)]})
    model = make_model(graph)
    turn = rotation(np.random.default_rng(0), model.config.dim)
    before, after = Embedder(model), Embedder(align(model, turn))

    before.full(graph)
    after.full(graph)

    titles = np.arange(6)
    want = before.vectors(titles) @ turn
    np.testing.assert_allclose(after.vectors(titles), want, atol=1e-5)


def test_drift_counts_only_titles_with_a_vector_on_both_sides():
    old = np.array([[1, 0], [0, 2], [0, 0], [3, 0]], np.float32)
    new = np.array([[2, 0], [2, 0], [1, 1]], np.float32)

    found = drift(new, old)

    assert (found.titles, found.mean_cosine) == (2, 0.5)
    assert found.p1_cosine == pytest.approx(0.01)
    assert found.norm_ratio == pytest.approx(2 / 1.5)


def test_without_common_titles_nothing_is_turned():
    new, old = np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)

    assert (procrustes(new, old) == np.eye(3)).all()
    assert drift(new, old).titles == 0
    assert np.isnan(drift(new, old).mean_cosine)


@pytest.mark.parametrize(
    ("new", "message"),
    [(np.ones((2, 4)), "width 4, published ones 3"), (np.full((2, 3), np.nan), "title 0 is not")],
)
def test_what_cannot_be_aligned_is_refused(new, message):
    with pytest.raises(ValueError, match=message):
        procrustes(new.astype(np.float32), np.ones((2, 3), np.float32))
