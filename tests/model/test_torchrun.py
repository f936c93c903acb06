"""Trainers that torchrun starts, for real, by gloo: one is killed, and the next start goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.crew import launched

ROOT = Path(__file__).parents[2]


def torchrun(*args):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", str(ROOT / "tests/model/launched.py"), *map(str, args)),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def steps_of(done):
    return [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("gnn")]


@pytest.mark.timeout(900)
def test_torchrun_starts_trainers_and_one_that_was_killed_leaves_a_state_to_go_on_from(tmp_path):
    folder = tmp_path / "work"

    killed = torchrun(folder, 10)

    assert killed.returncode != 0
    assert "Signal 9 (SIGKILL)" in killed.stderr
    saved = json.loads((folder / "state.json").read_text())["step"]
    assert 10 <= saved < 30

    again = torchrun(folder)

    assert again.returncode == 0, again.stderr
    assert steps_of(again) == list(range(saved + 1, 31))  # 60 steps of one trainer, by two
    assert "recall" in again.stdout
    assert not folder.exists()


def test_who_started_this_process_is_told_by_its_variables(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert launched() is None
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched() is None  # one of one is alone
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched() == (1, 2)
