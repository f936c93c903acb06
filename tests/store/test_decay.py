"""Edges fade with time, as they would if every one of them were multiplied again and again."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.edges import EdgeBatch, Op
from store.graph import DynamicGraph, Relation

HOUR = 3_600_000


def graph_of(half_life_s: float | None) -> DynamicGraph:
    graph = DynamicGraph(
        [Relation("coplay", "title", "title", symmetric=True)], half_life_s=half_life_s
    )
    graph.ids["title"].intern([f"t{i}" for i in range(8)])
    return graph


def batch(heads, tails, weights, times, op=Op.ADD) -> EdgeBatch:
    count = len(heads)
    return EdgeBatch(
        np.zeros(count, np.int16),
        np.array(heads, np.int32),
        np.array(tails, np.int32),
        np.array(weights, np.float32),
        np.full(count, op, np.uint8),
        np.array(times, np.int64),
    )


events = st.lists(
    st.tuples(
        st.integers(0, 7), st.integers(0, 7), st.floats(0.125, 8, width=32), st.integers(0, 300)
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=40)
@given(events=events, size=st.integers(1, 40))
def test_weights_are_those_of_today(events, size: int) -> None:
    graph = graph_of(3600.0)
    now = max(hours for *_, hours in events)

    for start in range(0, len(events), size):
        some = events[start : start + size]
        graph.apply(batch(*zip(*((a, b, w, h * HOUR) for a, b, w, h in some), strict=True)))

    want = np.zeros((8, 8))
    for a, b, weight, hours in events:
        want[a, b] += weight * 2.0 ** (hours - now)
        if a != b:
            want[b, a] = want[a, b]
    want = np.where(want >= want.T, want, want.T)
    heads, tails = np.divmod(np.arange(64), 8)
    got = graph.weight(0, heads, tails).astype(np.float64)
    np.testing.assert_allclose(got, want.ravel(), rtol=1e-5, atol=1e-12)


def test_a_faded_edge_is_pruned_at_both_ends() -> None:
    graph = graph_of(1.0)
    graph.apply(batch([0, 1], [1, 2], [1, 1], [0, 0]))
    graph.apply(batch([2], [3], [1], [40_000]))

    removed = graph.prune(1e-6)

    assert removed == 4
    assert graph.edges(0)[0].tolist() == [2, 3]


def test_a_loaded_graph_keeps_its_clock(tmp_path: Path) -> None:
    graph = graph_of(60.0)
    graph.apply(batch([0], [1], [4], [1_000_000]))
    graph.save(tmp_path)

    loaded = DynamicGraph.load(tmp_path)
    for one in (graph, loaded):
        one.apply(batch([2], [3], [1], [1_060_000]))

    assert loaded.weight(0, np.array([0]), np.array([1])).tolist() == [2.0]
    assert graph.weight(0, np.array([0]), np.array([1])).tolist() == [2.0]


def test_edges_do_not_fade_unless_they_are_to() -> None:
    graph = graph_of(None)

    graph.apply(batch([0, 0], [1, 1], [1, 2], [0, 10**12]))

    assert graph.weight(0, np.array([0]), np.array([1])).tolist() == [3.0]


def test_a_half_life_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="half_life_s is 0"):
        graph_of(0)


def test_features_follow_their_vertices(tmp_path: Path) -> None:
    graph = graph_of(None)
    graph.set_features("title", np.array([1, 3]), np.array([[1, 2], [3, 4]], np.float32))
    graph.retire("title", np.array([3]))
    graph.save(tmp_path)

    loaded = DynamicGraph.load(tmp_path)

    assert loaded.get_features("title", np.array([0, 1, 3, 7])).tolist() == [
        [0, 0],
        [1, 2],
        [0, 0],
        [0, 0],
    ]
    with pytest.raises(ValueError, match=r"values has shape \(1, 3\)"):
        graph.set_features("title", np.array([1]), np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"values\[0\] is not finite"):
        graph.set_features("title", np.array([1]), np.array([[1, np.nan]]))
