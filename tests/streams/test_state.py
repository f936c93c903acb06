"""The fold over the log: what a batch does to the state, and what of it may wait how long."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.columns import CoPlays, Names
from streams.events import CatalogEntry, Retirement
from streams.settings import GraphSettings
from streams.state import State


def coplays(pairs: list[tuple[str, str]], *, packed: bool = False) -> CoPlays:
    a, b = [a for a, _ in pairs], [b for _, b in pairs]
    count = len(pairs)
    return CoPlays(
        Names.of(a) if packed else a,
        Names.of(b) if packed else b,
        np.ones(count, np.float32),
        np.arange(count, dtype=np.int64),
        np.zeros(count, np.int32),
    )


def weights(state: State) -> dict[tuple[str, str], float]:
    names = state.graph.ids["title"].names
    heads, tails, weight = state.graph.edges(0)
    return dict(zip(zip(names(heads), names(tails), strict=True), weight.tolist(), strict=True))


TITLES = st.sampled_from(["a", "b", "c", "d", "\u00e9"])
PAIRS = st.lists(st.tuples(TITLES, TITLES).filter(lambda pair: pair[0] != pair[1]), max_size=8)


@given(
    steps=st.lists(st.tuples(PAIRS, st.lists(TITLES, max_size=2), st.booleans()), max_size=4),
    batch=st.integers(1, 5),
    threads=st.integers(1, 2),
)
def test_weights_are_the_sums_of_what_came_since_a_title_was_retired(steps, batch, threads):
    state = State.empty(GraphSettings(threads=threads))
    oracle, gone = {}, set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streams.state.BATCH", batch)
        for at, (pairs, retired, packed) in enumerate(steps):
            state.apply_coplays(coplays(pairs, packed=packed), np.zeros(len(pairs), np.int64))
            for a, b in pairs:
                if not {a, b} & gone:
                    for edge in ((a, b), (b, a)):
                        oracle[edge] = oracle.get(edge, 0) + 1
            entries = [Retirement(title, at) for title in retired]
            state.apply_catalog(entries, np.zeros(len(entries), np.int64))
            gone |= set(retired)
            oracle = {edge: w for edge, w in oracle.items() if not {*edge} & gone}

    assert weights(state) == oracle


def test_a_title_that_came_back_after_it_was_retired_is_played_again():
    state = State.empty(GraphSettings())
    state.apply_catalog([Retirement("a", 1)], np.zeros(1, np.int64))
    state.apply_coplays(coplays([("a", "b")], packed=True), np.zeros(1, np.int64))
    assert weights(state) == {}

    state.apply_catalog([CatalogEntry("a", 2, {})], np.zeros(1, np.int64))
    state.apply_coplays(coplays([("a", "b")], packed=True), np.zeros(1, np.int64))

    assert weights(state) == {("a", "b"): 1.0, ("b", "a"): 1.0}


def test_co_plays_that_no_cycle_takes_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr("streams.state.MAX_FRESH", 10)
    monkeypatch.setattr("streams.state.MAX_PARTS", 4)
    state = State.empty(GraphSettings())

    for turn in range(50):
        state.apply_coplays(coplays([("a", f"b{turn}")]), np.zeros(1, np.int64))
        assert len(state.fresh) <= 5
        assert state.fresh_count() <= 20

    newest = state.graph.ids["title"].names(state.take_fresh().b)
    assert newest[-1] == "b49"
    assert 0 < len(newest) <= 10
