"""A cycle by several processes; a lesson that goes over the disk."""

import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.crew import Crew
from model.folder import ModelFolderError
from model.lesson import LESSON, Lesson, learn, learn_from, take_learnt, write_lesson
from model.micro_trainer import MicroTrainer
from model.pairs import Anchor, Outside, Pairs
from model.settings import LossConfig, MicroConfig
from partition.external import Even
from partition.hasp import hasp_subgraph
from partition.mincut import cut
from tests.model.cycles import published_in

CONFIG = MicroConfig(  # its gate lets all finite models pass: they start untrained here
    steps=3,
    parts=2,
    trainers=2,
    lr=1e-2,
    min_cosine=-1.0,
    max_norm_ratio=1e6,
    max_loss_of_recall=1.0,
    loss=LossConfig(sources=16, targets=4, hide_title=0.0),
)


@pytest.fixture
def scene(two_camps, make_model, monkeypatch):
    monkeypatch.setattr("model.gate.MIN_SHAPE", -1.0)
    return published_in(two_camps, make_model)


@pytest.fixture
def trainer(scene):
    made = MicroTrainer(scene[2].config, CONFIG, seed=0)
    yield made
    made.close()


def run(trainer, scene, model=None, **changes):
    graph, positives, first, published = scene
    return trainer.cycle(model or first, graph, threading.Lock(), positives, published, **changes)


@pytest.mark.timeout(900)  # four processes load torch
def test_two_trainers_learn_together_and_outlive_neither_a_kill_nor_the_micro_trainer(
    scene, trainer
):
    model = scene[2]

    first = run(trainer, scene)

    assert (first.verdict, first.reason) == ("passed", "")
    assert first.steps == 3  # both make each
    assert first.titles == 40  # each has ten of its own, and the others beside them
    moved = (first.model.title_TD != model.title_TD).any(1)
    assert moved.all()  # each row where it is at home
    assert not torch.equal(first.model.concept_CD, model.concept_CD)
    moments = trainer.moments
    assert moments.of["title_TD"]["exp_avg"].any(1).all()
    processes = list(trainer._crew.processes)

    second = run(trainer, scene, first.model)

    assert second.verdict == "passed"
    assert trainer._crew.processes == processes  # they stay

    moments = trainer.moments
    os.kill(processes[1].pid, signal.SIGKILL)
    killed = run(trainer, scene, second.model)

    assert (killed.verdict, killed.model) == ("skipped", None)
    assert "trainer 1 of 2 was killed by signal 9" in killed.reason
    assert trainer.moments is moments
    assert all(one.returncode is not None for one in processes)

    assert run(trainer, scene, second.model).verdict == "passed"
    again = list(trainer._crew.processes)
    trainer.close()
    assert all(one.returncode is not None for one in again)


@pytest.mark.timeout(900)
def test_a_cycle_that_is_asked_to_stop_ends_its_trainers(scene, trainer):
    report = run(trainer, scene, stop=lambda: True)

    assert (report.verdict, report.reason) == ("skipped", "asked to stop")
    assert trainer._crew.processes == []


@pytest.fixture
def lesson(scene):
    """Of one part, with three titles of the other, and with all that a lesson can have."""
    graph, positives, _, published = scene
    partition = cut(graph, 2, seed=0)
    subgraph = hasp_subgraph(graph, partition, 0, max_coplay=3, sampler=Even(3))
    new, old = (Pairs.inside(subgraph, some) for some in (positives[:200], positives[200:]))
    anchor = Anchor(
        torch.arange(2), torch.from_numpy(published[subgraph.titles[:2]].copy()), weight=2.0
    )
    outside = Outside(torch.from_numpy(published[:4].copy()), torch.ones(4))
    return Lesson(subgraph, [(new, 10), (old, 6)], anchor, outside, seed=7)


def test_a_lesson_that_goes_over_the_disk_teaches_the_same(scene, lesson, tmp_path):
    config = replace(CONFIG, parts=1, trainers=1)
    here, there = scene[2].clone(), scene[2].clone()
    # Warm moments first, so that they have to travel too.
    _, moments = learn(here, lesson, config, {}, Crew.alone(), torch.Generator().manual_seed(1))
    there.load_state_dict(here.state_dict())
    copy = {name: {k: one.clone() for k, one in state.items()} for name, state in moments.items()}

    write_lesson(tmp_path, there, lesson, config, copy, seed=5)
    learn_from(tmp_path, Crew.alone())
    losses = take_learnt([tmp_path], [lesson], there, copy)
    wanted, after = learn(
        here, lesson, config, moments, Crew.alone(), torch.Generator().manual_seed(5)
    )

    assert losses == pytest.approx(wanted)
    own = torch.from_numpy(lesson.subgraph.own.astype(np.int64))
    for name, one in here.named_parameters():
        ours = there.get_parameter(name)
        rows = own if name == "title_TD" else slice(None)
        torch.testing.assert_close(ours[rows], one[rows], msg=name)
    for name, state in after.items():
        for key, one in state.items():
            rows = own if name == "title_TD" and one.ndim else ...
            torch.testing.assert_close(copy[name][key][rows], one[rows], msg=f"{key} {name}")


def test_a_torn_lesson_is_named(scene, lesson, tmp_path):
    write_lesson(tmp_path, scene[2], lesson, CONFIG, {}, seed=0)
    (tmp_path / LESSON.tensors).write_bytes(b"x")

    with pytest.raises(ModelFolderError, match=r"lesson.safetensors is torn: .* run the cycle"):
        learn_from(tmp_path, Crew.alone())


def test_parts_that_trainers_cannot_share_are_refused():
    with pytest.raises(ValueError, match=r"trainers=2, parts=3: want .* a multiple of trainers"):
        MicroConfig(parts=3, trainers=2)
