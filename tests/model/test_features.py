"""Dense features of titles, from the graph to the vectors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.batch import GraphBatch
from model.features import FeatureMap
from model.folder import load_model, save_model
from model.inference import Embedder
from model.micro_trainer import MicroTrainer
from model.pretrain import pretrain
from model.settings import LossConfig, ModelConfig, PretrainConfig
from partition.hasp import whole_graph
from tests.model.conftest import put
from tests.model.cycles import CONFIG as MICRO
from tests.model.cycles import run

SMALL = ModelConfig(dim=8, max_coplay=4)
CONFIG = PretrainConfig(
    transe_steps=5, steps=80, loss=LossConfig(sources=16, targets=4, hide_title=0.5)
)


@pytest.fixture
def featured(two_camps):
    """Two camps of ten, told apart by their features alone, and two newcomers without a play."""
    graph, positives = two_camps
    new = graph.ids["title"].intern(["new left", "new right"])
    side = np.array([0] * 10 + [1] * 10 + [0, 1], np.float32)
    noise = np.random.default_rng(0).normal(size=(22, 3)).astype(np.float32)
    values = np.column_stack([1000.0 * side + 5000.0, 1000.0 * (1 - side), noise])
    graph.set_features("title", np.arange(22), values)
    return graph, positives, new


def vectors_of(model, graph):
    embedder = Embedder(model)
    embedder.full(graph)
    return embedder.published.numpy()


def trained(featured, **changes):
    graph, positives, _ = featured
    return pretrain(graph, positives, model=SMALL, config=replace(CONFIG, **changes)).model


def test_a_title_that_nobody_has_played_is_placed_by_its_features(featured):
    graph, _, new = featured
    model = trained(featured)

    vectors = vectors_of(model, graph)

    assert model.config.features == 5
    score = vectors[new] @ vectors[:20].T
    own = score.reshape(2, 2, 10).mean(2)
    assert own[0, 0] > own[0, 1]
    assert own[1, 1] > own[1, 0]


@pytest.mark.parametrize("parts", [1, 2])
def test_all_ways_to_a_vector_see_the_same_features(featured, parts):
    graph, _, new = featured
    model = trained(featured, parts=parts, steps=20)
    batch = GraphBatch.of(whole_graph(graph, max_coplay=model.config.max_coplay))

    embedder = Embedder(model)
    embedder.full(graph)
    with torch.no_grad():
        want = model(batch).numpy()
    np.testing.assert_allclose(embedder.bare.numpy()[:22], want, atol=1e-4)

    graph.set_features("title", new[:1], graph.get_features("title", new[1:]))
    before = embedder.vectors(new[:1])
    embedder.refresh(graph, new[:1], np.zeros(0, np.int32))
    assert not np.allclose(embedder.vectors(new[:1]), before)
    np.testing.assert_allclose(
        embedder.vectors(new[:1]), vectors_of(model, graph)[new[:1]], atol=1e-4
    )


def test_a_model_keeps_its_map_in_its_folder_and_in_a_cycle(featured, tmp_path):
    graph, positives, _ = featured
    model = trained(featured, steps=20)
    save_model(tmp_path, model, {})

    again, _ = load_model(tmp_path)
    published = vectors_of(again.clone(), graph)
    np.testing.assert_allclose(published, vectors_of(model.clone(), graph))
    report = run(
        MicroTrainer(again.config, MICRO, seed=0), (graph, positives, again, published[:22])
    )

    assert report.verdict == "passed"
    assert not torch.equal(report.model.features.weight, again.features.weight)
    assert torch.equal(report.model.features.mean_F, again.features.mean_F)


def test_several_trainers_learn_the_map_together(featured, tmp_path):
    graph, positives, new = featured

    model = pretrain(
        graph,
        positives,
        model=SMALL,
        config=replace(CONFIG, parts=2, steps=30),
        trainers=2,
        work=tmp_path / "work",
    ).model

    assert model.features.weight.abs().max() > 0
    assert np.isfinite(vectors_of(model, graph)[new]).all()


def test_titles_without_features_add_nothing_and_constant_ones_do_not_blow_up():
    features = FeatureMap(3, 4)
    torch.nn.init.ones_(features.weight)
    features.fit(torch.tensor([[1.0, 5.0, 2.0], [3.0, 5.0, 2.0], [0.0, 0.0, 0.0]]))

    out = features(torch.tensor([[0.0, 0.0, 0.0], [2.0, 5.0, 2.0], [2.0, 6.0, 2.0]]))

    assert not out[:2].any()  # none, and just the mean
    assert 0 < out[2, 0] < 1


def test_features_that_come_after_pretraining_wait_for_the_next(two_camps):
    graph, positives = two_camps
    model = pretrain(graph, positives, model=SMALL, config=replace(CONFIG, steps=5)).model
    before = vectors_of(model.clone(), graph)

    graph.set_features("title", np.arange(20), np.ones((20, 2), np.float32))

    assert model.config.features == 0
    np.testing.assert_allclose(vectors_of(model, graph), before)


def test_features_of_another_width_are_named(featured, make_graph):
    model = trained(featured, steps=2)
    other = make_graph(20, [], {"genre": []})
    put(other, 0, [(0, 1, 1.0)])
    other.set_features("title", np.arange(20), np.ones((20, 2), np.float32))
    model.bind(other)

    with pytest.raises(ValueError, match="titles have 2 features, the model was trained with 5"):
        vectors_of(model, other)
