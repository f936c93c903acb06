"""The dirty set against a plain dict."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.dirty import CLEAN, DirtySet

events = st.lists(
    st.tuples(st.sampled_from("mc"), st.integers(0, 20), st.integers(1, 99), st.integers(1, 99))
)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@given(events)
def test_a_title_is_dirty_since_its_oldest_event_and_knows_its_newest(history):
    dirty, oracle = DirtySet(), {}
    for kind, title, append, event in history:
        mark = dirty.mark_catalog if kind == "c" else dirty.mark_coplays
        mark(ids(title), ints(append), ints(event))
        since, newest = oracle.get((kind, title), CLEAN), oracle.get(("e", title), 0)
        oracle[kind, title] = min(since, append)
        oracle["e", title] = max(newest, event)

    taken = dirty.take(1000)

    assert taken.titles.tolist() == sorted({title for _, title, _, _ in history})
    for title, catalog, coplay, event in zip(
        taken.titles, taken.catalog_ms, taken.coplay_ms, taken.event_ms, strict=True
    ):
        assert catalog == oracle.get(("c", title), CLEAN)
        assert coplay == oracle.get(("m", title), CLEAN)
        assert event == oracle["e", title]
    assert len(dirty) == 0


def test_catalog_goes_first_then_the_longest_dirty():
    dirty = DirtySet()
    dirty.mark_coplays(ids(1, 2, 3), ints(30, 10, 20), ints(1, 1, 1))
    dirty.mark_catalog(ids(9), ints(99), ints(1))

    assert dirty.urgent
    assert dirty.take(2).titles.tolist() == [2, 9]
    assert not dirty.urgent
    assert dirty.take(2).titles.tolist() == [1, 3]


def test_what_could_not_be_published_is_dirty_since_its_first_event():
    dirty = DirtySet()
    dirty.mark_coplays(ids(4), ints(10), ints(1))
    taken = dirty.take(10)
    dirty.mark_coplays(ids(4), ints(50), ints(2))

    dirty.put_back(taken)

    assert dirty.take(10).coplay_ms.tolist() == [10]


def test_a_retired_title_is_forgotten():
    dirty = DirtySet()
    dirty.mark_coplays(ids(4), ints(10), ints(7))

    dirty.forget(ids(4))

    assert len(dirty) == 0
    assert dirty.seen_ms(ids(4)).tolist() == [0]


def test_it_survives_a_checkpoint(tmp_path):
    dirty = DirtySet()
    dirty.mark_catalog(ids(4), ints(10), ints(7))
    dirty.save(tmp_path / "dirty.npy")

    loaded = DirtySet.load(tmp_path / "dirty.npy")

    loaded.mark_coplays(ids(4), ints(5), ints(8))
    taken = loaded.take(1)
    assert (taken.catalog_ms[0], taken.coplay_ms[0], taken.event_ms[0]) == (10, 5, 8)


def test_when_the_oldest_unseen_event_was_read_goes_with_its_title():
    dirty = DirtySet()
    dirty.read_ms = 11
    dirty.mark_coplays(ids(4), ints(10), ints(7))
    dirty.read_ms = 99
    dirty.mark_coplays(ids(4, 5), ints(50, 60), ints(8, 8))

    taken = dirty.take(9)

    assert taken.when_ms[:, 2].tolist() == [11, 99]
    assert (taken.when_ms[:, 3] != CLEAN).all()
    assert (taken.when_ms[:, :2] == CLEAN).all()
    dirty.put_back(taken)
    assert dirty.take(9).when_ms[:, 2].tolist() == [11, 99]


def test_the_oldest_unseen_event_is_that_of_any_title_and_kind():
    dirty = DirtySet()
    assert dirty.oldest_ms() == CLEAN

    dirty.mark_coplays(ids(1, 2), ints(30, 20), ints(1, 1))
    dirty.mark_catalog(ids(3), ints(10), ints(1))

    assert dirty.oldest_ms() == 10
    assert dirty.take(9).oldest_ms() == 10
    assert dirty.oldest_ms() == CLEAN
