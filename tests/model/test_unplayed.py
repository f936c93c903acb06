import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.align import align
from model.batch import GraphBatch
from model.inference import Embedder
from model.unplayed import RIDGE, SHRINK, WEIGHTS, ConceptTable, Unplayed, answers, read, statistics
from partition.hasp import whole_graph

NONE = np.zeros(0, np.int32)
COPLAYS = [(0, 1, 3.0), (0, 2, 1.0), (1, 2, 2.0), (3, 4, 1.0), (0, 4, 2.0)]
SEMANTIC = {
    "genre": [(title, title % 3) for title in range(8)],
    "director": [(0, 0), (1, 0), (7, 1), (7, 0)],
}
UNPLAYED = [5, 6, 7, 8]  # of nine titles; the last has no concepts


def set_theta(model, **weights):
    for name, weight in weights.items():
        model.unplayed.theta[WEIGHTS.index(name)] = weight


@pytest.fixture
def scene(make_graph, make_model):
    graph = make_graph(9, COPLAYS, SEMANTIC)
    model = make_model(graph)
    set_theta(model, played=2.0, bare=0.5, answers=2.0, level=0.3, concepts=1.0, mean_weight=-1.0)
    return graph, model


def embedded(model, graph):
    embedder = Embedder(model)
    embedder.full(graph)
    return embedder


def test_only_titles_that_nobody_has_played_are_read_anew(scene):
    graph, model = scene
    subgraph = whole_graph(graph, max_coplay=model.config.max_coplay)
    with torch.no_grad():
        bare = model(GraphBatch.of(subgraph)).numpy()

    vectors = embedded(model, graph).vectors(subgraph.titles)

    np.testing.assert_allclose(vectors[:5], bare[:5], atol=1e-5)
    assert (np.abs(vectors[UNPLAYED] - bare[UNPLAYED]).max(1) > 1e-3).all()


def test_a_refresh_reads_them_as_full_inference_does(scene):
    graph, model = scene
    embedder = embedded(model, graph)
    before = embedder.vectors(np.arange(9))

    embedder.refresh(graph, np.arange(9, dtype=np.int32), NONE)

    np.testing.assert_allclose(embedder.vectors(np.arange(9)), before, atol=1e-5)


def test_a_title_that_is_played_gets_its_own_vector(scene, edit):
    graph, model = scene
    embedder = embedded(model, graph)
    edit.put(graph, 0, [(7, 0, 1.0)])

    embedder.refresh(graph, np.array([7], np.int32), NONE)

    np.testing.assert_allclose(embedder.vectors(np.array([7]))[0], embedder.bare[7].numpy())


def test_a_concept_that_came_after_the_full_inference_counts_as_one(scene, edit):
    graph, model = scene
    set_theta(model, played=1.0, bare=0.0, answers=0.0, level=0.0, mean_weight=0.0)
    embedder = embedded(model, graph)
    edit.concepts(graph, 1, [(8, 40), (8, 41), (8, 42)])
    capacity = graph.ids["concept"].capacity

    embedder.refresh(
        graph, np.array([8], np.int32), np.arange(capacity - 3, capacity, dtype=np.int32)
    )

    want = np.log1p(3.0) * embedder.table.toward
    np.testing.assert_allclose(embedder.vectors(np.array([8]))[0], want, rtol=1e-4)


def test_they_turn_with_the_space(scene):
    graph, model = scene
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]

    before, after = embedded(model, graph), embedded(align(model, turn), graph)

    rows = np.arange(9)
    np.testing.assert_allclose(after.vectors(rows), before.vectors(rows) @ turn, atol=1e-4)


@pytest.mark.parametrize("coplays", [[], COPLAYS[:1]])
def test_few_plays_give_finite_vectors(make_graph, make_model, coplays):
    graph = make_graph(4, coplays, {"genre": [(0, 0), (2, 1)]})
    model = make_model(graph)
    model.unplayed.theta += 1.0

    assert np.isfinite(embedded(model, graph).vectors(np.arange(4))).all()


def test_an_empty_graph_has_nothing_to_read(make_graph, make_model):
    graph = make_graph(0, [], {"genre": []})

    assert not embedded(make_model(graph), graph).vectors(np.arange(3)).any()


@given(seed=st.integers(0, 1000), titles=st.integers(1, 6), concepts=st.integers(1, 4))
def test_a_table_is_what_a_plain_count_gives(seed, titles, concepts):
    rng = np.random.default_rng(seed)
    has = rng.random((titles, concepts)) < 0.5
    strength = np.where(rng.random(titles) < 0.6, rng.random(titles) * 9, 0.0).astype(np.float32)
    bare = rng.standard_normal((titles, 3)).astype(np.float32)
    title, concept = np.nonzero(has)

    table = ConceptTable.of(title, concept, strength, bare, concepts)
    sums = table.sums(title, concept, titles)

    holders = has.sum(0)
    idf = np.where(holders > 0, np.log(titles / np.maximum(holders, 1)), np.log(titles))
    unit = has * idf
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-30)
    weight = np.sqrt(strength.astype(float))[:, None]
    gram = bare.T @ (weight * bare)
    gram += max(RIDGE * np.trace(gram) / 3, 1e-12) * np.eye(3)
    answer = np.linalg.solve(gram, bare.T @ (weight * unit))
    np.testing.assert_allclose(answers(sums), unit @ answer.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        table.toward, np.linalg.solve(gram, bare.T @ weight[:, 0]), rtol=1e-3, atol=1e-4
    )
    for at in range(titles):
        mine = np.flatnonzero(has[at])
        rows = [
            [
                np.log1p(holders[one]),
                *(relative(has[:, one], of) for of in (strength > 0, strength)),
            ]
            for one in mine
        ]
        summed = np.sum(rows, axis=0) if rows else np.zeros(3)
        want = [1.0, np.log1p(len(mine)), *(summed / max(len(mine), 1)), *summed]
        np.testing.assert_allclose(statistics(sums)[at], want, rtol=1e-4, atol=1e-5)


def relative(has, of):
    """log of what a concept's holders have in the mean, over all titles, shrunk."""
    mean = of.astype(float).mean()
    return np.log((of[has].sum() / mean + SHRINK) / (has.sum() + SHRINK)) if mean > 0 else 0.0


def test_the_first_weights_leave_the_bare_vector_alone():
    rng = np.random.default_rng(0)
    bare, sums = rng.standard_normal((3, 4)), np.abs(rng.standard_normal((3, 9)))
    theta = Unplayed().theta.numpy()

    np.testing.assert_array_equal(read(theta, bare, sums, ConceptTable.empty(4)), bare)
