"""How a batch is dealt to threads, and in which order each thread takes its rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import order
from store.jit import kernel
from store.words import pointer

LATE = 700


@kernel
def picked(vertices, thread, threads, rows, late):
    """`pick_rows` of what `deal_shards` gives a thread: only kernels may call them."""
    heads, count = pointer(vertices), len(vertices)
    wanted = order.deal_shards(heads, count, thread, threads, late)
    return order.pick_rows(heads, count, wanted, pointer(rows))


@kernel
def put_in_order(vertices, rows, spare, count, most):
    """`sort_rows`, likewise."""
    order.sort_rows(pointer(vertices), pointer(rows), pointer(spare), count, most)


@given(
    seed=st.integers(0, 2**32 - 1),
    most=st.sampled_from([1, 2000, 2047, 2048, 100_000, 2**31 - 2]),
    count=st.integers(1, 700),
    threads=st.integers(2, order.SHARDS),
)
def test_threads_take_every_row_once_and_those_of_a_vertex_as_they_came(seed, most, count, threads):
    vertices = np.random.default_rng(seed).integers(0, most, count, endpoint=True).astype(np.int32)
    taken, shards = [], []

    for thread in range(threads):
        rows, spare = np.empty(count, np.int32), np.empty(count, np.int32)
        mine = picked(vertices, thread, threads, rows, LATE)
        put_in_order(vertices, rows, spare, mine, most)
        by_vertex = sorted(rows[:mine].tolist(), key=lambda row: (vertices[row], row))
        assert rows[:mine].tolist() == by_vertex
        taken += by_vertex
        shards.append(set(((vertices[rows[:mine]] >> order.BLOCK) % order.SHARDS).tolist()))

    assert sorted(taken) == list(range(count))
    assert sum(map(len, shards)) == len(set.union(*shards))  # a shard is one thread's


@pytest.mark.parametrize("count", [4096, 20_000, 200_000, 1_000_000])
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_are_dealt_nearly_as_much(count, threads):
    vertices = (np.random.default_rng(1).zipf(1.5, count) % 50_000).astype(np.int32)
    largest = np.bincount((vertices >> order.BLOCK) % order.SHARDS).max()

    rows = np.empty(count, np.int32)
    each = [picked(vertices, thread, threads, rows, LATE) for thread in range(threads)]

    assert sum(each) == count
    assert max(each) <= max(largest, count / threads + LATE + 0.02 * count)


def test_the_callers_thread_takes_more_while_others_wake():
    vertices = np.arange(65_536, dtype=np.int32)
    rows = np.empty(len(vertices), np.int32)

    each = [picked(vertices, thread, 3, rows, LATE) for thread in range(3)]

    assert each == [6 * 4096, 5 * 4096, 5 * 4096]


@pytest.mark.parametrize("late", [0, LATE])
def test_two_threads_that_start_at_once_are_dealt_as_much(late):
    vertices = np.arange(65_536, dtype=np.int32) % 48_000
    rows = np.empty(len(vertices), np.int32)

    each = [picked(vertices, thread, 2, rows, late) for thread in range(2)]

    assert sum(each) == 65_536
    assert abs(each[0] - each[1] - late) <= 5461 / 2  # half of the largest shard
