import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partition.balance import largest
from partition.mincut import coplay_edges, cut, cut_edges, random_parts


def two_cliques(size: int) -> list[tuple[int, int, float]]:
    """Titles 0..size-1 and size..2 size-1, each played together, with one weak link between."""
    edges = [
        (start + i, start + j, 5.0) for start in (0, size) for i in range(size) for j in range(i)
    ]
    return [*edges, (0, size, 0.1)]


@pytest.mark.parametrize("cutter", ["metis", "kaminpar"])
def test_a_cut_goes_between_what_is_not_played_together(make_graph, cutter):
    graph = make_graph(16, two_cliques(8), {})

    partition = cut(graph, 2, seed=0, cutter=cutter)

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


@pytest.mark.parametrize("cutter", ["metis", "kaminpar"])
@settings(max_examples=25)
@given(
    pairs=st.sets(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=120),
    parts=st.integers(2, 5),
    seed=st.integers(0, 9),
)
def test_no_part_is_too_large_and_the_kept_weight_is_counted(
    make_graph, cutter, pairs, parts, seed
):
    coplays = [(a, b, float(1 + (a * b) % 7)) for a, b in pairs if a < b]
    graph = make_graph(30, coplays, {})

    partition = cut(graph, parts, seed=seed, cutter=cutter)

    sizes = [len(partition.titles(part)) for part in range(parts)]
    assert sum(sizes) == 30
    assert max(sizes) <= largest(30, parts)
    inside = sum(w for a, b, w in coplays if partition.part[a] == partition.part[b])
    total = sum(w for _, _, w in coplays)
    assert partition.kept_weight == pytest.approx(inside / total if total else 1.0)
    assert partition.balance == pytest.approx(max(sizes) * parts / 30)


def test_the_same_seed_cuts_alike_by_either_cutter(make_graph):
    rng = np.random.default_rng(0)
    ends = rng.integers(200, size=(1500, 2))
    graph = make_graph(200, [(int(a), int(b), 1.0) for a, b in ends if a < b], {})

    for cutter in ("metis", "kaminpar"):
        first, again = (cut(graph, 4, seed=5, cutter=cutter) for _ in range(2))

        np.testing.assert_array_equal(first.part, again.part)


def test_a_cut_keeps_more_than_random_parts_do(make_graph):
    edges = coplay_edges(make_graph(16, two_cliques(8), {}))

    dealt = random_parts(edges, 4, seed=0)

    assert np.bincount(dealt.part[:16]).tolist() == [4, 4, 4, 4]
    assert dealt.kept_weight == pytest.approx(edges.kept(dealt.part))
    assert cut_edges(edges, 4, seed=0).kept_weight > dealt.kept_weight


def test_an_unknown_cutter_is_refused(make_graph):
    graph = make_graph(2, [], {})

    with pytest.raises(ValueError, match="cutter='scissors'"):
        cut(graph, 2, seed=0, cutter="scissors")


def test_random_parts_can_be_had_as_a_cutter(make_graph):
    graph = make_graph(12, [(0, 1, 1.0), (2, 3, 1.0)], {})

    made = cut(graph, 3, seed=1, cutter="random")

    np.testing.assert_array_equal(made.part, random_parts(coplay_edges(graph), 3, seed=1).part)
    assert np.bincount(made.part).tolist() == [4, 4, 4]
