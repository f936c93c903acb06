"""`upwell pretrain` as torchrun starts it, without torchrun."""

import pytest
from typer.testing import CliRunner

from streams.cli import app


@pytest.fixture
def second_of_two(monkeypatch, tmp_path):
    """The process with rank 1 of 2, and a configuration with a folder for checkpoints."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = tmp_path / "upwell.toml"
    config.write_text(f'[checkpoint]\nfolder = "{tmp_path}/checkpoints"\n')
    return config


def run(config, *args):
    command = ["pretrain", "--data", str(config.parent), "--config", str(config), *args]
    return CliRunner().invoke(app, command, catch_exceptions=False)


def test_a_process_with_a_rank_above_0_trains_in_the_folder_of_the_first_and_reads_no_data(
    second_of_two, monkeypatch
):
    folders = []

    def train_as_other(folder):  # the real one ends the process
        folders.append(folder)
        raise SystemExit(0)

    monkeypatch.setattr("model.trainers.train_as_other", train_as_other)

    done = run(second_of_two)

    assert done.exit_code == 0
    assert folders == [second_of_two.parent / "checkpoints" / "training"]


def test_another_number_of_trainers_than_torchrun_started_is_refused(second_of_two):
    done = run(second_of_two, "--trainers", "3")

    assert done.exit_code == 2
    assert "torchrun started 2" in done.output.replace("\n", " ")


def test_nothing_to_stay_near_is_said_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("UPWELL_CHECKPOINT__FOLDER", str(tmp_path / "new"))
    command = ["pretrain", "--data", str(tmp_path / "none"), "--near", str(tmp_path / "old")]

    done = CliRunner().invoke(app, command)

    assert done.exit_code != 0
    assert "no whole checkpoint under" in str(done.exception)
