import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partition.mincut import cut, deal


def two_cliques(size: int) -> list[tuple[int, int, float]]:
    """Titles 0..size-1 and size..2 size-1, each played together, with one weak link between."""
    edges = [
        (start + i, start + j, 5.0) for start in (0, size) for i in range(size) for j in range(i)
    ]
    return [*edges, (0, size, 0.1)]


def test_a_cut_goes_between_what_is_not_played_together(make_graph):
    graph = make_graph(16, two_cliques(8), {})

    partition = cut(graph, 2, seed=0)

    assert len(set(partition.part[:8])) == 1
    assert len(set(partition.part[8:16])) == 1
    assert partition.part[0] != partition.part[8]
    assert partition.kept_weight > 0.99
    assert partition.balance == 1.0


def test_titles_without_coplays_are_dealt_evenly_and_alike_for_one_seed(make_graph):
    graph = make_graph(40, two_cliques(8), {})

    first, again, other = (cut(graph, 2, seed=seed).part for seed in (3, 3, 4))

    assert np.bincount(first[:40]).tolist() == [20, 20]
    np.testing.assert_array_equal(first, again)
    assert (first[16:40] != other[16:40]).any()


@pytest.mark.parametrize("titles", [0, 1, 2])
def test_fewer_titles_than_parts_leave_parts_empty(make_graph, titles):
    graph = make_graph(titles, [], {})

    partition = cut(graph, 4, seed=0)

    assert sorted(np.concatenate([partition.titles(part) for part in range(4)])) == list(
        range(titles)
    )
    assert partition.kept_weight == 1.0


def test_a_retired_title_is_in_no_part(make_graph):
    graph = make_graph(10, two_cliques(5), {})
    graph.retire("title", np.array([3], np.int32))

    partition = cut(graph, 2, seed=0)

    assert partition.part[3] == -1
    assert sum(len(partition.titles(part)) for part in range(2)) == 9


def test_no_parts_at_all_are_refused(make_graph):
    graph = make_graph(2, [], {})

    with pytest.raises(ValueError, match="num_parts=0"):
        cut(graph, 0, seed=0)


def test_a_part_that_is_not_there_is_refused(make_graph):
    partition = cut(make_graph(2, [], {}), 2, seed=0)

    with pytest.raises(ValueError, match="part 2: want"):
        partition.titles(2)


@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=6),
    count=st.integers(0, 40),
    seed=st.integers(0, 99),
)
def test_a_deal_fills_the_small_parts_first(sizes, count, seed):
    sizes = np.array(sizes)

    cards = deal(sizes, count, seed)

    after = sizes + np.bincount(cards, minlength=len(sizes))
    got = after[after > sizes]  # who was dealt a card
    assert len(cards) == count
    assert not len(got) or got.max() <= after.min() + 1
