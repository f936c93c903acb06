import json

import numpy as np
import pytest
import torch
import typer
import typer.testing
from rich.console import Console

from model.explain import Explanation, NeighbourShare, RelationShare
from model.micro_trainer import MicroTrainer
from model.semantic_gnn import Names, SemanticGNN
from model.settings import MicroConfig, ModelConfig
from streams import cli_explain
from streams.cli_common import Failure
from streams.events import CatalogEntry, CoPlays
from streams.settings import GraphSettings
from streams.snapshot import Snapshot, save_snapshot
from streams.state import State

NAMES = {"1": "Toy Story (1995)", "2": "Heat (1995)", "3": "Heat (1986)", "4": None}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The folder of a checkpoint with four titles, of which 1 and 2 are played together."""
    state = State.empty(GraphSettings())
    state.apply_catalog(
        [
            CatalogEntry(title=title, name=name, time_ms=1, concepts={"genre": ["Film", title]})
            for title, name in NAMES.items()
        ],
        np.zeros(4, np.int64),
    )
    one = np.ones(1, np.float32), np.ones(1, np.int64), np.zeros(1, np.int32)
    state.apply_coplays(CoPlays(["1"], ["2"], *one), np.zeros(1, np.int64))
    names = Names.of(state.graph)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SemanticGNN(ModelConfig(dim=8), names.title, names.concept, names.relation)
    trainer = MicroTrainer(model.config, MicroConfig(), 0)
    folder = tmp_path_factory.mktemp("checkpoints")
    save_snapshot(folder, Snapshot(state, model, 7, {}, trainer), keep=1)
    return folder, state


@pytest.fixture
def upwell(checkpoints, monkeypatch):
    """Runs `explain` as the program would."""
    monkeypatch.setenv("UPWELL_CHECKPOINT__FOLDER", str(checkpoints[0]))
    app = typer.Typer()
    cli_explain.register(app)

    def run(*arguments):
        return typer.testing.CliRunner().invoke(app, arguments)

    return run


def test_json_has_names_shares_and_the_step_of_the_weights(upwell):
    result = upwell("Toy Story", "--json")

    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["title"], found["name"], found["model_step"]) == ("1", "Toy Story (1995)", 7)
    assert sum(one["share"] for one in found["relations"]) == pytest.approx(1, abs=1e-5)
    assert {(one["id"], one["name"]) for one in found["neighbours"]} == {
        ("2", "Heat (1995)"),
        ("genre:Film", None),
        ("genre:1", None),
    }


def test_a_person_reads_words_and_bars(upwell):
    result = upwell("1", "-k", "2")

    assert result.exit_code == 0, result.output
    assert "The model places Toy Story (1995) by 1 title played with it" in result.stdout
    assert "is its own, learnt from who was played with it" in " ".join(result.stdout.split())
    assert "█" in result.stdout


@pytest.mark.parametrize(
    ("query", "title"),
    [("1", "1"), ("toy story (1995)", "1"), ("TOY STORY", "1"), ("heat", "2"), ("4", "4")],
)
def test_a_title_is_found_by_id_or_name(checkpoints, query, title):
    assert cli_explain.find(query, checkpoints[1]) == title


def test_an_unknown_title_gets_close_ones(checkpoints):
    with pytest.raises(Failure, match=r"'Toy Storm'.*do you mean Toy Story \(1995\)"):
        cli_explain.find("Toy Storm", checkpoints[1])


def shares(**by_relation):
    return Explanation(
        "1",
        0.0,
        [RelationShare(name, share, [share], 3) for name, share in by_relation.items()],
        [NeighbourShare(name, f"{name}:x[red]", False, s, 1.0) for name, s in by_relation.items()],
    )


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (shares(), "the model knows nothing of it"),
        (shares(genre=1.0), "its 3 concepts alone place it"),
        (shares(coplay=0.25, genre=0.75), "3 titles played with it (25% of its attention)"),
    ],
)
def test_each_case_has_its_words(found, said):
    assert said in cli_explain.words(found, {})


def test_a_name_is_printed_as_it_is_not_as_markup():
    console = Console(width=100)

    with console.capture() as text:
        console.print(cli_explain.picture(shares(genre=1.0), {"1": "A [bold] title"}))

    assert "A [bold] title" in text.get()
    assert "x[red]" in text.get()


def test_a_bar_is_as_long_as_its_share():
    assert cli_explain.bar(1.0).plain == "█" * cli_explain.BAR
    assert cli_explain.bar(0.0).plain == ""
    assert cli_explain.bar(1e-6).plain == "▏"
