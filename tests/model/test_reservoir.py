import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.positives import Positives
from model.reservoir import Reservoir


def pairs(start, count):
    number = np.arange(start, start + count)
    return Positives(
        number.astype(np.int32), number.astype(np.int32), np.ones(count, np.float32), number
    )


@given(batches=st.lists(st.integers(0, 30), max_size=6), capacity=st.integers(1, 20))
def test_it_holds_as_many_as_it_can_and_each_once(batches, capacity):
    reservoir = Reservoir(capacity, seed=0)

    start = 0
    for count in batches:
        reservoir.add(pairs(start, count))
        start += count

    assert reservoir.seen == start
    assert len(reservoir.pairs) == min(start, capacity)
    assert len(set(reservoir.pairs.a.tolist())) == len(reservoir.pairs)
    assert (reservoir.pairs.time_ms == reservoir.pairs.a).all()


def test_old_pairs_stay_as_likely_as_new_ones():
    kept = np.zeros(100)

    for seed in range(400):
        reservoir = Reservoir(20, seed=seed)
        for start in range(0, 100, 25):
            reservoir.add(pairs(start, 25))
        kept[reservoir.pairs.a] += 1

    # 80 expected for each; the standard deviation of a quarter's mean is 1.6
    assert kept.reshape(4, 25).mean(1) == pytest.approx([80] * 4, abs=8)


def test_pairs_of_a_retired_title_are_dropped():
    reservoir = Reservoir(10, seed=0)
    reservoir.add(pairs(0, 10))

    reservoir.forget(np.array([3, 4]))

    assert sorted(reservoir.pairs.a) == [0, 1, 2, 5, 6, 7, 8, 9]
