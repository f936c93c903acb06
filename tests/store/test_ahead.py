"""Changes that were looked up ahead of their turn do what they would have done at their turn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.ahead import NEAR, WEIGHTS
from store.edges import as_rows
from store.forest import Forest
from store.workers import Workers
from tests.store.test_forest import DELETE, INDEXES, SET

every_index = pytest.mark.parametrize("index", INDEXES)


def built(index, degrees, rng, workers=None):
    """A forest whose vertex v has `degrees[v]` edges of weight 1, and the same as dictionaries."""
    forest = Forest(index, workers=workers)
    rows = [np.sort(rng.choice(3 * degree, degree, replace=False)) for degree in degrees]
    heads = np.repeat(np.arange(len(degrees), dtype=np.int32), degrees)
    tails = np.concatenate(rows).astype(np.int32)
    forest.build(*as_rows(heads, tails, np.ones(len(heads), np.float32), len(degrees)))
    return forest, [dict.fromkeys(row.tolist(), 1.0) for row in rows]


def apply_to(oracle, heads, tails, weights, ops):
    columns = (heads.tolist(), tails.tolist(), weights.tolist(), ops.tolist())
    for head, tail, weight, op in zip(*columns, strict=True):
        if op == DELETE:
            oracle[head].pop(tail, None)
        else:
            oracle[head][tail] = weight if op == SET else oracle[head].get(tail, 0.0) + weight


def edges_of(forest, vertices):
    indptr, ids, weights = forest.neighbors(np.arange(vertices, dtype=np.int32))
    ends = zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True)
    return [dict(zip(ids[a:b].tolist(), weights[a:b].tolist(), strict=True)) for a, b in ends]


@every_index
@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    degrees=st.lists(st.sampled_from([3, 60, 66, 250, 257, 700, 5000]), min_size=1, max_size=3),
    few=st.sampled_from([2, 6, 40, 100_000]),
    runs=st.booleans(),
)
def test_a_batch_on_large_leaves_and_hubs_leaves_what_dictionaries_hold(
    index, seed, degrees, few, runs
):
    rng = np.random.default_rng(seed)
    forest, oracle = built(index, degrees, rng)
    size = 600
    heads = rng.integers(0, len(degrees), size).astype(np.int32)
    # The same few ids again and again: what is found ahead is often no longer so at its turn.
    tails = (rng.integers(0, few, size) * 7 % (4 * np.array(degrees)[heads])).astype(np.int32)
    if runs:
        heads, tails = np.sort(heads), np.sort(tails)
    weights = rng.integers(0, 9, size).astype(np.float32)
    ops = rng.integers(0, 3, size).astype(np.uint8)

    forest.apply(heads, tails, weights, ops)

    apply_to(oracle, heads, tails, weights, ops)
    assert edges_of(forest, len(degrees)) == oracle
    assert len(forest) == sum(map(len, oracle))


@every_index
@pytest.mark.parametrize("degree", [NEAR + 36, 4000])
@pytest.mark.parametrize("apart", range(WEIGHTS + 2))
def test_an_edge_that_comes_or_goes_just_before_its_change_is_seen(index, degree, apart):
    rng = np.random.default_rng(degree)
    forest, (row,) = built(index, [degree], rng)
    there, missing = next(iter(row)), next(i for i in range(3 * degree) if i not in row)
    others = [one for one in row if one != there][: 40 + apart]
    # By the time of these changes all stages ahead of them are under way.
    tails = [*others[:40], there, missing, *others[40:], there, missing]
    ops = [SET] * 40 + [DELETE, SET] + [SET] * apart + [SET, DELETE]
    heads = np.zeros(len(tails), np.int32)
    columns = np.array(tails, np.int32), np.full(len(tails), 2.0, np.float32)

    forest.apply(heads, *columns, np.array(ops, np.uint8))

    (found,) = edges_of(forest, 1)
    assert found[there] == 2.0
    assert missing not in found
    assert len(found) == degree


def test_two_threads_share_a_batch_of_hubs_and_make_the_same_of_it():
    degrees = [5000, 5, 300, 70, 900, 20, 8, 100] * 8
    rng = np.random.default_rng(3)
    forests = [built("sums16", degrees, np.random.default_rng(4), Workers(n))[0] for n in (1, 2, 5)]
    for _ in range(3):
        heads = rng.integers(0, len(degrees), 20_000).astype(np.int32)
        tails = rng.integers(0, 2000, 20_000).astype(np.int32)
        weights, ops = np.ones(20_000, np.float32), rng.integers(0, 3, 20_000).astype(np.uint8)
        for forest in forests:
            forest.apply(heads, tails, weights, ops)

    first, *others = (edges_of(forest, len(degrees)) for forest in forests)

    assert others == [first, first]
    vertices = np.arange(len(degrees), dtype=np.int32)
    draws = [one.sample(vertices, 50, 9, weighted=True, replace=True) for one in forests]
    assert all((draw == draws[0]).all() for draw in draws)
