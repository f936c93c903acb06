"""A forest of samtrees against a dictionary, for each index of weights, under any changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.forest import MAX_ID, Forest

INDEXES = ("sums16", "fstable", "cstable")
VERTICES = 40
ADD, SET, DELETE = 0, 1, 2

every_index = pytest.mark.parametrize("index", INDEXES)


class Oracle:
    """The obvious way to keep weighted edges."""

    def __init__(self) -> None:
        self.edges: dict[tuple[int, int], float] = {}

    def apply(self, heads, tails, weights, ops) -> None:
        for head, tail, weight, op in zip(
            *map(np.ndarray.tolist, (heads, tails, weights, ops)), strict=True
        ):
            if op == DELETE:
                self.edges.pop((head, tail), None)
            elif op == SET:
                self.edges[head, tail] = weight
            else:
                self.edges[head, tail] = self.edges.get((head, tail), 0.0) + weight


def random_batch(rng, oracle: Oracle, size: int, most: int, removing: bool):
    """Skewed changes, half of them to edges that are there; whole weights add without rounding."""
    heads = np.minimum(rng.pareto(0.5, size) * 2, VERTICES - 1).astype(np.int32)
    tails = rng.integers(0, most, size, endpoint=True).astype(np.int32)
    known = list(oracle.edges)
    if known:
        for row in np.flatnonzero(rng.random(size) < (0.95 if removing else 0.4)):
            heads[row], tails[row] = known[rng.integers(len(known))]
    weights = rng.integers(0, 50, size).astype(np.float32)
    share = [0.05, 0.05, 0.9] if removing else [0.5, 0.3, 0.2]
    return heads, tails, weights, rng.choice(3, size, p=share).astype(np.uint8)


def assert_alike(forest: Forest, oracle: Oracle) -> None:
    vertices = np.arange(VERTICES, dtype=np.int32)
    edges = sorted(oracle.edges.items())

    indptr, ids, weights = forest.neighbors(vertices)

    assert len(forest) == len(edges)
    assert np.repeat(vertices, np.diff(indptr)).tolist() == [head for (head, _), _ in edges]
    assert ids.tolist() == [tail for (_, tail), _ in edges]
    assert weights.tolist() == [weight for _, weight in edges]
    assert forest.degree(vertices).tolist() == np.diff(indptr).tolist()
    sums = np.add.reduceat(np.append(weights, 0), indptr[:-1])
    np.testing.assert_array_equal(forest.weight_sum(vertices), np.where(np.diff(indptr), sums, 0))
    best, best_weights = forest.top_k(vertices, 3)
    for vertex in vertices.tolist():
        row = sorted((-w, t) for (_, t), w in edges[indptr[vertex] : indptr[vertex + 1]])[:3]
        assert [t for t in best[vertex].tolist() if t >= 0] == [tail for _, tail in row]
        assert best_weights[vertex, : len(row)].tolist() == [-weight for weight, _ in row]


@every_index
@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32 - 1),
    capacity=st.sampled_from([8, 12, 16, 64, 256]),
    most=st.sampled_from([100, 70_000, MAX_ID]),
    removing=st.lists(st.booleans(), min_size=1, max_size=8),
)
def test_a_forest_holds_what_a_dictionary_holds(
    index: str, seed: int, capacity: int, most: int, removing: list[bool]
) -> None:
    rng = np.random.default_rng(seed)
    forest, oracle = Forest(index, capacity), Oracle()
    forest.ensure_vertices(VERTICES)

    for phase in removing:
        batch = random_batch(rng, oracle, int(rng.integers(1, 1500)), most, phase)
        forest.apply(*batch)
        oracle.apply(*batch)

    assert_alike(forest, oracle)
    heads, tails, _, _ = batch
    wanted = [
        oracle.edges.get(edge, 0.0) for edge in zip(heads.tolist(), tails.tolist(), strict=True)
    ]
    assert forest.weight(heads, tails).tolist() == wanted


@every_index
def test_memory_returns_when_everything_is_deleted(index: str) -> None:
    rng = np.random.default_rng(5)
    forest = Forest(index, 16)
    forest.ensure_vertices(VERTICES)
    before = forest.memory_report()["blocks"]
    heads = rng.integers(0, VERTICES, 20_000).astype(np.int32)
    tails = rng.integers(0, 5_000, 20_000).astype(np.int32)
    weights = np.ones(20_000, np.float32)

    forest.apply(heads, tails, weights, np.full(20_000, ADD, np.uint8))
    full = forest.memory_report()["blocks"]
    order = rng.permutation(20_000)
    forest.apply(heads[order], tails[order], weights, np.full(20_000, DELETE, np.uint8))

    assert full > before == forest.memory_report()["blocks"] == 0
    assert len(forest) == 0


def test_a_vertex_of_degree_three_takes_tens_of_bytes() -> None:
    forest = Forest()
    forest.ensure_vertices(1000)
    heads = np.repeat(np.arange(1000, dtype=np.int32), 3)
    tails = np.tile(np.array([5, 1_000_000, MAX_ID], np.int32), 1000)

    forest.apply(heads, tails, np.ones(3000, np.float32), np.full(3000, ADD, np.uint8))

    report = forest.memory_report()
    assert (report["table"] + report["blocks"]) / 1000 == 48


@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "uniform"])
@pytest.mark.parametrize("replace", [True, False], ids=["replaced", "distinct"])
@every_index
def test_draws_fall_in_proportion(index: str, replace: bool, weighted: bool) -> None:
    degrees = [3, 30, 300, 3000]
    rng = np.random.default_rng(1)
    forest = Forest(index, 64)
    forest.ensure_vertices(len(degrees))
    heads = np.repeat(np.arange(len(degrees), dtype=np.int32), degrees)
    tails = np.concatenate([rng.permutation(100_000)[:degree] for degree in degrees])
    weights = rng.integers(0, 4, len(heads)).astype(np.float32)
    weights[:3] = [1, 2, 0]
    tails = tails.astype(np.int32)
    forest.apply(heads, tails, weights, np.full(len(heads), ADD, np.uint8))

    for vertex in range(len(degrees)):
        seeds = np.full(100_000, vertex, np.int32)
        drawn = forest.sample(seeds, 1, 7, weighted=weighted, replace=replace).ravel()
        count = np.bincount(drawn, minlength=100_000)[tails[heads == vertex]]
        mass = weights[heads == vertex] if weighted else np.ones(degrees[vertex])
        expected = mass / mass.sum() * len(seeds)
        assert count.sum() == len(seeds)
        assert not count[mass == 0].any()
        used = expected > 0
        chi = ((count - expected)[used] ** 2 / expected[used]).sum()
        freedom = used.sum() - 1
        # The seed is fixed; 5 standard deviations leave a true sampler unharmed by another.
        assert abs(chi - freedom) < 5 * np.sqrt(2 * freedom + 1)


@every_index
def test_distinct_draws_are_distinct_and_all_where_there_are_fewer(index: str) -> None:
    forest = Forest(index, 16)
    forest.ensure_vertices(2)
    heads = np.repeat(np.array([0, 1], np.int32), [50, 4])
    tails = np.concatenate([np.arange(50), np.arange(4)]).astype(np.int32)
    weights = np.ones(54, np.float32)
    weights[0], weights[53] = 1e9, 0  # a giant, which draws alone would not get past
    forest.apply(heads, tails, weights, np.full(54, ADD, np.uint8))

    weighted = forest.sample(np.array([0, 1], np.int32), 20, 3, weighted=True, replace=False)
    uniform = forest.sample(np.array([1], np.int32), 20, 3, weighted=False, replace=False)

    assert len(set(weighted[0].tolist())) == 20
    assert 0 in weighted[0]
    assert sorted(weighted[1].tolist()) == [-1] * 17 + [0, 1, 2]
    assert sorted(uniform[0].tolist()) == [-1] * 16 + [0, 1, 2, 3]


def test_a_bad_index_or_capacity_is_named() -> None:
    with pytest.raises(ValueError, match="leaf_index is 'alias'"):
        Forest("alias")
    with pytest.raises(ValueError, match="leaf_capacity is 100"):
        Forest("sums16", 100)
