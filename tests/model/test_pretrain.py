from dataclasses import replace

import numpy as np
import pytest
import torch

from model.align import drift
from model.inference import Embedder
from model.positives import Positives
from model.pretrain import pretrain
from model.settings import LossConfig, ModelConfig, PretrainConfig
from model.transe import train_transe, triples
from model.unplayed import Unplayed

SMALL = ModelConfig(dim=8, max_coplay=4)
CONFIG = PretrainConfig(
    transe_steps=30, steps=60, validation=0.2, loss=LossConfig(sources=16, targets=4)
)


def test_pretraining_learns_who_is_played_with_whom(two_camps):
    graph, positives = two_camps
    told = []

    result = pretrain(
        graph, positives, model=SMALL, config=CONFIG, progress=lambda *one: told.append(one)
    )

    assert {stage for stage, *_ in told} == {"transe", "gnn"}
    assert result.metrics["mrr"] > 0.2  # among 19: chance within the camp is 0.31, without it 0.19
    embedder = Embedder(result.model)
    embedder.full(graph)
    vectors = embedder.vectors(np.arange(20))
    score = vectors @ vectors.T
    np.fill_diagonal(score, -np.inf)
    assert (score.argmax(1) // 10 == np.arange(20) // 10).all()


@pytest.mark.parametrize("way", ["whole", "parts", "trainers"])
def test_a_model_trained_anew_stays_near_the_vectors_that_are_published(two_camps, tmp_path, way):
    graph, positives = two_camps
    parts = 1 if way == "whole" else 2
    config = replace(CONFIG, parts=parts, anchor=3.0)

    def trained(seed: int, config=config, **more):
        if way == "trainers" and more:
            more |= {"trainers": 2, "work": tmp_path / "work"}
        made = pretrain(graph, positives, model=SMALL, config=config, seed=seed, **more)
        embedder = Embedder(made.model)
        embedder.full(graph)
        return made, embedder.published.numpy()

    _, published = trained(0)
    published[:3] = 0.0  # these were never published
    apart, _ = trained(1, replace(config, anchor=0.0), published=published)
    near, vectors = trained(1, published=published)

    assert near.metrics["drift_cosine"] > max(0.95, apart.metrics["drift_cosine"])
    assert near.metrics["drift_p1"] <= near.metrics["drift_cosine"]
    if way == "whole":
        moved = drift(vectors, published)
        assert moved.titles == 17
        assert moved.mean_cosine == pytest.approx(near.metrics["drift_cosine"], abs=1e-5)


def test_a_model_trained_anew_keeps_what_the_one_in_use_learnt_from_first_plays(two_camps):
    graph, positives = two_camps
    known = Unplayed()
    known.theta += 0.25
    known.precision *= 3.0

    made = pretrain(graph, positives, model=SMALL, config=CONFIG, unplayed=known)

    assert torch.equal(made.model.unplayed.theta, known.theta)
    assert torch.equal(made.model.unplayed.precision, known.precision)
    assert made.metrics["first_plays"] == 0


def test_pretraining_with_nothing_published_yet_is_free(two_camps):
    graph, positives = two_camps

    nothing = np.zeros((5, 8), np.float32)  # shorter than the catalogue, too
    result = pretrain(graph, positives, model=SMALL, config=CONFIG, published=nothing)
    alone = pretrain(graph, positives, model=SMALL, config=CONFIG)

    assert np.isnan(result.metrics["drift_cosine"])
    assert result.metrics["loss"] == pytest.approx(alone.metrics["loss"], rel=1e-3)


def test_pretraining_on_parts_goes_through_all_of_them(two_camps):
    graph, positives = two_camps
    config = PretrainConfig(transe_steps=2, steps=6, parts=2, loss=LossConfig(sources=8, targets=2))

    result = pretrain(graph, positives, model=SMALL, config=config)

    assert result.metrics["kept_weight"] == pytest.approx(1.0)  # the camps are the parts
    assert np.isfinite(result.metrics["loss"])


@pytest.mark.parametrize("steps", range(1, 11))
def test_pretraining_takes_as_few_steps_as_it_is_told(two_camps, steps):
    graph, positives = two_camps
    config = PretrainConfig(transe_steps=1, steps=steps, loss=LossConfig(sources=8, targets=2))

    result = pretrain(graph, positives, model=SMALL, config=config)

    assert np.isfinite(result.metrics["loss"])


@pytest.mark.parametrize("titles", [0, 3])
def test_nothing_to_learn_from_gives_a_model_all_the_same(make_graph, titles):
    graph = make_graph(titles, [], {"genre": []})

    result = pretrain(graph, Positives.empty(), model=SMALL, config=CONFIG)

    assert np.isnan(result.metrics["loss"])
    embedder = Embedder(result.model)
    embedder.full(graph)
    assert np.isfinite(embedder.vectors(np.arange(titles))).all()


def test_a_pair_of_an_unknown_title_is_refused(two_camps):
    graph, _ = two_camps
    bad = Positives(
        np.array([0, 20], np.int32),
        np.array([1, 1], np.int32),
        np.ones(2, np.float32),
        np.zeros(2, np.int64),
    )

    with pytest.raises(ValueError, match=r"positives.a\[1\] is 20, but the graph has 20 titles"):
        pretrain(graph, bad, model=SMALL, config=CONFIG)


def test_transe_brings_concepts_of_the_same_titles_together(make_graph):
    # Writer k and director k made the same titles.
    pairs = [(title, title // 4) for title in range(24)]
    graph = make_graph(24, [], {"director": pairs, "writer": pairs})

    learned = train_transe(
        triples(graph), dim=16, steps=200, batch=256, lr=0.02, margin=1.0, seed=0
    )

    place = learned.concept_CD[:6] - learned.relation_RD[1]  # the titles of director k
    other = learned.concept_CD[6:] - learned.relation_RD[2]
    nearest = (place[:, None] - other[None]).norm(dim=2).argmin(1)
    assert nearest.tolist() == list(range(6))
    np.testing.assert_allclose(learned.concept_CD.norm(dim=1), 1.0, rtol=1e-5)


def test_transe_without_triples_is_defined(make_graph):
    graph = make_graph(3, [], {"genre": []})

    learned = train_transe(triples(graph), dim=4, steps=3, batch=8, lr=0.1, margin=1.0, seed=0)

    assert learned.concept_CD.shape == (0, 4)
    assert np.isnan(learned.loss)
