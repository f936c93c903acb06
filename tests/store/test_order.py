"""How a batch is dealt to threads, and in which order each thread takes its rows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import order
from store.jit import kernel


@kernel
def picked(vertices, low, high, rows):
    """`pick_rows`, which only kernels may call."""
    return order.pick_rows(vertices, low, high, rows)


@kernel
def put_in_order(vertices, rows, spare, count, most):
    """`sort_rows`, likewise."""
    order.sort_rows(vertices, rows, spare, count, most)


@given(
    seed=st.integers(0, 2**32 - 1),
    most=st.sampled_from([1, 2000, 2047, 2048, 100_000, 2**31 - 2]),
    threads=st.integers(2, 40),
)
def test_threads_take_every_row_once_and_those_of_a_vertex_as_they_came(seed, most, threads):
    vertices = np.random.default_rng(seed).integers(0, most, 500, endpoint=True).astype(np.int32)
    shards = (vertices >> 2) % order.SHARDS
    taken = []

    cuts = order.deal(vertices, threads)
    for low, high in pairwise(cuts):
        rows, spare = np.empty(500, np.int32), np.empty(500, np.int32)
        count = picked(vertices, low, high, rows)
        put_in_order(vertices, rows, spare, count, most)
        assert ((low <= shards[rows[:count]]) & (shards[rows[:count]] < high)).all()
        by_vertex = sorted(rows[:count].tolist(), key=lambda row: (vertices[row], row))
        assert rows[:count].tolist() == by_vertex
        taken += by_vertex

    assert sorted(taken) == list(range(500))


def test_one_thread_takes_all_rows():
    assert order.deal(np.arange(9, dtype=np.int32), 1) == [0, 0]


@pytest.mark.parametrize("count", [4096, 200_000])
def test_two_threads_are_dealt_nearly_as_much(count):
    vertices = np.random.default_rng(1).zipf(1.5, count) % 50_000
    shards = (vertices >> 2) % order.SHARDS

    cuts = order.deal(vertices.astype(np.int32), 2)

    largest = np.bincount(shards).max()
    first = (shards < cuts[1]).sum()
    assert abs(first - count / 2) <= largest / 2 + 0.02 * count
