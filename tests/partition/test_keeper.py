import threading

import numpy as np
import pytest

from partition.keeper import Keeper
from partition.recut import Recut
from tests.partition.changes import camps, put

NOBODY = np.zeros(0, np.int32)


@pytest.fixture
def graph(make_graph):
    return make_graph(80, camps(np.random.default_rng(0), 80, 4, 1500), {})


def moved_camps(graph):
    """Everyone is played with others from now on."""
    ends = np.random.default_rng(1).integers(20, size=(4000, 2)) + 20 * (
        np.arange(4000)[:, None] % 4
    )
    put(graph, [(int(a), int(b), 9.0) for a, b in ends if a != b])


def test_one_part_holds_every_live_title_and_is_never_cut(graph):
    keeper = Keeper(1)
    graph.retire("title", np.array([7], np.int32))

    partition = keeper.prepare(graph, threading.Lock(), NOBODY, seed=0)

    assert partition.titles(0).tolist() == [one for one in range(80) if one != 7]
    assert not keeper.settle(graph, threading.Lock(), seed=0)
    assert keeper.cuts == 0


def test_parts_that_keep_what_they_kept_are_not_cut_anew(graph):
    keeper = Keeper(2, recut_loss=0.1)
    first = keeper.prepare(graph, threading.Lock(), NOBODY, seed=0)

    assert not keeper.settle(graph, threading.Lock(), seed=0)

    again = keeper.prepare(graph, threading.Lock(), NOBODY, seed=1)
    np.testing.assert_array_equal(first.part, again.part)
    assert keeper.cuts == 1


def test_parts_that_lost_a_share_are_cut_anew_and_switched_at_the_end_of_a_cycle(graph):
    keeper = Keeper(2, recut_loss=0.1)
    keeper.prepare(graph, threading.Lock(), NOBODY, seed=0)
    moved_camps(graph)

    assert not keeper.settle(graph, threading.Lock(), seed=0)  # the cut begins
    low = keeper.kept
    keeper.prepare(graph, threading.Lock(), NOBODY, seed=0)  # a cycle goes on with the old parts
    keeper._recut.result()
    switched = keeper.settle(graph, threading.Lock(), seed=0)

    assert switched
    assert keeper.cuts == 2
    assert keeper.kept > 1.2 * low
    assert keeper.prepare(graph, threading.Lock(), NOBODY, seed=0).kept_weight == keeper.kept


def test_a_cut_that_failed_leaves_the_parts_in_force_and_is_asked_for_again(graph, monkeypatch):
    keeper = Keeper(2, recut_loss=0.1)
    first = keeper.prepare(graph, threading.Lock(), NOBODY, seed=0)
    moved_camps(graph)
    monkeypatch.setattr(Recut, "_cut", lambda self, folder: None)  # it writes nothing
    keeper.settle(graph, threading.Lock(), seed=0)
    keeper._recut._thread.join()

    assert not keeper.settle(graph, threading.Lock(), seed=0)

    assert keeper.parts.partition is first
    monkeypatch.undo()
    keeper.settle(graph, threading.Lock(), seed=0)
    keeper._recut.result()
    assert keeper.settle(graph, threading.Lock(), seed=0)


def test_closing_ends_a_cut_that_is_under_way(graph):
    keeper = Keeper(2, recut_loss=0.1)
    keeper.prepare(graph, threading.Lock(), NOBODY, seed=0)
    moved_camps(graph)
    keeper.settle(graph, threading.Lock(), seed=0)
    recut = keeper._recut

    keeper.close()

    assert recut.done
    keeper.close()  # once more does no harm


def test_parts_go_by_names_when_a_dense_id_is_given_out_again(graph):
    keeper = Keeper(2)
    part = keeper.prepare(graph, threading.Lock(), NOBODY, seed=0).part.copy()
    first = int(np.flatnonzero(part == part[0])[0])
    graph.retire("title", np.array([first], np.int32))
    again = int(graph.ids["title"].intern(["new"])[0])
    friends = np.flatnonzero(part != part[first])[:5]
    put(graph, [(again, int(one), 9.0) for one in friends])

    now = keeper.prepare(graph, threading.Lock(), NOBODY, seed=0).part

    assert again == first  # the slot of the one that went
    assert now[again] == part[friends[0]]
    others = np.arange(80) != first
    assert (now[others] == part[others]).mean() > 0.9
