import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partition.external import Even, PerRelation, WeightedTopN, externals
from partition.hasp import hasp_subgraph, whole_graph
from partition.mincut import cut
from tests.partition.test_hasp import TITLES, concept_pairs, coplay_edges, named_edges


def inside(graph, titles):
    mask = np.zeros(graph.ids["title"].capacity, bool)
    mask[titles] = True
    return mask


samplers = st.one_of(
    st.integers(0, 6).map(WeightedTopN),
    st.integers(0, 6).map(Even),
    st.dictionaries(st.sampled_from(["coplay", "genre"]), st.integers(0, 4)).map(PerRelation),
)


@given(coplays=coplay_edges, genres=concept_pairs, sampler=samplers, seed=st.integers(0, 9))
def test_each_title_is_at_home_in_one_part_whatever_comes_along(
    make_graph, coplays, genres, sampler, seed
):
    graph = make_graph(TITLES, coplays, {"genre": genres})
    partition = cut(graph, 3, seed=seed)

    parts = [
        hasp_subgraph(graph, partition, part, max_coplay=None, sampler=sampler, seed=seed)
        for part in range(3)
    ]

    assert sorted(np.concatenate([part.own for part in parts])) == list(range(TITLES))
    whole = named_edges(graph, whole_graph(graph, max_coplay=None))
    got = [named_edges(graph, part) for part in parts]
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(part.own, partition.titles(number))
        np.testing.assert_array_equal(part.concepts, graph.ids["concept"].live_ids())
        # Of the whole graph it has just the edges among its titles and all concepts.
        here = {f"t{title}" for title in part.titles}
        want = {e for e in whole if all(name in here or name[0] == "c" for name in e[:2])}
        assert got[number] == want
    # Lost are the co-plays that no part has both ends of.
    assert {e for e in whole - set().union(*got) if e[0][0] == "c" or e[1][0] == "c"} == set()


@given(coplays=coplay_edges, n=st.integers(0, 12), seed=st.integers(0, 9))
def test_the_heaviest_outside_come_along(make_graph, coplays, n, seed):
    graph = make_graph(TITLES, coplays, {})
    mine = np.arange(0, TITLES, 3, dtype=np.int32)
    weight = np.zeros(TITLES)
    for a, b, w in coplays:
        if (a in mine) != (b in mine):
            weight[a if b in mine else b] += w
    order = sorted(np.flatnonzero(weight), key=lambda title: (-weight[title], title))

    chosen = externals(graph, WeightedTopN(n), mine, seed=seed)

    assert chosen.tolist() == sorted(order[:n])


def test_a_budget_is_kept_for_each_relation(make_graph):
    coplays = [(0, other, 1.0) for other in range(1, 10)]
    graph = make_graph(30, coplays, {"genre": [(0, 0), *((other, 0) for other in range(20, 30))]})
    sampler = PerRelation({"coplay": 4, "genre": 3})

    chosen = externals(graph, sampler, np.array([0], np.int32), seed=1)

    assert ((chosen >= 1) & (chosen < 10)).sum() == 4
    assert (chosen >= 20).sum() == 3
    assert len(chosen) == 7
    np.testing.assert_array_equal(
        chosen, externals(graph, sampler, np.array([0], np.int32), seed=1)
    )


def test_what_ties_more_is_drawn_more_often(make_graph):
    graph = make_graph(3, [(0, 1, 9.0), (0, 2, 1.0)], {})

    drawn = [
        int(PerRelation({"coplay": 1})(graph, inside(graph, [0]), seed=seed)[0])
        for seed in range(400)
    ]

    assert 0.85 < drawn.count(1) / 400 < 0.95


def test_a_sampler_of_a_users_own_is_asked_and_held_to_live_titles(make_graph):
    graph = make_graph(6, [], {})
    partition = cut(graph, 2, seed=0)

    class Everyone:
        def __call__(self, graph, inside, *, seed):
            return graph.ids["title"].live_ids()

    part = hasp_subgraph(graph, partition, 0, max_coplay=None, sampler=Everyone())

    assert part.titles.tolist() == list(range(6))
    np.testing.assert_array_equal(part.own, partition.titles(0))

    def nobody(graph, inside, *, seed):
        return np.array([77], np.int32)

    with pytest.raises(ValueError, match="chose title 77, which is not live"):
        hasp_subgraph(graph, partition, 0, max_coplay=None, sampler=nobody)


def test_an_even_draw_gives_every_title_outside_its_turn(make_graph):
    graph = make_graph(12, [(0, 1, 9.0)], {})
    mine = np.arange(4, dtype=np.int32)

    drawn = [externals(graph, Even(2), mine, seed=seed) for seed in range(200)]

    assert {len(one) for one in drawn} == {2}
    times = np.bincount(np.concatenate(drawn), minlength=12)
    assert times[:4].sum() == 0
    assert (times[4:] > 20).all()  # of 50 expected
    assert len(externals(graph, Even(99), mine, seed=0)) == 8


@pytest.mark.parametrize("sampler", [Even, WeightedTopN])
def test_a_negative_number_of_titles_is_refused(sampler):
    with pytest.raises(ValueError, match="n=-1"):
        sampler(-1)
