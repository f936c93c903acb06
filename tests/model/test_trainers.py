import json
import os
import signal
import subprocess

import numpy as np
import pytest
import torch

from model import trainers
from model.crew import Crew, TrainerLost
from model.folder import ModelFolderError, load_tensors
from model.part_training import Part, begin, train_parts
from model.pretrain import pretrain
from model.settings import LossConfig, ModelConfig, PretrainConfig
from model.trainer_work import Task
from model.trainers import STATE, TrainerDied
from partition.external import WeightedTopN
from partition.hasp import hasp_subgraph
from partition.mincut import cut

SMALL = ModelConfig(dim=8, max_coplay=4)
CONFIG = PretrainConfig(
    transe_steps=20, steps=60, parts=2, validation=0.2, loss=LossConfig(sources=16, targets=4)
)


@pytest.fixture
def scene(two_camps, make_model):
    """Camps in two parts, an untrained model, and the task to train it."""
    graph, positives = two_camps
    partition = cut(graph, 2, seed=0)
    parts = [hasp_subgraph(graph, partition, part, max_coplay=4) for part in range(2)]
    return graph, make_model(graph), Task(parts, positives, CONFIG, 0)


def shared_weights(folder, rank, step):
    tensors, _ = load_tensors(folder / f"trainer-{rank}" / str(step), STATE, remedy="")
    return {
        name: one
        for name, one in tensors.items()
        if name.startswith(("weight.", "moment.")) and not name.endswith("title_TD")
    }


@pytest.mark.timeout(900)  # four processes load torch
def test_a_killed_trainer_is_named_and_the_same_call_goes_on_from_what_was_saved(
    two_camps, tmp_path, monkeypatch
):
    graph, positives = two_camps
    processes = []
    start = trainers.start

    def remember(*args, **kwargs):
        processes[:] = start(*args, **kwargs)
        return processes

    def train(folder, progress):
        return pretrain(
            graph,
            positives,
            model=SMALL,
            config=CONFIG,
            trainers=2,
            work=folder,
            progress=lambda stage, *told: stage == "gnn" and progress(*told),
        )

    def kill(step, steps, figures):
        if step == 15:
            os.kill(processes[1].pid, signal.SIGKILL)

    monkeypatch.setattr(trainers, "start", remember)
    folder = tmp_path / "killed"
    with pytest.raises(TrainerDied, match="trainer 1 of 2 was killed by signal 9 after step") as it:
        train(folder, kill)

    saved = json.loads((folder / "state.json").read_text())["step"]
    assert 0 < saved < 30
    assert f"{folder} holds the state after step {saved}: the same command" in str(it.value)
    assert all(one.returncode for one in processes)

    steps = []
    made = train(folder, lambda *told: steps.append(told[:2]))

    # As many passes over two parts as one trainer makes in 60 steps.
    assert steps == [(step, 30) for step in range(saved + 1, 31)]
    assert np.isfinite(made.metrics["loss"])
    assert not folder.exists()


def test_training_that_was_cut_short_ends_with_the_weights_of_one_that_was_not(scene, tmp_path):
    _, model, task = scene
    ends = []
    for name, stop_at in (("straight", None), ("cut short", 40)):
        folder = tmp_path / name
        trainers.prepare(model, task, trainers=1, folder=folder)

        def stop(step, steps, loss, at=stop_at):
            if step == at:
                raise KeyboardInterrupt

        if stop_at:
            with pytest.raises(KeyboardInterrupt):
                trainers.run(folder, Crew.alone(), stop)
        trainers.run(folder, Crew.alone(), lambda *_: None)
        ends.append(model.clone())
        trainers.collect(ends[-1], folder)

    straight, again = ends
    for name, one in straight.named_parameters():
        assert torch.equal(one, again.get_parameter(name)), name
    assert not torch.equal(straight.title_TD, model.title_TD)


@pytest.mark.timeout(900)
def test_trainers_with_uneven_parts_and_titles_from_outside_end_alike(
    two_camps, make_model, tmp_path
):
    graph, positives = two_camps
    partition = cut(graph, 3, seed=0)
    parts = [
        hasp_subgraph(graph, partition, part, max_coplay=4, sampler=WeightedTopN(3))
        for part in range(3)
    ]
    task = Task(parts, positives, CONFIG, 0)  # two parts for the first trainer, one for the second
    folder = tmp_path / "work"
    trainers.prepare(make_model(graph), task, trainers=2, folder=folder)

    processes = trainers.start(folder, 2)
    # 60 steps of one trainer, two for three parts.
    assert processes[0].stdout.read().count(b"\n") == 40
    assert [one.wait() for one in processes] == [0, 0]

    first, second = (shared_weights(folder, rank, 40) for rank in range(2))
    assert first.keys() == second.keys()
    for name, one in first.items():
        assert torch.equal(one, second[name]), name
    for one in processes:
        one.stdin.close()
    processes[0].stdout.close()


def test_work_of_another_task_is_not_gone_on_with(scene, tmp_path):
    _, model, task = scene
    trainers.prepare(model, task, trainers=2, folder=tmp_path)
    (tmp_path / "state.json").write_text('{"step": 7}')

    trainers.prepare(model, task, trainers=2, folder=tmp_path)
    assert (tmp_path / "state.json").exists()  # the same task: its state stays
    other = Task(task.parts, task.positives, task.config, seed=1)
    trainers.prepare(model, other, trainers=2, folder=tmp_path)

    assert not (tmp_path / "state.json").exists()


def test_an_external_title_is_trained_at_home_only(two_camps, make_model):
    graph, positives = two_camps
    partition = cut(graph, 2, seed=0)
    part = hasp_subgraph(
        graph, partition, 0, max_coplay=4, sampler=lambda *_, seed: partition.titles(1)
    )
    assert part.external.sum() == 10
    model = make_model(graph)
    before = model.title_TD.detach().clone()
    config = PretrainConfig(steps=3, weight_decay=0.0, loss=LossConfig(sources=16, targets=4))

    train_parts(
        model,
        [Part.of(part, positives, np.arange(20))],
        config,
        Crew.alone(),
        begin(model, config, seed=0),
    )

    moved = (model.title_TD != before).any(1).numpy()
    np.testing.assert_array_equal(moved[part.titles], ~part.external)


def test_a_trainer_without_fellows_says_so(monkeypatch):
    with pytest.raises(TrainerLost, match="trainer 1 of 2 lost the others in the meeting"):
        Crew.join(1, 2, "127.0.0.1", 9, timeout_s=1.0)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match="RANK is set, but not WORLD_SIZE"):
        Crew.by_environment()


def test_trainers_that_cannot_share_the_parts_are_refused(two_camps, tmp_path):
    graph, positives = two_camps

    with pytest.raises(ValueError, match=r"3 trainers want .* a multiple of 3 parts, not 2"):
        pretrain(graph, positives, model=SMALL, config=CONFIG, trainers=3, work=tmp_path)


def test_torn_work_is_not_begun_with(scene, tmp_path):
    _, model, task = scene
    trainers.prepare(model, task, trainers=1, folder=tmp_path)
    file = tmp_path / "trainer-0" / "work.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")

    with pytest.raises(ModelFolderError, match=r"work.safetensors is torn: .* start anew"):
        trainers.run(tmp_path, Crew.alone(), lambda *_: None)


def test_the_trainer_that_died_is_named_not_the_one_that_lost_it(tmp_path):
    commands = ("sleep 0.2; exit 3", "echo no memory >&2; exit 1", "sleep 60")
    processes = []
    for rank, command in enumerate(commands):
        (tmp_path / f"trainer-{rank}").mkdir()
        with (tmp_path / f"trainer-{rank}" / "said").open("wb") as said:
            processes.append(
                subprocess.Popen(
                    ["sh", "-c", command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                )
            )

    with pytest.raises(TrainerDied, match="trainer 1 of 3 ended with exit code 1: no memory"):
        trainers._watch(processes, tmp_path, lambda *_: None, grace_s=0.5)

    assert all(one.returncode for one in processes)
    for one in processes[1:]:
        one.stdout.close()
