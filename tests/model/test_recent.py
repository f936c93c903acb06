import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.positives import Positives
from model.recent import FAINT, Recent


def pairs(*titles, weight=1.0):
    """One pair of each title with title 99."""
    count = len(titles)
    return Positives(
        np.array(titles, np.int32),
        np.full(count, 99, np.int32),
        np.full(count, weight, np.float32),
        np.arange(count),
    )


def test_pairs_count_for_less_with_each_cycle_and_come_oldest_first():
    recent = Recent(0.5, 100)
    recent.add(pairs(1))
    recent.add(pairs(2, weight=3.0))

    faded = recent.faded()

    assert faded.a.tolist() == [1, 2]
    assert faded.weight.tolist() == [0.25, 1.5]


def test_what_came_keeps_its_own_weight_and_is_faded_only_as_it_is_read():
    recent = Recent(0.5, 100)
    recent.add(pairs(1))
    recent.faded()

    assert recent.cycles[0].weight.tolist() == [1.0]


def test_nothing_is_remembered_where_pairs_fade_at_once():
    recent = Recent(0.0, 100)
    recent.add(pairs(1, 2))

    assert len(recent.faded()) == 0


def test_the_newest_pairs_stay_where_there_is_no_room_for_all():
    recent = Recent(0.9, 3)
    recent.add(pairs(1, 2, 3))
    recent.add(pairs(4, 5))

    assert recent.faded().a.tolist() == [3, 4, 5]


def test_pairs_of_retired_titles_are_dropped():
    recent = Recent(0.5, 100)
    recent.add(pairs(1, 2))
    recent.add(pairs(2, 3))

    recent.forget(np.array([2]))

    assert recent.faded().a.tolist() == [1, 3]


def test_the_smallest_weight_there_is_fades_to_no_zero():
    recent = Recent(0.2, 100)
    recent.add(pairs(1, weight=np.finfo(np.float32).smallest_subnormal))

    assert (recent.faded().weight > 0).all()


@given(
    st.lists(st.integers(0, 6), max_size=12),
    st.sampled_from([0.0, 0.3, 0.6, 0.8]),
    st.integers(1, 12),
)
def test_as_if_each_pair_were_faded_by_its_age_and_the_oldest_cut_off(counts, fade, capacity):
    recent, every = Recent(fade, capacity), []
    for number, count in enumerate(counts):
        titles = range(100 * number, 100 * number + count)
        recent.add(pairs(*titles))
        every += [(title, fade ** (len(counts) - number)) for title in titles]

    want = [(title, factor) for title, factor in every if factor >= FAINT - 1e-9][-capacity:]
    faded = recent.faded()
    assert faded.a.tolist() == [title for title, _ in want]
    assert faded.weight.tolist() == pytest.approx([factor for _, factor in want])
