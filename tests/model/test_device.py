"""Training on another device, and in bfloat16: the same steps.

Where there is no GPU, tests/model/far.py stands for one.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.micro_trainer import MicroTrainer
from model.pretrain import pretrain
from model.runtime import device_of, uses_bf16
from model.settings import LossConfig, ModelConfig, PretrainConfig
from partition.external import Even
from tests.model.cycles import CONFIG as MICRO
from tests.model.cycles import run
from tests.model.far import FAR, Far, Machine, TwoPlaces

SMALL = ModelConfig(dim=8, max_coplay=4)
STEPS = PretrainConfig(transe_steps=3, steps=6, loss=LossConfig(sources=8, targets=4))
SAMPLED = {"uniform_candidates": 4, "popular_candidates": 4, "exact_titles": 0}


@pytest.fixture
def far(monkeypatch):
    """Whoever asks where to train is sent to the far device."""

    def go() -> None:
        for room in ("lesson", "pretrain"):
            monkeypatch.setattr(f"model.{room}.device_of", lambda *_: FAR)

    with Machine():
        yield go


def test_tensors_of_two_places_do_not_mix(far):
    near, there = torch.ones(3), torch.ones(3).to(FAR)

    assert isinstance(there + there, Far)
    with pytest.raises(TwoPlaces):
        near + there
    with pytest.raises(TwoPlaces):
        near.index_select(0, torch.tensor([1]).to(FAR))
    with pytest.raises(RuntimeError):
        there.numpy()


@pytest.mark.parametrize("loss", [{}, SAMPLED], ids=["exact", "sampled"])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_cycle_elsewhere_is_the_same_cycle(scene, far, parts, loss):
    config = replace(MICRO, parts=parts, even=6, loss=replace(MICRO.loss, **loss))
    here, there = (MicroTrainer(scene[2].config, config, seed=0) for _ in range(2))
    reports = [[run(trainer, scene) for _ in range(2)] for trainer in (here,)]
    far()
    reports.append([run(there, scene) for _ in range(2)])  # the second with warm moments

    for mine, theirs in zip(*reports, strict=True):
        assert mine.verdict == theirs.verdict == "passed"
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-5)
        for one, other in zip(mine.model.parameters(), theirs.model.parameters(), strict=True):
            assert other.device.type == "cpu"
            torch.testing.assert_close(one, other)
    for state in there.moments.of.values():
        assert {one.device.type for one in state.values()} == {"cpu"}


@pytest.mark.parametrize("loss", [{}, SAMPLED], ids=["exact", "sampled"])
@pytest.mark.parametrize("external", [None, Even(0), Even(3)], ids=["default", "none", "some"])
@pytest.mark.parametrize("parts", [1, 2])
def test_pretraining_elsewhere_makes_the_same_model(two_camps, far, parts, external, loss):
    graph, positives = two_camps
    config = replace(STEPS, parts=parts, loss=replace(STEPS.loss, **loss), validate_every=3)
    published = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)

    def trained():
        return pretrain(
            graph, positives, model=SMALL, config=config, sampler=external, published=published
        )

    here = trained()
    far()
    there = trained()

    assert there.metrics["loss"] == pytest.approx(here.metrics["loss"], rel=1e-5)
    for one, other in zip(here.model.parameters(), there.model.parameters(), strict=True):
        assert other.device.type == "cpu"
        torch.testing.assert_close(one, other)


def test_bfloat16_trains_nearly_the_same_weights(scene):
    plain, coarse = (
        run(MicroTrainer(scene[2].config, replace(MICRO, precision=one), seed=0), scene)
        for one in ("float32", "bf16")
    )

    assert coarse.loss == pytest.approx(plain.loss, rel=0.02)
    assert coarse.loss != plain.loss
    assert {one.dtype for one in coarse.model.parameters()} == {torch.float32}
    ours, theirs = (one.embedder.vectors(np.arange(20)) for one in (plain, coarse))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert ((ours * theirs).sum(1) / lengths).min() > 0.98


@pytest.mark.parametrize("kind", ["float32", "bf16", "auto"])
def test_pretraining_stands_any_precision(two_camps, kind):
    graph, positives = two_camps

    made = pretrain(graph, positives, model=SMALL, config=replace(STEPS, precision=kind))

    assert np.isfinite(made.metrics["loss"])


def test_auto_takes_bfloat16_where_the_cpu_has_instructions_for_it(monkeypatch):
    cpu = torch.device("cpu")
    for has in (True, False):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda has=has: {"avx512_bf16": has})
        assert uses_bf16("auto", cpu) is has
        assert uses_bf16("bf16", cpu)
        assert not uses_bf16("float32", cpu)


def test_a_gpu_that_is_not_there_is_refused_before_any_work(two_camps, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    graph, positives = two_camps

    with pytest.raises(ValueError, match="torch finds no GPU here; use cpu, or auto"):
        pretrain(graph, positives, model=SMALL, config=replace(STEPS, device="cuda"))
    assert device_of("auto").type == device_of("cpu").type == "cpu"


def test_trainers_of_one_machine_share_its_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)

    places = [device_of("auto", rank) for rank in range(3)]

    assert [place.index for place in places] == [0, 1, 0]
    assert device_of("cpu", 1).type == "cpu"
