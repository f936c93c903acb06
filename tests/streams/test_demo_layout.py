"""Vectors on a plane."""

import numpy as np
import pytest

from streams.demo.layout import plane


def test_neighbours_stay_neighbours():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 16))
    group = np.repeat(np.arange(5), 40)
    vectors = (centres[group] + 0.1 * rng.normal(size=(200, 16))).astype(np.float32)

    places = plane(vectors, seed=0)

    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (group[distance.argmin(1)] == group).mean() > 0.95
    assert places.shape == (200, 2)
    np.testing.assert_allclose(places.mean(0), 0, atol=1e-3)


def test_the_seed_decides():
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)

    one, same, other = (plane(vectors, seed=seed, rounds=20) for seed in (1, 1, 2))

    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("shape", [(0, 8), (1, 8), (2, 8), (3, 8), (5, 1)])
def test_few_titles_have_places_too(shape):
    places = plane(np.ones(shape, np.float32), seed=0)

    assert places.shape == (shape[0], 2)
    assert np.isfinite(places).all()


def test_equal_vectors_and_vectors_of_zeros_do_not_break_it():
    vectors = np.zeros((50, 4), np.float32)
    vectors[:20] = 1

    assert np.isfinite(plane(vectors, seed=0)).all()
