import numpy as np
import pytest
import torch

from model.batch import GraphBatch
from model.explain import explain
from model.inference import Embedder
from partition.hasp import whole_graph

COPLAYS = [(0, 1, 3.0), (0, 2, 1.0), (1, 2, 2.0), (0, 4, 2.0)]
SEMANTIC = {"genre": [(0, 0), (0, 1), (1, 0), (3, 1)], "director": [(0, 0), (1, 0)], "writer": []}


@pytest.fixture
def scene(make_graph, make_model):
    graph = make_graph(6, COPLAYS, SEMANTIC)
    embedder = Embedder(make_model(graph))
    embedder.full(graph)
    return embedder, graph


def test_shares_of_all_neighbours_and_of_all_relations_sum_to_one(scene):
    found = explain(*scene, "m0", k=100)

    assert len(found.neighbours) == 6
    assert sum(one.share for one in found.neighbours) == pytest.approx(1, abs=1e-5)
    assert sum(one.share for one in found.relations) == pytest.approx(1, abs=1e-5)
    assert {one.relation: one.neighbours for one in found.relations} == {
        "coplay": 3,
        "genre": 2,
        "director": 1,
    }
    assert found.strength == 6.0
    for one in found.relations:
        assert one.share == pytest.approx(np.mean(one.by_layer))


def test_the_shares_are_the_attention_of_the_model_itself(scene):
    embedder, graph = scene
    model = embedder.model
    batch = GraphBatch.of(whole_graph(graph, max_coplay=model.config.max_coplay))
    with torch.no_grad():
        x_ND = model.inputs(batch, batch.edges.to_first(len(batch.titles)))
        want = []
        for number in range(model.config.layers):
            layer = model.layer(number)
            message_ND, query_ND = layer.project(x_ND, x_ND)
            relation_RD = layer.relation_message(model.relation_RP)
            weight_HE = layer.attention(query_ND, message_ND, relation_RD, batch.edges)
            want.append(weight_HE.mean(0)[batch.edges.dst == 0])
            x_ND = layer(x_ND, model.relation_RP, batch.edges)

    found = explain(embedder, graph, "m0", k=100)

    shares = sorted(one.share for one in found.neighbours)
    np.testing.assert_allclose(shares, sorted(torch.stack(want).mean(0).tolist()), atol=1e-5)


def test_the_strongest_neighbours_come_first_and_by_name(scene):
    found = explain(*scene, "m0", k=3)

    shares = [one.share for one in found.neighbours]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    for one in explain(*scene, "m0", k=100).neighbours:
        if one.is_title:
            assert one.relation == "coplay"
            assert one.id in {"m1", "m2", "m4"}
        else:
            assert one.id.startswith(f"{one.relation}:")


def test_a_title_that_nobody_has_played_stands_on_its_concepts(scene):
    found = explain(*scene, "m3")

    assert [(one.relation, one.neighbours) for one in found.relations] == [("genre", 1)]
    assert found.relations[0].share == pytest.approx(1)
    assert found.strength == 0


def test_what_is_a_titles_own_is_what_goes_without_its_id_embedding(scene):
    embedder, graph = scene
    whole = embedder.vectors(np.array([0]))[0]
    own = embedder.model.past_layers(embedder.model.title_TD[0]).detach().numpy()

    found = explain(embedder, graph, "m0")

    rest = np.linalg.norm(whole - own)
    assert 0 < found.own < 1
    assert found.own == pytest.approx(np.linalg.norm(own) / (np.linalg.norm(own) + rest), abs=1e-6)
    assert explain(embedder, graph, "m3").own == 0  # nobody has played it
    with torch.no_grad():
        embedder.model.title_TD.zero_()
    assert explain(embedder, graph, "m0").own == 0


def test_a_title_without_any_edge_has_nothing_to_stand_on(scene):
    found = explain(*scene, "m5")

    assert (found.relations, found.neighbours) == ([], [])


def test_a_title_that_is_not_there_is_named(scene):
    with pytest.raises(ValueError, match="'ghost'"):
        explain(*scene, "ghost")
