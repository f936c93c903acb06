import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.batch import GraphBatch
from model.inference import Embedder
from partition.hasp import whole_graph

NONE = np.zeros(0, np.int32)
COPLAYS = [(0, 1, 3.0), (0, 2, 1.0), (1, 2, 2.0), (3, 4, 1.0), (0, 4, 2.0), (2, 5, 1.0)]
SEMANTIC = {
    "genre": [(title, title % 3) for title in range(7)],
    "director": [(0, 0), (1, 0), (7, 1)],
    "writer": [],
}


def everything(graph):
    return np.arange(graph.num_nodes("title"), dtype=np.int32)


def test_full_inference_is_the_model_on_the_whole_graph(make_graph, make_model):
    graph = make_graph(10, COPLAYS, SEMANTIC)
    model = make_model(graph)
    embedder = Embedder(model)

    embedder.full(graph)

    subgraph = whole_graph(graph, max_coplay=model.config.max_coplay)
    with torch.no_grad():
        want = model(GraphBatch.of(subgraph)).numpy()
    np.testing.assert_allclose(embedder.vectors(subgraph.titles), want, atol=1e-5)
    assert np.isfinite(want).all()


@given(titles=st.sets(st.integers(0, 9), min_size=1), concepts=st.sets(st.integers(0, 4)))
def test_refreshing_what_did_not_change_changes_nothing(make_graph, make_model, titles, concepts):
    graph = make_graph(10, COPLAYS, SEMANTIC)
    embedder = Embedder(make_model(graph))
    embedder.full(graph)
    before = embedder.vectors(everything(graph))

    embedder.refresh(
        graph, np.array(sorted(titles), np.int32), np.array(sorted(concepts), np.int32)
    )

    np.testing.assert_allclose(embedder.vectors(everything(graph)), before, atol=1e-5)


def test_a_refresh_of_all_that_a_change_reaches_equals_full_inference(make_graph, make_model, edit):
    graph = make_graph(10, COPLAYS, SEMANTIC)
    embedder, anew = Embedder(make_model(graph)), Embedder(make_model(graph))
    embedder.full(graph)
    edit.put(graph, 0, [(5, 6, 4.0), (8, 9, 1.0)])
    edit.concepts(graph, 1, [(9, 2)])

    concepts = graph.ids["concept"].live_ids()
    embedder.refresh(graph, everything(graph), concepts)
    embedder.refresh(graph, everything(graph), concepts)  # layer 2 reads neighbours' layer 1
    anew.full(graph)

    np.testing.assert_allclose(
        embedder.vectors(everything(graph)), anew.vectors(everything(graph)), atol=1e-5
    )


def test_a_new_title_with_a_new_concept_gets_a_vector_of_its_concepts(make_graph, make_model, edit):
    graph = make_graph(10, COPLAYS, SEMANTIC)
    embedder = Embedder(make_model(graph))
    embedder.full(graph)
    new = graph.ids["title"].intern(["late", "empty"])

    edit.concepts(graph, 1, [(int(new[0]), 0), (int(new[0]), 77)])
    embedder.refresh(graph, new, np.array([0], np.int32))

    late, empty = embedder.vectors(new)
    assert np.isfinite([late, empty]).all()
    assert np.abs(late - empty).max() > 1e-3


@pytest.mark.parametrize("titles", [0, 1])
def test_an_empty_graph_is_no_special_case(make_graph, make_model, titles):
    graph = make_graph(titles, [], {"genre": []})
    embedder = Embedder(make_model(graph))

    embedder.full(graph)
    embedder.refresh(graph, everything(graph), NONE)

    assert np.isfinite(embedder.vectors(everything(graph))).all()


def test_a_title_that_nobody_played_has_no_use_for_its_id(make_graph, make_model):
    graph = make_graph(10, COPLAYS, SEMANTIC)
    model = make_model(graph)
    before, after = Embedder(model), Embedder(model.clone())
    before.full(graph)

    after.model.title_TD.data += 1.0
    after.full(graph)

    moved = np.abs(before.vectors(everything(graph)) - after.vectors(everything(graph))).max(1)
    assert moved[9] == 0.0  # without concepts either, so no neighbour brings it anything
    assert (moved[:5] > 0).all()


def test_a_forgotten_title_leaves_nothing_to_the_next_in_its_slot(make_graph, make_model):
    graph = make_graph(10, COPLAYS, SEMANTIC)
    embedder = Embedder(make_model(graph))
    embedder.full(graph)

    embedder.forget(np.array([0]))

    assert not embedder.model.title_TD[0].any()
    assert not embedder.vectors(np.array([0])).any()


def test_a_graph_with_more_relations_than_the_model_is_refused(make_graph, make_model):
    small, large = make_graph(2, [], {}), make_graph(2, [], {"genre": []})

    with pytest.raises(ValueError, match="bind the model"):
        Embedder(make_model(small)).full(large)
