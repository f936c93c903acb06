import numpy as np
import pytest

from partition.mincut import coplay_edges, cut_edges
from partition.recut import CutFailed, Recut


@pytest.fixture
def edges(make_graph):
    rng = np.random.default_rng(0)
    ends = rng.integers(60, size=(400, 2))
    return coplay_edges(make_graph(60, [(int(a), int(b), 1.0) for a, b in ends if a != b], {}))


def test_another_process_cuts_as_this_one_would(edges):
    recut = Recut(edges, 3, seed=7)

    made = recut.result()

    here = cut_edges(edges, 3, seed=7)
    np.testing.assert_array_equal(made.part, here.part)
    assert (made.num_parts, made.kept_weight, made.balance) == (3, here.kept_weight, here.balance)
    assert recut.done


def test_a_cut_that_cannot_be_made_says_why(edges):
    recut = Recut(edges, 0, seed=7)

    with pytest.raises(CutFailed, match="num_parts=0: want >= 1"):
        recut.result()


def test_a_stopped_cut_is_over_and_is_no_result(edges):
    recut = Recut(edges, 3, seed=7)

    recut.stop()

    assert recut.done
    with pytest.raises(CutFailed, match=r"stopped|signal 9"):
        recut.result()
