import numpy as np
import torch

from model.batch import GraphBatch
from model.inference import Embedder
from partition.hasp import whole_graph
from store.graph import Relation

COPLAYS = [(0, 1, 1.0), (1, 2, 1.0)]
GENRES = {"genre": [(0, 0), (1, 1), (2, 1)]}


def test_binding_to_the_graph_it_was_made_for_moves_nothing(make_graph, make_model):
    graph = make_graph(3, COPLAYS, GENRES)

    assert make_model(graph).bind(graph) is None


def test_titles_concepts_and_relations_may_be_added(make_graph, make_model, edit):
    graph = make_graph(3, COPLAYS, GENRES)
    model = make_model(graph)
    old_titles, old_concepts = model.title_TD.clone(), model.concept_CD.clone()

    new = graph.ids["title"].intern(["late"])
    graph.add_relation(Relation("theme", "title", "concept"))
    edit.concepts(graph, 1, [(int(new[0]), 5)])
    edit.concepts(graph, 2, [(int(new[0]), 1)])
    moved = model.bind(graph)

    assert moved.rows["title"].tolist() == [0, 1, 2, -1]
    assert moved.rows["message_relation"].tolist() == [0, 1, 2, 3, -1, -1]
    torch.testing.assert_close(model.title_TD[:3], old_titles)
    assert not model.title_TD[3].any()
    torch.testing.assert_close(model.concept_CD[2], old_concepts.mean(0))  # of its relation
    assert not model.concept_CD[3].any()  # the first of its relation
    embedder = Embedder(model)
    embedder.full(graph)
    assert np.isfinite(embedder.vectors(np.arange(4))).all()


def test_rows_follow_names_to_another_graph(make_graph, make_model):
    graph, other = make_graph(3, COPLAYS, GENRES), make_graph(0, [], {"genre": []})
    model = make_model(graph)
    before = model.title_TD.clone()

    other.ids["title"].intern(["m2", "new", "m0"])
    model.bind(other)

    torch.testing.assert_close(model.title_TD[[0, 2]], before[[2, 0]])
    assert not model.title_TD[1].any()
    assert len(model.concept_CD) == 0


def test_what_a_title_alone_is_reaches_its_vector_past_the_layers(make_graph, make_model):
    graph = make_graph(4, COPLAYS, GENRES)
    model = make_model(graph).eval()
    with torch.no_grad():
        model.output.weight.zero_()  # nothing comes through the layers
    batch = GraphBatch.of(whole_graph(graph, max_coplay=16))

    with torch.no_grad():
        before = model(batch)
        model.title_TD += torch.randn_like(model.title_TD)
        after = model(batch)

    assert (after[:3] != before[:3]).any(1).all()
    torch.testing.assert_close(after[3], before[3])  # nobody has played it: its row does not count
