import json

import pytest
import torch

from model.folder import FILES, FORMAT, ModelFolderError, load_model, save_model

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


def change(folder, **values):
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **values}))
