"""The graph: what it refuses, what a batch does, and what is left after a vertex is retired."""

from pathlib import Path

import numpy as np
import pytest

from store.edges import EdgeBatch, Op
from store.graph import DynamicGraph, Relation

COPLAY = Relation("coplay", "title", "title", symmetric=True)
GENRE = Relation("genre", "title", "concept")


def batch(relation, heads, tails, weights, op=Op.ADD, time_ms=0) -> EdgeBatch:
    count = len(heads)
    return EdgeBatch(
        np.full(count, relation, np.int16),
        np.array(heads, np.int32),
        np.array(tails, np.int32),
        np.array(weights, np.float32),
        np.broadcast_to(np.array(op, np.uint8), count).copy(),
        np.broadcast_to(np.array(time_ms, np.int64), count).copy(),
    )


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


@pytest.fixture
def graph() -> DynamicGraph:
    graph = DynamicGraph([COPLAY, GENRE])
    graph.ids["title"].intern(["a", "b", "c", "d"])
    graph.ids["concept"].intern(["genre:x", "genre:y"])
    graph.apply(batch(0, [0, 1, 2, 2], [1, 2, 0, 2], [1, 2, 3, 4]))
    graph.apply(batch(1, [0, 1, 3], [0, 0, 1], [1, 1, 1]))
    return graph


def test_a_symmetric_edge_stands_at_both_ends_and_a_loop_once(graph: DynamicGraph) -> None:
    heads, tails, weights = graph.edges(0)

    assert heads.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert tails.tolist() == [1, 2, 0, 2, 0, 1, 2]
    assert weights.tolist() == [1, 3, 1, 2, 3, 2, 4]
    assert graph.num_edges(0) == 7


def test_a_directed_edge_is_seen_from_its_tail(graph: DynamicGraph) -> None:
    indptr, heads, weights = graph.neighbors(1, ids(0, 1), reverse=True)

    assert indptr.tolist() == [0, 2, 3]
    assert heads.tolist() == [0, 1, 3]
    assert weights.tolist() == [1, 1, 1]
    assert graph.degree(1, ids(0, 1), reverse=True).tolist() == [2, 1]


def test_rows_of_one_edge_act_in_their_order(graph: DynamicGraph) -> None:
    ops = [Op.SET, Op.ADD, Op.DELETE, Op.ADD]

    graph.apply(batch(0, [3, 0, 3, 0], [0, 3, 0, 3], [5, 6, 0, 7], ops))

    assert graph.weight(0, ids(0, 3), ids(3, 0)).tolist() == [7, 7]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (batch(0, [0, 0], [1, 1], [1, np.nan]), r"weight\[1\] is nan"),
        (batch(0, [0, 0], [1, 1], [1, np.inf]), r"weight\[1\] is inf"),
        (batch(0, [0, 0], [1, 1], [1, -2]), r"weight\[1\] is -2.0"),
        (batch(0, [0, 4], [1, 1], [1, 1]), r"head\[1\] is 4"),
        (batch(1, [0, 0], [1, -1], [1, 1]), r"tail\[1\] is -1"),
        (batch([0, 2], [0, 0], [1, 1], [1, 1]), r"relation\[1\] is 2"),
        (batch(0, [0, 0], [1, 1], [1, 1], [0, 3]), r"op\[1\] is 3"),
    ],
    ids=["nan", "infinite", "negative", "head", "tail", "relation", "op"],
)
def test_nothing_of_a_bad_batch_is_applied(graph, bad, message) -> None:
    before = [column.tolist() for number in (0, 1) for column in graph.edges(number)]

    with pytest.raises(ValueError, match=message):
        graph.apply(bad)

    assert before == [column.tolist() for number in (0, 1) for column in graph.edges(number)]


def test_a_column_of_another_type_or_length_is_refused() -> None:
    good = batch(0, [0], [1], [1])

    with pytest.raises(ValueError, match="head is int64"):
        EdgeBatch(good.relation, good.head.astype(np.int64), *_columns(good)[2:])
    with pytest.raises(ValueError, match=r"tail has shape \(2,\)"):
        EdgeBatch(good.relation, good.head, np.zeros(2, np.int32), *_columns(good)[3:])


def _columns(one: EdgeBatch) -> list[np.ndarray]:
    return [one.relation, one.head, one.tail, one.weight, one.op, one.time_ms]


def test_a_retired_vertex_leaves_every_tree_and_its_id_is_given_again(graph) -> None:
    graph.retire("title", ids(2, 3, 2))

    assert [column.tolist() for column in graph.edges(0)] == [[0, 1], [1, 0], [1, 1]]
    assert graph.degree(1, ids(0, 1), reverse=True).tolist() == [2, 0]
    assert sorted(graph.ids["title"].intern(["e", "f"]).tolist()) == [2, 3]
    assert graph.degree(0, ids(2, 3)).tolist() == [0, 0]


def test_a_retired_concept_leaves_its_titles(graph: DynamicGraph) -> None:
    graph.retire("concept", ids(0))

    assert graph.degree(1, ids(0, 1, 3)).tolist() == [0, 0, 1]


def test_an_edge_to_a_free_id_is_refused(graph: DynamicGraph) -> None:
    graph.retire("title", ids(1))

    with pytest.raises(ValueError, match=r"tail\[0\] is 1 .*a live 'title'"):
        graph.apply(batch(0, [0], [1], [1]))


def test_unknown_names_and_numbers_are_named(graph: DynamicGraph) -> None:
    with pytest.raises(ValueError, match="no relation 'mood'"):
        graph.relation_id("mood")
    with pytest.raises(ValueError, match="no relation 9"):
        graph.degree(9, ids(0))
    with pytest.raises(ValueError, match=r"vertices\[1\] is 7"):
        graph.degree(0, ids(0, 7))
    with pytest.raises(ValueError, match="no vertex type 'user'"):
        graph.num_nodes("user")


def test_a_relation_is_added_once_and_never_twice_otherwise(graph: DynamicGraph) -> None:
    assert graph.add_relation(GENRE) == 1
    assert graph.add_relation(Relation("mood", "title", "concept")) == 2
    with pytest.raises(ValueError, match="already"):
        graph.add_relation(Relation("genre", "concept", "title"))


def test_a_loaded_graph_answers_and_draws_alike(graph: DynamicGraph, tmp_path: Path) -> None:
    everyone = ids(0, 1, 2, 3)

    graph.save(tmp_path)
    loaded = DynamicGraph.load(tmp_path)

    assert loaded.relations == graph.relations
    assert loaded.ids["title"].names(everyone) == ["a", "b", "c", "d"]
    for number in (0, 1):
        for ours, theirs in zip(graph.edges(number), loaded.edges(number), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    draw = {"seed": 3, "fanout": 50}
    np.testing.assert_array_equal(
        graph.sample(0, everyone, **draw), loaded.sample(0, everyone, **draw)
    )
    loaded.apply(batch(0, [3], [0], [1]))
    assert loaded.num_edges(0) == graph.num_edges(0) + 2


def test_a_damaged_snapshot_is_refused(graph: DynamicGraph, tmp_path: Path) -> None:
    graph.save(tmp_path)
    victim = tmp_path / "0.forward.words.npy"
    data = bytearray(victim.read_bytes())
    data[-5] ^= 1
    victim.write_bytes(data)

    with pytest.raises(ValueError, match=r"0\.forward\.words\.npy is not what was written"):
        DynamicGraph.load(tmp_path)
    with pytest.raises(ValueError, match="holds no graph"):
        DynamicGraph.load(tmp_path / "nowhere")


def changed_alike(half_life_s: float | None, index: str) -> tuple[DynamicGraph, DynamicGraph]:
    """The same random changes, one by one and as a batch."""
    rng = np.random.default_rng(8)
    graphs = []
    for _ in range(2):
        graph = DynamicGraph([COPLAY, GENRE], leaf_index=index, half_life_s=half_life_s)
        graph.ids["title"].intern([f"t{n}" for n in range(40)])
        graph.ids["concept"].intern([f"c{n}" for n in range(40)])
        graphs.append(graph)
    count = 3000
    relations, ops = rng.integers(0, 2, count), rng.choice(3, count, p=[0.5, 0.2, 0.3])
    heads, tails = (rng.random((2, count)) ** 2 * 40).astype(int)
    weights, times = rng.random(count).astype(np.float32), np.sort(rng.integers(0, 10**6, count))
    rows = zip(*(c.tolist() for c in (relations, heads, tails, weights, ops, times)), strict=True)
    for row in rows:
        graphs[0].change(*row)
    graphs[1].apply(batch(relations, heads, tails, weights, ops, times))
    return graphs[0], graphs[1]


@pytest.mark.parametrize("half_life_s", [None, 100.0], ids=["lasting", "fading"])
@pytest.mark.parametrize("index", ["sums16", "fstable", "cstable"])
def test_changes_one_by_one_do_what_a_batch_does(half_life_s: float | None, index: str) -> None:
    one_by_one, at_once = changed_alike(half_life_s, index)

    for number in (0, 1):
        assert one_by_one.num_edges(number) == at_once.num_edges(number)
        for ours, theirs in zip(one_by_one.edges(number), at_once.edges(number), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)
        for ours, theirs in zip(
            one_by_one.neighbors(number, np.arange(40), reverse=True),
            at_once.neighbors(number, np.arange(40), reverse=True),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((0, 0, 1, float("nan"), 0), r"weight\[0\] is nan"),
        ((0, 0, 1, 1e39, 0), r"weight\[0\] is inf"),
        ((0, 0, 1, -1.0, 0), r"weight\[0\] is -1.0"),
        ((0, 9, 1, 1.0, 0), r"head\[0\] is 9"),
        ((1, 0, -1, 1.0, 0), r"tail\[0\] is -1"),
        ((1, 0, 2**40, 1.0, 0), r"tail is 1099511627776"),
        ((2, 0, 1, 1.0, 0), r"relation\[0\] is 2"),
        ((-1, 0, 1, 1.0, 0), r"relation\[0\] is -1"),
        ((0, 0, 1, 1.0, 3), r"op\[0\] is 3"),
    ],
)
def test_a_bad_change_is_named_and_not_made(graph: DynamicGraph, row, message: str) -> None:
    before = [column.tolist() for number in (0, 1) for column in graph.edges(number)]

    with pytest.raises(ValueError, match=message):
        graph.change(*row, 0)

    assert before == [column.tolist() for number in (0, 1) for column in graph.edges(number)]


def test_a_change_finds_vertices_that_were_named_or_loaded_since(
    graph: DynamicGraph, tmp_path: Path
) -> None:
    many = graph.ids["title"].intern([f"later {n}" for n in range(5000)])
    graph.change(0, 0, int(many[-1]), 2.0, Op.SET, 0)
    graph.save(tmp_path)
    loaded = DynamicGraph.load(tmp_path)
    more = loaded.ids["title"].intern(["last"])

    loaded.change(0, int(more[0]), 1, 3.0, Op.ADD, 0)

    assert loaded.weight(0, ids(0, 1), np.concatenate([many[-1:], more])).tolist() == [2, 3]
    assert graph.weight(0, ids(0), many[-1:]).tolist() == [2]


@pytest.mark.parametrize("index", ["sums16", "fstable", "cstable"])
def test_a_mapped_graph_answers_and_changes_and_leaves_its_files(
    index: str, tmp_path: Path
) -> None:
    graph, _ = changed_alike(None, index)
    graph.save(tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    everyone = np.arange(40, dtype=np.int32)

    mapped = DynamicGraph.load(tmp_path, mapped=True)

    for number in (0, 1):
        for ours, theirs in zip(graph.edges(number), mapped.edges(number), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(
            graph.sample(number, everyone, 7, seed=3), mapped.sample(number, everyone, 7, seed=3)
        )
    rng = np.random.default_rng(1)
    some = [rng.integers(0, 40, 500), rng.integers(0, 40, 500), rng.random(500)]
    for one in (graph, mapped):
        one.change(0, 1, 2, 5.0, Op.SET, 0)
        one.apply(batch(1, *some))
        one.retire("title", everyone[:3])
    for ours, theirs in zip(graph.edges(1), mapped.edges(1), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert files == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_mapped_graph_without_edges_is_a_graph(tmp_path: Path) -> None:
    DynamicGraph([COPLAY]).save(tmp_path)

    loaded = DynamicGraph.load(tmp_path, mapped=True)

    loaded.ids["title"].intern(["a", "b"])
    loaded.apply(batch(0, [0], [1], [1]))
    assert loaded.num_edges(0) == 2


def test_an_image_stays_as_it_was_while_the_graph_changes(
    graph: DynamicGraph, tmp_path: Path
) -> None:
    graph.set_features("title", ids(1), np.ones((1, 3)))
    before = [column.tolist() for column in graph.edges(0)]

    image = graph.image()
    graph.apply(batch(0, [0, 1, 3], [3, 1, 3], [7, 8, 9], [Op.SET, Op.DELETE, Op.ADD]))
    graph.set_features("title", ids(1), np.zeros((1, 3)))
    graph.retire("title", ids(2))
    image.save(tmp_path)

    loaded = DynamicGraph.load(tmp_path)
    assert [column.tolist() for column in loaded.edges(0)] == before
    assert loaded.get_features("title", ids(1)).tolist() == [[1, 1, 1]]
    assert loaded.ids["title"].names(ids(2)) == ["c"]
