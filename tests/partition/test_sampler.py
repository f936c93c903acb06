import numpy as np

from partition.mincut import cut
from partition.sampler import sample_subgraph

CHAIN = [(number, number + 1, 1.0) for number in range(9)]
GENRES = {"genre": [(number, number // 2) for number in range(10)]}


def draw(graph, partition, seeds, *, part=0, fanout=(8,), max_titles=100, seed=0):
    return sample_subgraph(
        graph,
        partition,
        part,
        np.array(seeds, np.int32),
        fanout=fanout,
        max_titles=max_titles,
        max_coplay=None,
        seed=seed,
    )


def test_a_sample_reaches_as_far_as_it_has_hops(make_graph):
    graph = make_graph(10, CHAIN, GENRES)
    partition = cut(graph, 1, seed=0)

    one = draw(graph, partition, [4], fanout=(20,))
    two = draw(graph, partition, [4], fanout=(20, 20))

    assert one.titles.tolist() == [3, 4, 5]
    assert two.titles.tolist() == [2, 3, 4, 5, 6]


def test_a_sample_stays_inside_its_part(make_graph):
    graph = make_graph(10, CHAIN, GENRES)
    partition = cut(graph, 2, seed=0)

    sample = draw(graph, partition, list(range(10)), part=1, fanout=(8, 8))

    np.testing.assert_array_equal(sample.titles, partition.titles(1))


def test_all_concepts_of_the_titles_come_along(make_graph):
    graph = make_graph(10, CHAIN, GENRES)
    partition = cut(graph, 1, seed=0)

    sample = draw(graph, partition, [0, 9], fanout=())

    assert len(sample.concepts) == 2
    assert sample.edge_index.shape == (2, 4)


def test_a_title_that_came_after_the_cut_can_be_sampled(make_graph):
    graph = make_graph(10, CHAIN, GENRES)
    partition = cut(graph, 2, seed=0)
    new = graph.ids["title"].intern(["late"])

    sample = draw(graph, partition, new.tolist())

    assert sample.titles.tolist() == new.tolist()
    assert sample.strength.tolist() == [0.0]


def test_a_sample_is_bounded_and_the_same_for_one_seed(make_graph):
    graph = make_graph(10, CHAIN, GENRES)
    partition = cut(graph, 1, seed=0)

    first = draw(graph, partition, list(range(10)), max_titles=4, seed=7)
    again = draw(graph, partition, list(range(10)), max_titles=4, seed=7)

    assert len(first.titles) == 4
    np.testing.assert_array_equal(first.titles, again.titles)


def test_titles_of_other_parts_come_along_beyond_the_bound(make_graph):
    graph = make_graph(10, CHAIN, GENRES)
    partition = cut(graph, 2, seed=0)
    mine, others = partition.titles(0), partition.titles(1)

    sample = sample_subgraph(
        graph,
        partition,
        0,
        mine,
        fanout=(),
        max_titles=5,
        max_coplay=None,
        seed=0,
        external=np.concatenate([mine[:2], others[:3]]),
    )

    np.testing.assert_array_equal(sample.own, mine)
    np.testing.assert_array_equal(sample.titles[sample.external], others[:3])
