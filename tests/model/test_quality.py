import numpy as np
import pytest

from model.quality import bootstrap, ndcg_at_k, ranks, recall_at_k, reciprocal_rank


def test_a_rank_counts_those_above_but_not_the_title_itself():
    vectors = np.array([[2.0], [1.0], [3.0], [-1.0]], np.float32)

    rank = ranks(vectors, np.array([0, 2, 1]), np.array([1, 1, 3]))

    assert rank.tolist() == [2.0, 2.0, 3.0]


def test_equal_scores_are_worth_what_chance_is_worth():
    rank = ranks(np.zeros((41, 3), np.float32), np.array([0, 5]), np.array([1, 40]))

    assert rank.tolist() == [20.5, 20.5]  # the middle of 40


def test_a_title_without_a_vector_ranks_last_and_stands_in_nobodys_way():
    vectors = np.array([[1.0], [9.0], [2.0]], np.float32)

    rank = ranks(
        vectors, np.array([0, 0, 1]), np.array([2, 1, 0]), candidates=np.array([True, False, True])
    )

    assert rank.tolist() == [1.0, np.inf, np.inf]
    assert reciprocal_rank(rank).tolist() == [1.0, 0.0, 0.0]


def test_measures_of_a_rank():
    rank = np.array([1.0, 3.0, 20.0, 20.5, np.inf])

    assert recall_at_k(rank).tolist() == [1, 1, 1, 0, 0]
    assert ndcg_at_k(rank, 3).tolist() == [1.0, 0.5, 0.0, 0.0, 0.0]


def test_an_interval_is_wider_where_users_agree_with_themselves():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.integers(2, size=50), 20)

    by_user = bootstrap(values, np.repeat(np.arange(50), 20), seed=0)
    by_play = bootstrap(values, np.arange(1000), seed=0)

    assert by_user.low < by_play.low < by_user.mean < by_play.high < by_user.high


def test_one_user_gives_a_point_and_none_gives_nan():
    one = bootstrap(np.array([1.0, 0.0]), np.array([7, 7]), seed=0)
    none = bootstrap(np.zeros(0), np.zeros(0, int), seed=0)

    assert (one.mean, one.low, one.high) == (0.5, 0.5, 0.5)
    assert none.mean == pytest.approx(float("nan"), nan_ok=True)
