from dataclasses import replace

import numpy as np
import pytest
import torch

from model.inference import Embedder
from model.micro_trainer import MicroTrainer
from model.positives import Positives
from model.settings import MicroConfig
from tests.model.cycles import CONFIG, run


def test_a_cycle_makes_its_steps_and_leaves_the_old_weights_alone(scene):
    model = scene[2]
    before = {name: one.clone() for name, one in model.named_parameters()}
    trainer = MicroTrainer(model.config, CONFIG, seed=0)

    report = run(trainer, scene)

    assert (report.verdict, report.reason, report.steps) == ("passed", "", 4)
    assert np.isfinite([report.loss, report.drift_cosine, report.recall_after]).all()
    assert all(torch.equal(one, before[name]) for name, one in model.named_parameters())
    assert not torch.equal(report.model.title_TD, model.title_TD)
    assert set(report.seconds) == {"cut", "sample", "first plays", "train", "embed", "gate"}
    assert np.abs(report.embedder.vectors(np.arange(20))).sum() > 0


def test_a_cycle_learns_from_first_plays_how_the_rest_is_read(scene, edit):
    graph, positives, model, published = scene
    new = graph.ids["title"].intern(["played now", "not yet"])
    edit.concepts(graph, 1, [(int(title), 0) for title in new])
    edit.put(graph, 0, [(int(new[0]), 0, 1.0)])
    first = Positives(new[:1], np.zeros(1, np.int32), np.ones(1, np.float32), np.array([10**12]))
    fresh = Positives.join([positives[200:], first])  # what came before is history

    report = run(
        MicroTrainer(model.config, replace(CONFIG, unplayed_cosine=-1.0), seed=0),
        (graph, fresh, model, np.pad(published, ((0, 2), (0, 0)))),
    )

    assert not torch.equal(report.model.unplayed.theta, model.unplayed.theta)
    assert torch.equal(report.model.unplayed.theta, report.embedder.model.unplayed.theta)


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


def test_titles_that_nobody_plays_are_held_to_their_published_vectors_too(scene, edit, monkeypatch):
    monkeypatch.setattr("model.gate.MIN_SHAPE", -1.0)
    graph, _, model, _ = scene
    quiet = graph.ids["title"].intern([f"quiet{number}" for number in range(10)])
    edit.concepts(graph, 1, [(int(title), 0) for title in quiet])
    before = Embedder(model.clone())
    before.full(graph)
    published = before.vectors(np.arange(graph.num_nodes("title")))
    config = replace(CONFIG, steps=20, distillation=50.0)

    drifted, held = (
        run(
            MicroTrainer(model.config, replace(config, even=even), seed=0),
            scene,
            published=published,
        ).embedder.vectors(quiet)
        for even in (0, 100)
    )

    assert cosine(held, published[quiet]) > cosine(drifted, published[quiet])


def cosine(ours, theirs):
    """Mean over the rows."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(1) / lengths).mean())


def test_a_model_that_drifted_is_refused_and_its_moments_with_it(scene):
    trainer = MicroTrainer(scene[2].config, replace(CONFIG, min_cosine=1.01), seed=0)

    report = run(trainer, scene)

    assert report.verdict == "refused"
    assert "mean cosine" in report.reason
    assert report.model is None
    assert trainer.moments.of == {}


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
    assert report.titles == 20
    part = trainer.keeper.parts.partition.part[:20]
    moved = (report.model.title_TD != scene[2].title_TD).any(1).numpy()
    np.testing.assert_array_equal(moved, part == 1)  # rows are trained at home


def test_with_two_parts_nothing_is_held_against_vectors_that_are_published(scene):
    config = replace(CONFIG, parts=2, distillation=0.0)
    losses = []
    for times in (1.0, 5.0):
        trainer = MicroTrainer(scene[2].config, config, seed=0)
        losses.append(run(trainer, scene, published=scene[3] * times).loss)

    assert losses[0] == losses[1]


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


def test_cycles_learn_what_is_played_together(scene, monkeypatch):
    monkeypatch.setattr("model.gate.MIN_SHAPE", -1.0)  # an untrained model's titles change places
    config = replace(CONFIG, steps=60, distillation=0.0)

    report = run(MicroTrainer(scene[2].config, config, seed=0), scene)

    vectors = report.embedder.vectors(np.arange(20))
    score = vectors @ vectors.T
    np.fill_diagonal(score, -np.inf)
    nearest = score.argmax(1)
    assert (nearest // 10 == np.arange(20) // 10).all()


def test_moments_of_a_model_of_another_shape_are_left_out(scene, make_model):
    trainer = MicroTrainer(scene[2].config, CONFIG, seed=0)
    run(trainer, scene)

    wider = make_model(scene[0], dim=16)

    assert "title_TD" not in trainer.moments.for_model(wider)


def test_a_cycle_learns_from_what_was_fresh_in_the_one_before(scene):
    _, positives, model, _ = scene
    early, late = positives[: len(positives) // 2], positives[len(positives) // 2 :]
    seen = {}
    for fade in (0.0, 0.6):
        trainer = MicroTrainer(model.config, replace(CONFIG, fade=fade), seed=0)
        run(trainer, scene, fresh=early)
        lesson = trainer._lesson

        def told(*args, lesson=lesson, fade=fade):
            seen[fade] = args[3]  # what it trains on as fresh
            return lesson(*args)

        trainer._lesson = told
        run(trainer, scene, fresh=late)

    assert len(seen[0.6]) == len(seen[0.0]) + len(early)
    assert seen[0.6].a[: len(early)].tolist() == early.a.tolist()
    assert seen[0.6].weight[0] == pytest.approx(0.6 * early.weight[0])


@pytest.mark.parametrize("fade", [-0.1, 1.0])
def test_pairs_that_would_never_fade_are_refused(fade):
    with pytest.raises(ValueError, match=f"fade={fade}"):
        MicroConfig(fade=fade)
