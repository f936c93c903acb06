"""What may pass the gate, and what may not: each way to spoil vectors, and mere chance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.gate import coverage, judge, more_than_chance, shape, standard_error, visits
from model.positives import Positives
from model.settings import MicroConfig

TITLES, DIM, GROUPS = 600, 16, 20
CONFIG = MicroConfig()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def group(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(GROUPS, size=TITLES)


@pytest.fixture
def published(rng: np.random.Generator, group: np.ndarray) -> np.ndarray:
    """Vectors in groups, all with much in common, as a model's have."""
    common = 3 * rng.standard_normal(DIM)
    centre = rng.standard_normal((GROUPS, DIM))[group]
    return (common + centre + 0.3 * rng.standard_normal((TITLES, DIM))).astype(np.float32)


@pytest.fixture
def pairs(rng: np.random.Generator, group: np.ndarray) -> Positives:
    a = rng.integers(TITLES, size=800)
    b = np.array([rng.choice(np.flatnonzero(group == group[one])) for one in a])
    return positives(a, b)


def positives(a, b) -> Positives:
    count = len(a)
    return Positives(
        np.array(a, np.int32), np.array(b, np.int32), np.ones(count, np.float32), np.zeros(count)
    )


def moved(vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As after a cycle."""
    noise = rng.standard_normal(vectors.shape).astype(np.float32)
    return vectors + 0.05 * noise


def less_grouped(vectors: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Groups nearer to each other: little drift, but what belongs together is less so."""
    means = np.array([vectors[group == one].mean(axis=0) for one in range(GROUPS)])
    return vectors - 0.5 * (means[group] - vectors.mean(axis=0))


def test_a_small_step_passes(published, pairs, rng) -> None:
    verdict = judge(moved(published, rng), published, pairs, CONFIG)

    assert verdict.reason == ""
    assert verdict.shape > 0.95
    assert verdict.moved.mean_cosine > 0.99


def test_titles_that_changed_places_are_seen_where_the_mean_cosine_is_blind(
    published, pairs, rng
) -> None:
    shuffled = published[rng.permutation(TITLES)]

    verdict = judge(shuffled, published, positives([], []), CONFIG)

    assert verdict.moved.mean_cosine > 0.9
    assert "changed places" in verdict.reason
    assert abs(verdict.shape) < 0.1


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda new, rng: np.where(np.arange(DIM) == 3, np.nan, new), "not finite"),
        (lambda new, rng: np.where(np.arange(DIM) == 3, np.inf, new), "not finite"),
        (lambda new, rng: np.tile(new.mean(0), (TITLES, 1)), "changed places"),
        (lambda new, rng: new @ np.linalg.qr(rng.standard_normal((DIM, DIM)))[0], "mean cosine"),
        (lambda new, rng: -new, "mean cosine"),
        (lambda new, rng: 2 * new, "norm"),
        (lambda new, rng: np.where(np.arange(TITLES)[:, None] % 4 == 0, 0, new), "only 75.0% of"),
        (lambda new, rng: new[: TITLES // 2], "only 50.0% of"),
    ],
)
def test_what_is_spoilt_is_refused_with_the_reason(published, pairs, rng, spoil, reason) -> None:
    spoilt = spoil(moved(published, rng), rng).astype(np.float32)

    assert reason in judge(spoilt, published, pairs, CONFIG).reason


def test_a_model_that_predicts_worse_is_refused(published, pairs, group, rng) -> None:
    worse = less_grouped(published, group)

    verdict = judge(worse, published, pairs, CONFIG)

    assert "held-back pairs rank lower" in verdict.reason
    assert verdict.recall_after < verdict.recall_before


def test_few_pairs_of_one_visit_are_no_evidence(published, rng, group) -> None:
    titles = np.flatnonzero(group == 0)[:10]
    one_visit = positives(titles[:-1], titles[1:])
    worse = less_grouped(published, group)

    assert judge(worse, published, one_visit, CONFIG).reason == ""


def test_nothing_to_compare_with_passes() -> None:
    nothing = np.zeros((0, DIM), np.float32)

    assert judge(np.ones((3, DIM), np.float32), nothing, positives([], []), CONFIG).reason == ""
    assert np.isnan(shape(nothing, nothing))
    assert np.isnan(coverage(nothing, nothing))


def test_a_visit_goes_on_while_the_next_pair_shares_a_title() -> None:
    a = np.array([1, 2, 3, 9, 8, 4, 5], np.int32)
    b = np.array([2, 3, 1, 8, 7, 5, 4], np.int32)

    assert visits(a, b).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert visits(a[:0], b[:0]).tolist() == []


@given(st.lists(st.lists(st.floats(-9, 9), min_size=1, max_size=4), min_size=2, max_size=6))
def test_the_standard_error_is_that_between_visits(groups) -> None:
    values = np.array([value for group in groups for value in group])
    cluster = np.repeat(np.arange(len(groups)), [len(group) for group in groups])

    mean = sum(map(sum, groups)) / len(values)
    squares = sum((sum(group) - len(group) * mean) ** 2 for group in groups)
    want = (squares * len(groups) / (len(groups) - 1)) ** 0.5 / len(values)

    assert standard_error(values, cluster) == pytest.approx(want, abs=1e-9)


def test_chance_is_bounded_however_few_visits_there_are(rng) -> None:
    for groups in (2, 3, 5, 30):
        cluster = np.repeat(np.arange(groups), 4)
        draws = [
            np.repeat(rng.standard_normal(groups), 4) + 0.1 * rng.standard_normal(4 * groups)
            for _ in range(2000)
        ]
        alarms = sum(more_than_chance(values, cluster) for values in draws)
        assert alarms <= 4  # of 0.4 expected

    assert more_than_chance(np.ones(400) + rng.standard_normal(400), np.arange(400))
    assert not more_than_chance(np.ones(4), np.zeros(4, np.int64))


def test_the_standard_error_of_single_values_is_the_usual_one(rng) -> None:
    values = rng.standard_normal(50)

    found = standard_error(values, np.arange(50))

    assert found == pytest.approx(values.std(ddof=1) / 50**0.5)
    assert standard_error(values, np.zeros(50, np.int64)) == np.inf
