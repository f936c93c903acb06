import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.batch import GraphBatch
from model.folder import FILES, FORMAT, ModelFolderError, load_model, save_model
from model.inference import Embedder
from partition.hasp import whole_graph

WEIGHTS, CARD = FILES.tensors, FILES.card


@pytest.fixture
def saved(make_graph, make_model, tmp_path):
    model = make_model(make_graph(3, [(0, 1, 1.0)], {"genre": [(0, 0)]}))
    folder = tmp_path / "model"
    save_model(folder, model, {"metrics": {"recall20": 0.1}})
    return folder, model


def test_what_was_saved_is_loaded(saved):
    folder, model = saved

    again, card = load_model(folder)

    assert card["metrics"] == {"recall20": 0.1}
    assert again.config == model.config
    assert again.title_names == model.title_names
    for name, one in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], one)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), "holds no model"),
        (lambda folder: (folder / CARD).write_text('{"format":'), "torn"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"half"), "torn: its checksum"),
        (lambda folder: change(folder, format=FORMAT + 1), "newer than"),
        (lambda folder: change(folder, format=None), "names no format"),
        (lambda folder: change(folder, config={"dim": 4}), "card and weights disagree"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_by_name(saved, harm, message):
    folder, _ = saved
    harm(folder)

    with pytest.raises(ModelFolderError, match=message) as error:
        load_model(folder)

    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("number", "missing"),
    [
        (1, ["past_layers.weight", "unplayed.theta", "unplayed.precision"]),
        (3, ["unplayed.theta", "unplayed.precision"]),
    ],
)
def test_a_model_of_an_older_format_publishes_what_it_did(saved, make_graph, number, missing):
    folder, model = saved
    with torch.no_grad():
        if number == 1:
            model.past_layers.weight.zero_()
    save_model(folder, model, {})
    weights = load_file(folder / WEIGHTS)
    for name in missing:
        del weights[name]
    save_file(weights, folder / WEIGHTS)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    change(folder, format=number, sha256=digest)

    again, _ = load_model(folder)

    graph = make_graph(3, [(0, 1, 1.0)], {"genre": [(0, 0)]})
    batch = GraphBatch.of(whole_graph(graph, max_coplay=model.config.max_coplay))
    embedder = Embedder(again)
    embedder.full(graph)
    with torch.no_grad():
        want = model.eval()(batch)
    torch.testing.assert_close(again(batch), want)
    torch.testing.assert_close(embedder.published[:3], want)  # of title 2, which nobody played, too


def change(folder, **values):
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **values}))
