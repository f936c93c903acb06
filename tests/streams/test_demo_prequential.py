"""Prequential ranks against the obvious loop, and no look ahead."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.demo.prequential import Prequential, Vectors, ranks


def vectors(seed: int, titles: int = 12, dim: int = 3) -> Vectors:
    rng = np.random.default_rng(seed)
    known = rng.random(titles) < 0.8
    rows = rng.integers(-2, 3, (titles, dim)).astype(np.float32)  # whole numbers: ties, exactly
    return Vectors(np.where(known[:, None], rows, 0), known)


@given(st.integers(0, 10_000))
def test_a_rank_counts_the_candidates_above_and_half_of_those_level(seed):
    rng, given_vectors = np.random.default_rng(seed), vectors(seed)
    query, target = (int(x) for x in rng.choice(12, 2, replace=False))
    seen = rng.choice(12, 3, replace=False)

    found = ranks(given_vectors, np.array([query]), np.array([target]), [seen])[0]

    rows, known = given_vectors.rows_TD, given_vectors.known
    if not (known[query] and known[target]):
        assert found == np.inf
        return
    others = [t for t in range(12) if known[t] and t not in (query, target) and t not in seen]
    want = rows[query] @ rows[target]
    above = sum(rows[query] @ rows[t] > want for t in others)
    level = sum(rows[query] @ rows[t] == want for t in others)
    assert found == 1 + above + level / 2


def test_a_new_title_is_missed_by_the_frozen_and_found_by_the_live_vectors():
    users, titles = np.array([0, 0, 0]), np.array([0, 1, 2])
    previous, history = np.array([-1, 0, 1]), np.array([0])
    rows = np.eye(3, dtype=np.float32)
    frozen = Vectors(rows, np.array([True, True, False]))
    game = Prequential(users, titles, previous, history, frozen)

    game.predict(np.array([1, 2]), Vectors(np.ones((3, 3), np.float32), np.ones(3, bool)))

    at, who, what, frozen_ranks, live_ranks = game.scored.columns()
    assert (at.tolist(), who.tolist(), what.tolist()) == ([1, 2], [0, 0], [1, 2])
    assert frozen_ranks[1] == np.inf
    assert np.isfinite(live_ranks).all()


def test_a_play_whose_play_before_was_left_out_is_not_asked():
    users, titles = np.array([0, 0]), np.array([0, 1])
    every = Vectors(np.ones((2, 2), np.float32), np.ones(2, bool))
    game = Prequential(users, titles, np.array([-1, 0]), np.empty(0, np.int64), every)

    game.predict(np.array([1]), every)

    assert len(game.scored.columns()[0]) == 0


def test_no_prediction_gives_empty_columns():
    none = np.empty(0, np.int64)
    game = Prequential(none, none, none, none, vectors(0))

    assert [len(column) for column in game.scored.columns()] == [0] * 5
