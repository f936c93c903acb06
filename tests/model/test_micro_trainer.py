import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.folder import ModelFolderError
from model.inference import Embedder
from model.micro_trainer import MicroTrainer
from model.positives import Positives
from model.settings import LossConfig, MicroConfig
from model.trainer_state import FILES

CONFIG = MicroConfig(  # its gate lets all finite models pass: they start untrained here
    steps=4,
    parts=1,
    reservoir=500,
    lr=5e-3,
    id_lr=1.0,
    min_cosine=-1.0,
    max_norm_ratio=1e6,
    max_loss_of_recall=1.0,
    loss=LossConfig(sources=16, targets=4, hide_title=0.15, drop_edges=0.1),
)


def published_in(two_camps, make_model):
    """Graph, pairs, model, and the vectors that it published."""
    graph, positives = two_camps
    model = make_model(graph)
    embedder = Embedder(model.clone())
    embedder.full(graph)
    return graph, positives, model, embedder.vectors(np.arange(20))


@pytest.fixture
def scene(two_camps, make_model):
    return published_in(two_camps, make_model)


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


def cycles(trainer, scene, model, count):
    graph, positives, _, published = scene
    reports = []
    for number in range(count):
        fresh = positives[np.arange(number * 100, (number + 1) * 100)]
        reports.append(trainer.cycle(model, graph, threading.Lock(), fresh, published))
        model = reports[-1].model or model
    return reports


def test_a_trainer_that_was_loaded_goes_on_as_the_one_that_was_saved(scene, tmp_path, monkeypatch):
    monkeypatch.setattr("model.gate.MIN_SHAPE", -1.0)
    config = replace(CONFIG, reservoir=150, parts=2)
    trainer = MicroTrainer(scene[2].config, config, seed=3)
    model = cycles(trainer, scene, scene[2], 2)[-1].model

    trainer.save(tmp_path)
    again = MicroTrainer.load(tmp_path, scene[2].config, config, seed=99)

    for one, other in zip(
        cycles(trainer, scene, model, 3), cycles(again, scene, model, 3), strict=True
    ):
        assert (one.verdict, one.loss, one.titles) == (other.verdict, other.loss, other.titles)
        for name, parameter in one.model.named_parameters():
            assert torch.equal(parameter, other.model.get_parameter(name)), name


def test_moments_follow_their_titles_when_the_loaded_graph_numbers_them_anew(
    scene, make_graph, make_model, tmp_path
):
    graph, _, model, _ = scene
    trainer = MicroTrainer(model.config, CONFIG, seed=0)
    run(trainer, scene)
    trainer.save(tmp_path)

    again = MicroTrainer.load(tmp_path, model.config, CONFIG, seed=0)
    other = make_model(graph)
    other.title_names.reverse()

    straight = again.moments.for_model(model)["title_TD"]["exp_avg"]
    assert straight.any()
    assert torch.equal(again.moments.for_model(other)["title_TD"]["exp_avg"], straight.flip(0))


def test_parts_follow_their_titles_when_the_loaded_graph_numbers_them_anew(
    scene, make_graph, make_model, edit, tmp_path
):
    _, positives, model, _ = scene
    config = replace(CONFIG, parts=2, even=0)
    trainer = MicroTrainer(model.config, config, seed=0)
    run(trainer, scene)
    trainer.save(tmp_path)
    # The same titles, every second one first: ids of both parts are mixed.
    order = np.argsort(np.arange(20) % 2, kind="stable")
    place = np.argsort(order)
    other = make_graph(0, [], {"genre": []})
    other.ids["title"].intern([f"m{title}" for title in order])
    edit.put(
        other,
        0,
        [
            (int(place[a]), int(place[b]), 1.0)
            for a, b in zip(positives.a, positives.b, strict=True)
        ],
    )
    edit.concepts(other, 1, [(int(place[title]), title // 10) for title in range(20)])

    again = MicroTrainer.load(tmp_path, model.config, config, seed=0)
    first = trainer.keeper.parts.partition.part
    moved = again.keeper.prepare(other, threading.Lock(), np.zeros(0, np.int32), seed=0).part

    np.testing.assert_array_equal(moved, first[order])
    assert again.keeper.cuts == 0


def test_a_cut_that_was_saved_without_names_is_made_anew(scene, tmp_path):
    config = replace(CONFIG, parts=2)
    trainer = MicroTrainer(scene[2].config, config, seed=0)
    run(trainer, scene)
    trainer.save(tmp_path)
    card = json.loads((tmp_path / FILES.card).read_text())
    del card["titles"]
    (tmp_path / FILES.card).write_text(json.dumps(card))

    again = MicroTrainer.load(tmp_path, scene[2].config, config, seed=0)

    assert again.keeper.parts is None
    assert run(again, scene).verdict == "passed"


def test_moments_of_a_model_of_another_shape_are_left_out(scene, make_model):
    trainer = MicroTrainer(scene[2].config, CONFIG, seed=0)
    run(trainer, scene)

    wider = make_model(scene[0], dim=16)

    assert "title_TD" not in trainer.moments.for_model(wider)


def test_what_is_saved_while_a_cycle_runs_is_what_the_cycle_began_with(scene, tmp_path):
    trainer = MicroTrainer(scene[2].config, CONFIG, seed=0)
    run(trainer, scene)
    before = trainer.state()

    def save_and_go_on():
        trainer.save(tmp_path)
        return False

    graph, positives, model, published = scene
    trainer.cycle(model, graph, threading.Lock(), positives, published, stop=save_and_go_on)

    saved = MicroTrainer.load(tmp_path, model.config, CONFIG, seed=0).state()
    assert saved.cycles == before.cycles == 1
    assert (saved.seen, saved.rng, saved.reservoir_rng) == (
        before.seen,
        before.rng,
        before.reservoir_rng,
    )
    assert (saved.pairs.a == before.pairs.a).all()
    assert torch.equal(saved.generator, before.generator)
    assert trainer.cycles == 2


def test_titles_that_were_retired_meanwhile_are_not_saved(scene, tmp_path):
    trainer = MicroTrainer(scene[2].config, CONFIG, seed=0)
    trainer.remember(scene[1])

    trainer.save(tmp_path, gone=np.array([3, 4], np.int32))

    saved = MicroTrainer.load(tmp_path, scene[2].config, CONFIG, seed=0).reservoir.pairs
    assert len(saved)
    assert not np.isin([saved.a, saved.b], [3, 4]).any()
    assert np.isin([trainer.reservoir.pairs.a], [3, 4]).any()


def test_what_is_of_late_is_saved_too_without_titles_that_were_retired(scene, tmp_path):
    config = replace(CONFIG, reservoir=10_000)
    trainer = MicroTrainer(scene[2].config, config, seed=0)
    run(trainer, scene)
    run(trainer, scene)

    trainer.save(tmp_path, gone=np.array([3, 4], np.int32))

    saved = MicroTrainer.load(tmp_path, scene[2].config, config, seed=0).recent.cycles
    kept = scene[1].without(np.array([3, 4]))
    assert [one.a.tolist() for one in saved] == [kept.a.tolist()] * 2
    assert [one.weight.tolist() for one in saved] == [kept.weight.tolist()] * 2


def test_an_older_trainer_remembers_nothing_of_late(scene, tmp_path):
    trainer = MicroTrainer(scene[2].config, CONFIG, seed=0)
    run(trainer, scene)
    trainer.save(tmp_path)
    card = json.loads((tmp_path / FILES.card).read_text())
    del card["recent"]
    (tmp_path / FILES.card).write_text(json.dumps(card))

    assert MicroTrainer.load(tmp_path, scene[2].config, CONFIG, seed=0).recent.cycles == ()


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


def test_a_smaller_reservoir_keeps_a_sample_of_the_saved_one(scene, tmp_path):
    trainer = MicroTrainer(scene[2].config, CONFIG, seed=0)
    trainer.remember(scene[1])
    trainer.save(tmp_path)

    small = MicroTrainer.load(tmp_path, scene[2].config, replace(CONFIG, reservoir=10), seed=0)

    assert len(small.reservoir.pairs) == 10
    assert small.reservoir.seen == trainer.reservoir.seen


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / FILES.tensors).unlink(), "holds no micro-trainer"),
        (lambda folder: (folder / FILES.tensors).write_bytes(b"x"), "torn: its checksum"),
        (lambda folder: change(folder, format=99), "newer than"),
        (lambda folder: change(folder, names={}), "disagree"),
    ],
)
def test_a_trainer_that_cannot_be_used_is_refused_by_name(scene, tmp_path, harm, message):
    MicroTrainer(scene[2].config, CONFIG, seed=0).save(tmp_path)
    harm(tmp_path)

    with pytest.raises(ModelFolderError, match=message):
        MicroTrainer.load(tmp_path, scene[2].config, CONFIG, seed=0)


def change(folder, **values):
    card = json.loads((folder / FILES.card).read_text())
    (folder / FILES.card).write_text(json.dumps({**card, **values}))
