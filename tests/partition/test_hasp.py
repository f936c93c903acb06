import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partition.hasp import hasp_subgraph, whole_graph
from partition.mincut import cut
from partition.neighbourhood import POOL, incoming

TITLES, CONCEPTS = 12, 5

coplay_edges = st.dictionaries(
    st.tuples(st.integers(0, TITLES - 1), st.integers(0, TITLES - 1)).filter(
        lambda pair: pair[0] < pair[1]
    ),
    st.integers(1, 9).map(float),
    max_size=30,
).map(lambda edges: [(a, b, weight) for (a, b), weight in edges.items()])
concept_pairs = st.sets(
    st.tuples(st.integers(0, TITLES - 1), st.integers(0, CONCEPTS - 1)), max_size=25
).map(sorted)


def named_edges(graph, subgraph):
    """Edges of a subgraph as (source, target, message relation), nodes by name."""
    titles = [f"t{title}" for title in subgraph.titles]
    names = titles + [f"c{concept}" for concept in subgraph.concepts]
    source, target = subgraph.edge_index
    return {
        (names[i], names[j], int(relation))
        for i, j, relation in zip(source, target, subgraph.relation, strict=True)
    }


@given(coplays=coplay_edges, genres=concept_pairs, people=concept_pairs, seed=st.integers(0, 9))
def test_parts_hold_all_but_the_coplays_that_were_cut(make_graph, coplays, genres, people, seed):
    graph = make_graph(TITLES, coplays, {"genre": genres, "director": people})
    partition = cut(graph, 3, seed=seed)

    parts = [hasp_subgraph(graph, partition, part, max_coplay=None) for part in range(3)]

    # Each title is in exactly one part, every concept in each.
    assert sorted(np.concatenate([part.titles for part in parts])) == list(range(TITLES))
    for part in parts:
        np.testing.assert_array_equal(part.concepts, graph.ids["concept"].live_ids())
    # No semantic edge is lost, and the co-plays that are lost are the cut.
    whole = named_edges(graph, whole_graph(graph, max_coplay=None))
    got = set().union(*(named_edges(graph, part) for part in parts))
    lost = whole - got
    crossing = {
        (f"t{a}", f"t{b}", 0)
        for i, j, _ in coplays
        for a, b in ((i, j), (j, i))
        if partition.part[i] != partition.part[j]
    }
    assert got <= whole
    assert lost == crossing
    assert len(whole) == 2 * (len(coplays) + len(genres) + len(people))


@given(coplays=coplay_edges, genres=concept_pairs)
def test_edges_are_sorted_by_target(make_graph, coplays, genres):
    graph = make_graph(TITLES, coplays, {"genre": genres})

    subgraph = whole_graph(graph, max_coplay=3)

    assert (np.diff(subgraph.edge_index[1]) >= 0).all()
    assert len(subgraph.relation) == len(subgraph.weight) == subgraph.edge_index.shape[1]
    assert (subgraph.weight > 0).all()


@given(coplays=coplay_edges, k=st.integers(1, 4))
def test_the_closest_neighbours_stay(make_graph, coplays, k):
    graph = make_graph(TITLES, coplays, {})
    strength = np.zeros(TITLES)
    weight = np.zeros((TITLES, TITLES))
    for a, b, w in coplays:
        strength[[a, b]] += w
        weight[a, b] = weight[b, a] = w

    edges = incoming(graph, np.arange(TITLES, dtype=np.int32), np.zeros(0, np.int32), max_coplay=k)

    for title in range(TITLES):
        heaviest = sorted(np.flatnonzero(weight[title]), key=lambda j: (-weight[title, j], j))
        pool = heaviest[: POOL * k]
        close = {j: np.float32(weight[title, j]) / np.sqrt(np.float32(strength[j])) for j in pool}
        want = sorted(pool, key=lambda j: (-close[j], j))[:k]
        mine = edges.target == title
        assert edges.source[mine].tolist() == want
        if want:
            assert edges.weight[mine].mean() == pytest.approx(1.0, rel=1e-5)


def test_an_empty_graph_has_an_empty_subgraph(make_graph):
    graph = make_graph(0, [], {"genre": []})

    subgraph = whole_graph(graph, max_coplay=4)

    assert subgraph.num_nodes == 0
    assert subgraph.edge_index.shape == (2, 0)


def test_a_title_is_found_by_its_dense_id(make_graph):
    graph = make_graph(6, [], {})
    partition = cut(graph, 2, seed=0)

    subgraph = hasp_subgraph(graph, partition, 0, max_coplay=None)

    local = subgraph.local(np.arange(6))
    np.testing.assert_array_equal(subgraph.titles[local[local >= 0]], subgraph.titles)
    assert (local >= 0).sum() == len(subgraph.titles)
