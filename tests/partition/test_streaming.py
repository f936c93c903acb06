import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partition.balance import largest
from partition.mincut import coplay_edges, cut
from partition.streaming import follow, kept_share
from tests.partition.changes import camps, put

TITLES = 24


pairs = st.lists(
    st.tuples(st.integers(0, TITLES - 1), st.integers(0, TITLES - 1)).filter(
        lambda pair: pair[0] != pair[1]
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(
    before=pairs,
    after=pairs,
    gone=st.sets(st.integers(0, TITLES - 1), max_size=10),
    late=st.integers(0, 12),
    parts=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_every_live_title_has_a_part_and_no_part_is_too_large(
    make_graph, before, after, gone, late, parts, seed
):
    graph = make_graph(TITLES, [(a, b, 1.0) for a, b in dict.fromkeys(before)], {})
    first = cut(graph, parts, seed=seed)
    was = first.part.copy()
    if gone:
        graph.retire("title", np.array(sorted(gone), np.int32))
    new = graph.ids["title"].intern([f"late{number}" for number in range(late)])
    live = graph.ids["title"].live_ids()
    if after:
        put(graph, [(int(live[a % len(live)]), int(live[b % len(live)]), 2.0) for a, b in after])
    touched = np.unique(
        np.concatenate([new, live[[a % len(live) for pair in after for a in pair]]])
    )

    followed = follow(graph, first, touched, seed=seed)

    part = followed.partition.part
    np.testing.assert_array_equal(np.flatnonzero(part >= 0), live)
    sizes = np.bincount(part[live], minlength=parts)
    assert sizes.max() <= largest(len(live), parts)
    assert followed.partition.balance == pytest.approx(sizes.max() * parts / len(live))
    np.testing.assert_array_equal(first.part, was)  # the old partition is left as it is
    assert kept_share(graph, part) == pytest.approx(coplay_edges(graph).kept(part))


def test_a_new_title_goes_where_its_neighbours_are(make_graph):
    rng = np.random.default_rng(0)
    graph = make_graph(40, camps(rng, 40, 2, 400), {})
    partition = cut(graph, 2, seed=0)
    new = graph.ids["title"].intern(["late"])
    put(graph, [(int(new[0]), 2, 1.0), (int(new[0]), 4, 1.0), (int(new[0]), 5, 1.0)])

    followed = follow(graph, partition, new, seed=0)

    part = followed.partition.part
    assert part[new[0]] == part[2] == part[4] != part[5]
    assert (followed.placed, followed.dealt, followed.moved) == (1, 0, 0)


def test_titles_without_neighbours_are_dealt_evenly(make_graph):
    rng = np.random.default_rng(0)
    graph = make_graph(40, camps(rng, 40, 2, 400), {})
    partition = cut(graph, 2, seed=0)
    new = graph.ids["title"].intern([f"late{number}" for number in range(10)])

    followed = follow(graph, partition, np.zeros(0, np.int32), seed=1)

    assert np.bincount(followed.partition.part[new]).tolist() == [5, 5]
    assert followed.dealt == 10


def test_a_title_moves_when_its_neighbours_are_elsewhere_now(make_graph):
    # Parts of 100: three titles may be above the mean.
    rng = np.random.default_rng(0)
    graph = make_graph(200, camps(rng, 200, 2, 3000), {})
    partition = cut(graph, 2, seed=0)
    part = partition.part
    assert part[0] != part[1]
    put(graph, [(0, other, 50.0) for other in range(1, 60, 2)])

    followed = follow(graph, partition, np.array([0]), seed=0)

    assert followed.partition.part[0] == part[1]
    assert followed.moved == 1


def test_streaming_keeps_most_of_what_a_fresh_cut_keeps(make_graph):
    rng = np.random.default_rng(1)
    titles, number = 800, 16
    graph = make_graph(titles, camps(rng, titles, number, 12_000), {})
    partition = cut(graph, 4, seed=0)
    # A tenth goes, as many come, and another tenth finds company elsewhere.
    away, moving = np.split(rng.permutation(titles)[: titles // 5], 2)
    graph.retire("title", away.astype(np.int32))
    new = graph.ids["title"].intern([f"late{one}" for one in range(len(away))])
    stay = np.setdiff1d(np.arange(titles), np.concatenate([away, moving]))
    for title, camp in zip(
        np.concatenate([new, moving]), rng.integers(number, size=titles // 5), strict=True
    ):
        others = rng.choice(stay[stay % number == camp], 30)
        put(graph, [(int(title), int(other), 2.0) for other in others])

    followed = follow(graph, partition, np.concatenate([new, moving]), seed=0)

    assert followed.partition.balance <= 1.03
    fresh = cut(graph, 4, seed=1)
    assert kept_share(graph, followed.partition.part) >= 0.9 * fresh.kept_weight
    assert kept_share(graph, partition.part) < 0.9 * fresh.kept_weight  # without following
