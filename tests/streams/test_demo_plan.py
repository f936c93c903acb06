"""The demo's plan holds new titles back, and streams none before it is published."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.demo.plan import make_plan, previous_plays


@given(st.integers(0, 1000), st.integers(50, 400))
def test_no_new_title_is_in_history_or_streamed_before_its_publication(seed, plays):
    rng = np.random.default_rng(seed)
    titles, num_concepts = rng.integers(0, 20, 1000), rng.integers(0, 12, 20)

    plan = make_plan(titles, num_concepts, plays=plays, new_titles=5, seed=seed)

    assert len(plan.new_titles) <= 5
    assert not np.isin(titles[plan.history], plan.new_titles).any()
    assert (np.diff(plan.publish_at) >= 0).all()
    for title, at in zip(plan.new_titles, plan.publish_at, strict=True):
        assert title not in titles[plan.stream[:at]]
    old = ~np.isin(titles, plan.new_titles)
    cut = 1000 - plays
    assert set(plan.history) == set(np.flatnonzero(old[:cut]))
    assert set(np.flatnonzero(old[cut:]) + cut) <= set(plan.stream)


def test_a_stream_that_leaves_no_history_is_refused():
    with pytest.raises(ValueError, match="10 plays to stream of 10"):
        make_plan(np.zeros(10, np.int64), np.ones(1, np.int64), plays=10, new_titles=1, seed=0)


def test_the_play_before_is_the_same_users_and_near():
    users = np.array([1, 2, 1, 1, 2])
    time_ms = np.array([0, 1, 5, 50, 52])

    assert previous_plays(users, time_ms, gap_ms=10).tolist() == [-1, -1, 0, -1, -1]
