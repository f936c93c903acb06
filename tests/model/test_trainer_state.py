import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.folder import ModelFolderError
from model.micro_trainer import MicroTrainer
from model.trainer_state import FILES
from tests.model.cycles import CONFIG, run


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
    drop(tmp_path, "titles")

    again = MicroTrainer.load(tmp_path, scene[2].config, config, seed=0)

    assert again.keeper.parts is None
    assert run(again, scene).verdict == "passed"


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
    drop(tmp_path, "recent")

    assert MicroTrainer.load(tmp_path, scene[2].config, CONFIG, seed=0).recent.cycles == ()


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


def drop(folder, name):
    card = json.loads((folder / FILES.card).read_text())
    del card[name]
    (folder / FILES.card).write_text(json.dumps(card))
