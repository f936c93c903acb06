import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.inference import Embedder
from model.micro_trainer import MicroTrainer
from model.positives import Positives
from model.settings import LossConfig, MicroConfig

CONFIG = MicroConfig(  # its gate lets all finite models pass: they start untrained here
    steps=4,
    parts=1,
    reservoir=500,
    lr=1e-2,
    min_cosine=-1.0,
    max_norm_ratio=1e6,
    max_loss_of_recall=1.0,
    loss=LossConfig(sources=16, targets=4),
)


@pytest.fixture
def scene(two_camps, make_model):
    """Graph, pairs, model, and the vectors that it published."""
    graph, positives = two_camps
    model = make_model(graph)
    embedder = Embedder(model.clone())
    embedder.full(graph)
    return graph, positives, model, embedder.vectors(np.arange(20))


def run(trainer, scene, **changes):
    graph, positives, model, published = scene
    given = {"fresh": positives, "published": published, "model": model, "graph": graph, **changes}
    return trainer.cycle(
        given["model"], given["graph"], threading.Lock(), given["fresh"], given["published"]
    )


def test_a_cycle_makes_its_steps_and_leaves_the_old_weights_alone(scene):
    model = scene[2]
    before = {name: one.clone() for name, one in model.named_parameters()}
    trainer = MicroTrainer(model.config, CONFIG, seed=0)

    report = run(trainer, scene)

    assert (report.verdict, report.reason, report.steps) == ("passed", "", 4)
    assert np.isfinite([report.loss, report.drift_cosine, report.recall_after]).all()
    assert all(torch.equal(one, before[name]) for name, one in model.named_parameters())
    assert not torch.equal(report.model.title_TD, model.title_TD)
    assert set(report.seconds) == {"cut", "sample", "train", "embed", "gate"}
    assert np.abs(report.embedder.vectors(np.arange(20))).sum() > 0


def test_the_same_seed_trains_the_same_weights(scene):
    reports = [run(MicroTrainer(scene[2].config, CONFIG, seed=5), scene) for _ in range(2)]

    torch.testing.assert_close(reports[0].model.title_TD, reports[1].model.title_TD)


def test_distillation_holds_the_vectors_near_the_published_ones(scene):
    free, held = (
        run(
            MicroTrainer(scene[2].config, replace(CONFIG, distillation=weight), seed=0),
            scene,
        )
        for weight in (0.0, 50.0)
    )

    assert held.drift_cosine > free.drift_cosine


def test_a_model_that_drifted_is_refused_and_its_moments_with_it(scene):
    trainer = MicroTrainer(scene[2].config, replace(CONFIG, min_cosine=1.01), seed=0)

    report = run(trainer, scene)

    assert report.verdict == "refused"
    assert "mean cosine" in report.reason
    assert report.model is None
    assert trainer.moments == {}


def test_a_model_that_is_not_finite_is_refused(scene):
    trainer = MicroTrainer(scene[2].config, replace(CONFIG, lr=float("inf")), seed=0)

    report = run(trainer, scene)

    assert (report.verdict, report.reason) == ("refused", "the vectors are not finite")


def test_without_pairs_a_cycle_is_skipped(scene):
    report = run(MicroTrainer(scene[2].config, CONFIG, seed=0), scene, fresh=Positives.empty())

    assert report.verdict == "skipped"
    assert report.model is None


def test_without_fresh_pairs_the_past_is_trained_on(scene):
    trainer = MicroTrainer(scene[2].config, replace(CONFIG, fanout=(20,)), seed=0)
    trainer.remember(scene[1])

    report = run(trainer, scene, fresh=scene[1][:1])

    assert report.verdict == "passed"


def test_with_two_parts_titles_of_the_other_stand_against_it(scene):
    config = replace(CONFIG, parts=2)
    trainer = MicroTrainer(scene[2].config, config, seed=0)

    report = run(trainer, scene)

    assert report.verdict == "passed"
    assert report.titles == 10


def test_titles_may_come_and_go_between_cycles(scene, edit):
    graph, positives, model, _ = scene
    trainer = MicroTrainer(model.config, CONFIG, seed=0)
    first = run(trainer, scene)

    gone = np.array([3], np.int32)
    trainer.forget(gone)
    first.embedder.forget(gone)
    graph.retire("title", gone)
    new = graph.ids["title"].intern(["late", "later"])
    edit.concepts(graph, 1, [(int(title), 0) for title in new])
    edit.put(graph, 0, [(0, int(new[0]), 1.0)])
    keep = np.flatnonzero((positives.a != 3) & (positives.b != 3))
    titles = np.arange(graph.num_nodes("title"))
    second = run(
        trainer,
        scene,
        model=first.model,
        fresh=positives[keep],
        published=first.embedder.vectors(titles),
    )

    assert second.verdict == "passed"
    assert np.isfinite(second.embedder.vectors(new)).all()
    assert np.abs(second.embedder.vectors(new)).sum(1).all()


def test_cycles_learn_what_is_played_together(scene):
    config = replace(CONFIG, steps=60, distillation=0.0)

    report = run(MicroTrainer(scene[2].config, config, seed=0), scene)

    vectors = report.embedder.vectors(np.arange(20))
    score = vectors @ vectors.T
    np.fill_diagonal(score, -np.inf)
    nearest = score.argmax(1)
    assert (nearest // 10 == np.arange(20) // 10).all()
