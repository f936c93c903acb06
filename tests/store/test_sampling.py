"""Vertices, negatives and neighbourhoods: drawn from what is there, and alike for one seed."""

import numpy as np
import pytest

from store.edges import EdgeBatch
from store.graph import DynamicGraph, Relation
from store.sampling import sample_hops, sample_negatives, sample_nodes

TITLES, CONCEPTS = 60, 12


@pytest.fixture(scope="module")
def graph() -> DynamicGraph:
    rng = np.random.default_rng(0)
    graph = DynamicGraph(
        [
            Relation("coplay", "title", "title", symmetric=True),
            Relation("genre", "title", "concept"),
        ]
    )
    graph.ids["title"].intern([f"t{i}" for i in range(TITLES)])
    graph.ids["concept"].intern([f"genre:{i}" for i in range(CONCEPTS)])
    for relation, most, count in ((0, TITLES - 5, 300), (1, CONCEPTS, 90)):
        graph.apply(
            EdgeBatch(
                np.full(count, relation, np.int16),
                rng.integers(0, TITLES - 5, count).astype(np.int32),
                rng.integers(0, most, count).astype(np.int32),
                rng.random(count).astype(np.float32) + 0.1,
                np.zeros(count, np.uint8),
                np.zeros(count, np.int64),
            )
        )
    return graph


def edges_of(graph: DynamicGraph, relation: int) -> set[tuple[int, int]]:
    heads, tails, _ = graph.edges(relation)
    return set(zip(heads.tolist(), tails.tolist(), strict=True))


def test_a_neighbourhood_holds_edges_of_the_graph(graph: DynamicGraph) -> None:
    seeds = np.array([3, 1, 3, 7])
    fanouts = {(0, False): [4, 3], (1, False): [2, 2], (1, True): [3, 3]}

    found = sample_hops(graph, {"title": seeds}, fanouts, seed=5)

    titles, concepts = found.nodes["title"], found.nodes["concept"]
    assert titles[:3].tolist() == [3, 1, 7]
    assert len(set(titles.tolist())) == len(titles) == sum(found.nodes_by_hop["title"])
    assert len(set(concepts.tolist())) == len(concepts) == sum(found.nodes_by_hop["concept"])
    ends = {
        (0, False): (titles, titles),
        (1, False): (concepts, titles),
        (1, True): (titles, concepts),
    }
    for (relation, reverse), (sources, targets) in ends.items():
        key = (relation, reverse)
        source, target = sources[found.row[key]].tolist(), targets[found.col[key]].tolist()
        ends_of = (source, target) if reverse else (target, source)
        pairs = zip(*ends_of, strict=True)
        assert set(pairs) <= edges_of(graph, relation)
        assert sum(found.edges_by_hop[key]) == len(source)
    first = found.edges_by_hop[0, False][0]
    wanted = np.minimum(graph.degree(0, np.array([3, 1, 7])), 4).sum()
    assert first == wanted
    assert found.col[0, False][:first].max() < 3


def test_all_neighbours_are_taken_where_the_fanout_says_so(graph: DynamicGraph) -> None:
    found = sample_hops(graph, {"concept": np.array([2])}, {(1, True): [-1]}, seed=0)

    indptr, heads, _ = graph.neighbors(1, np.array([2]), reverse=True)
    assert found.nodes["title"].tolist() == heads.tolist()
    assert len(found.row[1, True]) == indptr[1]


def test_the_same_seed_draws_the_same(graph: DynamicGraph) -> None:
    fanouts = {(0, False): [5, 5]}

    one, two, other = (
        sample_hops(graph, {"title": np.arange(9)}, fanouts, seed=seed) for seed in (1, 1, 2)
    )

    np.testing.assert_array_equal(one.row[0, False], two.row[0, False])
    assert one.row[0, False].tolist() != other.row[0, False].tolist()


def test_fanouts_of_different_lengths_and_unknown_seeds_are_refused(graph) -> None:
    with pytest.raises(ValueError, match=r"lengths \[1, 2\]"):
        sample_hops(graph, {}, {(0, False): [1], (1, False): [1, 1]}, seed=0)
    with pytest.raises(ValueError, match=r"seeds are in 99\.\.99"):
        sample_hops(graph, {"title": np.array([99])}, {(0, False): [1]}, seed=0)


def test_negatives_are_no_edges_and_not_the_head(graph: DynamicGraph) -> None:
    heads = np.arange(20)

    for popular in (None, 0.75):
        drawn = sample_negatives(graph, 0, heads, 6, seed=3, popular=popular)
        assert drawn.shape == (20, 6)
        pairs = {(h, t) for h, row in enumerate(drawn.tolist()) for t in row if t >= 0}
        assert len(pairs) > 60
        assert not pairs & edges_of(graph, 0)
        assert all(head != tail for head, tail in pairs)


def test_vertices_are_drawn_in_proportion_to_their_weight(graph: DynamicGraph) -> None:
    drawn = sample_nodes(graph, "concept", 50_000, seed=1, relation=1, reverse=True)

    sums = graph.weight_sum(1, np.arange(CONCEPTS), reverse=True)
    share = np.bincount(drawn, minlength=CONCEPTS) / len(drawn)
    np.testing.assert_allclose(share, sums / sums.sum(), atol=0.012)
    uniform = np.bincount(sample_nodes(graph, "title", 50_000, seed=1), minlength=TITLES) / 50_000
    np.testing.assert_allclose(uniform, 1 / TITLES, atol=0.005)
