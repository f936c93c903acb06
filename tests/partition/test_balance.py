import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from partition.balance import bonds, deal, largest, level


@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=6),
    count=st.integers(0, 40),
    seed=st.integers(0, 99),
)
def test_a_deal_fills_the_small_parts_first(sizes, count, seed):
    sizes = np.array(sizes)

    cards = deal(sizes, count, seed)

    after = sizes + np.bincount(cards, minlength=len(sizes))
    got = after[after > sizes]  # who was dealt a card
    assert len(cards) == count
    assert not len(got) or got.max() <= after.min() + 1


@given(titles=st.integers(0, 10_000), parts=st.integers(1, 40))
def test_all_titles_fit_into_parts_that_are_at_most_three_percent_above_the_mean(titles, parts):
    limit = largest(titles, parts)

    assert limit * parts >= titles
    assert limit <= max(titles / parts * 1.03, titles / parts + 1)


@given(
    part=st.lists(st.integers(0, 3), max_size=40),
    fixed=st.lists(st.integers(0, 5), min_size=4, max_size=4),
    seed=st.integers(0, 99),
)
def test_levelling_leaves_no_part_too_large_and_moves_no_more_than_it_must(part, fixed, seed):
    part, fixed = np.array(part, np.int32), np.array(fixed)  # `fixed` titles cannot move
    bond = np.random.default_rng(seed).random((len(part), 4)).astype(np.float32)
    sizes = fixed + np.bincount(part, minlength=4)
    limit = max(largest(int(sizes.sum()), 4), int(fixed.max()))

    after = level(bond, part, sizes, limit)

    levelled = fixed + np.bincount(after, minlength=4)
    assert levelled.max() <= limit
    assert (after != part).sum() == np.maximum(sizes - limit, 0).sum()


def test_the_least_bound_title_goes_to_the_part_that_binds_it_most():
    bond = np.array([[5, 0, 1], [3, 0, 2], [4, 1, 0]], np.float32)
    part = np.zeros(3, np.int32)

    after = level(bond, part, np.array([3, 0, 0]), limit=2)

    assert after.tolist() == [0, 2, 0]


@given(
    edges=st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 2), st.integers(1, 9)), max_size=30)
)
def test_bonds_are_summed_by_title_and_part(edges):
    rows, others, weights = (np.array([edge[at] for edge in edges], np.int32) for at in range(3))
    want = np.zeros((5, 3))
    for row, other, weight in edges:
        if other >= 0:
            want[row, other] += weight

    np.testing.assert_allclose(bonds(rows, others, weights.astype(np.float32), 5, 3), want)
