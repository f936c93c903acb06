"""A forest of samtrees against a dictionary, for each index of weights, under any changes."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.forest import MAX_ID, Forest
from store.workers import Workers

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


@every_index
@pytest.mark.parametrize("bits", [16, 18, 20, 24, 31])
@pytest.mark.parametrize("more", [-2, -1, 0])
def test_a_leaf_holds_ids_at_the_edge_of_its_form(index: str, bits: int, more: int) -> None:
    """Built, and then grown past the edge: low halves of many are alike, so upper bits decide."""
    reach = min(2**bits + more, MAX_ID - 2)
    least = MAX_ID - 2 - reach if bits < 31 else 0
    steps = np.unique(np.linspace(0, reach >> 16, 40).astype(np.int64)) << 16
    tails = np.unique(np.concatenate([steps, steps + 1, np.linspace(0, reach, 25)]).astype(int))
    tails = (least + tails[tails <= reach]).astype(np.int32)
    weights = np.arange(1, len(tails) + 1, dtype=np.float32)
    forest, zeros = Forest(index), np.zeros(len(tails), np.int32)
    forest.ensure_vertices(1)

    forest.build(np.array([0, len(tails)]), tails, weights)
    built = forest.neighbors(zeros[:1])[1].tolist(), forest.weight(zeros, tails).tolist()
    beyond = np.array([least + reach + 1, least + reach + 2], np.int32)
    forest.apply(zeros[:2], beyond, np.ones(2, np.float32), np.full(2, ADD, np.uint8))
    gone = tails[::2].copy()
    forest.apply(zeros[: len(gone)], gone, weights, np.full(len(gone), DELETE, np.uint8))

    assert built == (tails.tolist(), weights.tolist())
    assert forest.neighbors(zeros[:1])[1].tolist() == [*tails[1::2].tolist(), *beyond.tolist()]
    assert forest.weight(zeros, tails).tolist() == [
        0 if row % 2 == 0 else weight for row, weight in enumerate(weights.tolist())
    ]


def test_edges_to_two_hundred_thousand_vertices_take_less_than_nine_bytes() -> None:
    """Ids of 18 bits take two bytes and a quarter; table, free blocks and all are counted."""
    rng = np.random.default_rng(6)
    keys = np.unique((rng.random(400_000) ** 3 * 10_000).astype(np.int64) << 32
                     | rng.integers(0, 200_000, 400_000))  # fmt: skip
    heads, tails = keys >> 32, (keys & 0x7FFFFFFF).astype(np.int32)
    forest = Forest()

    forest.build(np.searchsorted(heads, np.arange(10_001)), tails, np.ones(len(keys), np.float32))

    assert sum(forest.memory_report().values()) / len(forest) < 9


@every_index
@pytest.mark.parametrize("capacity", [8, 256])
def test_a_forest_that_is_built_goes_on_like_any_other(index: str, capacity: int) -> None:
    rng = np.random.default_rng(3)
    forest, oracle = Forest(index, capacity), Oracle()
    forest.ensure_vertices(VERTICES)
    keys = np.unique(
        rng.integers(0, VERTICES, 9000) ** 2 // VERTICES * 4000 + rng.integers(0, 4000, 9000)
    )
    heads, tails = (keys // 4000).astype(np.int32), (keys % 4000).astype(np.int32)
    weights = rng.integers(0, 50, len(keys)).astype(np.float32)
    oracle.apply(heads, tails, weights, np.full(len(keys), SET, np.uint8))

    forest.build(np.searchsorted(heads, np.arange(VERTICES + 1)), tails, weights)

    assert_alike(forest, oracle)
    for removing in (False, True):
        batch = random_batch(rng, oracle, 3000, 4000, removing)
        forest.apply(*batch)
        oracle.apply(*batch)
        assert_alike(forest, oracle)


@every_index
def test_the_result_is_the_same_for_any_number_of_threads(index: str) -> None:
    rng = np.random.default_rng(9)
    count = 20_000
    heads = (rng.random(count) ** 3 * 3000).astype(np.int32)
    tails = rng.integers(0, MAX_ID, count).astype(np.int32)
    weights = rng.random(count).astype(np.float32)
    ops = rng.choice(3, count, p=[0.5, 0.3, 0.2]).astype(np.uint8)
    tails[10_000:] = tails[rng.integers(0, 10_000, 10_000)]
    everyone = np.arange(3000, dtype=np.int32)

    results = []
    for threads in (1, 2, 3, 40):
        forest = Forest(index, 16, Workers(threads))
        forest.ensure_vertices(3000)
        forest.apply(heads, tails, weights, ops)
        forest.apply(heads[::-1].copy(), tails[::-1].copy(), weights, ops)
        drawn = forest.sample(np.tile(everyone, 4), 10, 5, weighted=True, replace=True)
        results.append([len(forest), *forest.neighbors(everyone), drawn])

    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@every_index
def test_draws_of_a_row_together_are_those_one_by_one(index: str) -> None:
    """With replacement and fanout 1 or 70, row by row: the first draws are the same."""
    rng = np.random.default_rng(2)
    forest = Forest(index, 16)
    forest.ensure_vertices(60)
    heads = np.repeat(np.arange(60, dtype=np.int32), np.arange(60) * 5)
    tails = np.concatenate([rng.choice(100_000, n * 5, False) for n in range(60)]).astype(np.int32)
    forest.apply(heads, tails, np.ones(len(heads), np.float32), np.zeros(len(heads), np.uint8))
    everyone = np.arange(60, dtype=np.int32)

    one = forest.sample(everyone, 1, 5, weighted=True, replace=True)
    many = forest.sample(everyone, 70, 5, weighted=True, replace=True)

    np.testing.assert_array_equal(one[:, 0], many[:, 0])
    assert (many[0] == -1).all()
    assert (many[1:] >= 0).all()


@every_index
def test_ten_million_neighbours_stand_on_one_vertex(index: str) -> None:
    """In small leaves, so that the tree is tall; a tenth of them stand for all in a quick run."""
    count = int(os.environ.get("UPWELL_HUB", "300000"))
    tails = np.linspace(0, MAX_ID, count).astype(np.int32)
    tails = np.random.default_rng(1).permutation(tails)
    forest = Forest(index, 16 if count < 10**6 else 256)
    forest.ensure_vertices(4)
    heads = np.full(count, 3, np.int32)

    forest.apply(heads, tails, np.ones(count, np.float32), np.zeros(count, np.uint8))

    vertex = np.array([3], np.int32)
    assert forest.degree(vertex).tolist() == [count]
    np.testing.assert_array_equal(forest.neighbors(vertex)[1], np.sort(tails))
    drawn = forest.sample(np.repeat(vertex, 1000), 10, 1, weighted=True, replace=True)
    assert np.isin(drawn, tails).all()
    assert abs(drawn.mean() / MAX_ID - 0.5) < 0.02
    forest.apply(
        heads, tails[::-1].copy(), np.ones(count, np.float32), np.full(count, DELETE, np.uint8)
    )
    assert forest.memory_report()["blocks"] == 0


@every_index
def test_scaling_by_a_power_of_two_is_exact(index: str) -> None:
    rng = np.random.default_rng(4)
    forest = Forest(index, 16)
    forest.ensure_vertices(30)
    heads = (rng.random(9000) ** 2 * 30).astype(np.int32)
    tails = rng.integers(0, 10**6, 9000).astype(np.int32)
    forest.apply(heads, tails, rng.random(9000).astype(np.float32), np.zeros(9000, np.uint8))
    everyone = np.arange(30, dtype=np.int32)
    before = forest.neighbors(everyone)[2], forest.weight_sum(everyone)

    forest.scale(2.0**-30)

    np.testing.assert_array_equal(forest.neighbors(everyone)[2], before[0] * np.float32(2.0**-30))
    np.testing.assert_array_equal(forest.weight_sum(everyone), before[1] * np.float32(2.0**-30))
