"""What a trainer finds on disk: its own parts, and nothing of the others'."""

import numpy as np
import pytest
import torch

from model.crew import Crew
from model.folder import ModelFolderError, load_tensors
from model.part_training import Part, begin, train_parts
from model.settings import LossConfig, PretrainConfig
from model.trainer_work import REMEDY, WORK, Shelf, Task, dealt, home_of, prepare
from partition.external import WeightedTopN
from partition.hasp import hasp_subgraph
from partition.mincut import cut

CONFIG = PretrainConfig(steps=6, parts=4, loss=LossConfig(sources=16, targets=4))


@pytest.fixture
def task(two_camps):
    graph, positives = two_camps
    partition = cut(graph, 4, seed=0)
    parts = [
        hasp_subgraph(graph, partition, part, max_coplay=4, sampler=WeightedTopN(2))
        for part in range(4)
    ]
    return Task(parts, positives, CONFIG, 0)


def shelf_of(folder, rank, **changes):
    tensors, card = load_tensors(home_of(folder, rank), WORK, remedy=REMEDY)
    return Shelf(home_of(folder, rank), card["parts"], tensors["table"], **changes)


def test_a_trainer_has_rows_and_co_plays_of_its_own_parts_only(
    two_camps, make_model, task, tmp_path
):
    model = make_model(two_camps[0])

    prepare(model, task, trainers=2, folder=tmp_path)

    for rank in range(2):
        tensors, _ = load_tensors(home_of(tmp_path, rank), WORK, remedy=REMEDY)
        mine = dealt(task.parts, rank, 2)
        titles = np.unique(np.concatenate([part.titles for part in mine]))
        np.testing.assert_array_equal(tensors["table"], titles)
        rows = model.title_TD[torch.from_numpy(titles.astype(np.int64))]
        assert torch.equal(tensors["weight.title_TD"], rows)
        shelf = shelf_of(tmp_path, rank)
        for part, graph in zip(shelf, mine, strict=True):
            wanted = Part.of(graph, task.positives, tensors["table"].numpy())
            for name in ("source", "ptr", "target", "weight", "cumulative"):
                assert torch.equal(getattr(part.pairs, name), getattr(wanted.pairs, name)), name
            assert torch.equal(part.batch.titles, wanted.batch.titles)
            assert torch.equal(part.batch.edges.src, wanted.batch.edges.src)


def test_parts_that_one_step_takes_are_alike(task):
    edges = [[part.edge_index.shape[1] for part in dealt(task.parts, rank, 2)] for rank in (0, 1)]

    in_turn = [count for pair in zip(*edges, strict=True) for count in pair]
    assert in_turn == sorted(in_turn, reverse=True)
    titles = [part.own for rank in (0, 1) for part in dealt(task.parts, rank, 2)]
    assert sorted(np.concatenate(titles).tolist()) == list(range(20))


def test_parts_that_do_not_fit_are_read_one_at_a_time_and_train_the_same_weights(
    two_camps, make_model, task, tmp_path
):
    prepare(make_model(two_camps[0]), task, trainers=1, folder=tmp_path)
    trained = []
    for held in (0, 2**20):
        shelf = shelf_of(tmp_path, 0, held=held)
        model = make_model(two_camps[0])
        train_parts(model, shelf, CONFIG, Crew.alone(), begin(model, CONFIG, seed=0))
        trained.append(model)
        assert len(shelf[1:3]) == 2
        assert shelf[2] is shelf[2]
        assert len(shelf._read) == (1 if held == 0 else 4)

    for name, one in trained[0].named_parameters():
        assert torch.equal(one, trained[1].get_parameter(name)), name


def test_a_torn_part_is_named_when_it_is_read(two_camps, make_model, task, tmp_path):
    prepare(make_model(two_camps[0]), task, trainers=2, folder=tmp_path)
    file = home_of(tmp_path, 1) / "part-1.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    shelf = shelf_of(tmp_path, 1)

    assert len(shelf[0].pairs)
    with pytest.raises(ModelFolderError, match=r"part-1.safetensors is torn: .* start anew"):
        shelf[1]
    with pytest.raises(IndexError, match=r"part 2: want 0..1"):
        shelf[2]
