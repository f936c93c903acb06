"""The command line: every command explains itself, and ends with the right exit code."""

import json
import subprocess
import sys

import numpy as np
import pytest
import typer.testing

from serve.publisher import Publisher
from streams.cli import app

COMMANDS = [
    ["demo"],
    ["data"],
    ["pretrain"],
    ["evaluate"],
    ["replay"],
    ["bootstrap"],
    ["worker"],
    ["sessions"],
    ["catalog", "publish"],
    ["catalog", "retire"],
    ["get"],
    ["similar"],
    ["status"],
    ["config"],
    ["explain"],
    ["dead-letters", "list"],
    ["dead-letters", "show"],
    ["dead-letters", "redrive"],
    ["checkpoint", "list"],
    ["checkpoint", "verify"],
    ["spaces", "list"],
    ["spaces", "switch"],
    ["spaces", "rollback"],
    ["spaces", "drop"],
]


def upwell(*arguments: str, env: dict[str, str] | None = None, cwd=None, stdin: str = ""):
    return subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        cwd=cwd,
        env=env,
        timeout=120,
        check=False,
    )


@pytest.fixture
def env(monkeypatch, tmp_path):
    import os

    root = os.getcwd()
    clean = {key: value for key, value in os.environ.items() if not key.startswith("UPWELL_")}
    return {**clean, "PYTHONPATH": root, "COLUMNS": "160"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_help_has_an_example(command):
    done = typer.testing.CliRunner().invoke(app, [*command, "--help"])

    assert done.exit_code == 0
    assert "Example:" in done.output
    assert f"upwell {' '.join(command)}" in done.output


def test_config_prints_each_setting_with_its_source(env, tmp_path):
    env["UPWELL_KAFKA__BOOTSTRAP"] = "kafka:1"

    done = upwell("config", "--json", env=env, cwd=tmp_path)

    settings = json.loads(done.stdout)
    assert done.returncode == 0
    assert settings["kafka.bootstrap"] == {
        "value": "kafka:1",
        "source": "UPWELL_KAFKA__BOOTSTRAP",
    }
    assert settings["refresh.interval_s"]["source"] == "default"


def test_a_wrong_setting_is_wrong_use(env, tmp_path):
    env["UPWELL_TRAINING__REPLAY"] = "2"

    done = upwell("config", env=env, cwd=tmp_path)

    assert done.returncode == 2
    assert "training.replay = '2'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["get"], ["demo", "--plays", "none"], ["data", "ml-2m"]]
)
def test_wrong_use_is_exit_code_2(arguments, env, tmp_path):
    done = upwell(*arguments, env=env, cwd=tmp_path)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["get", "1"], ["similar", "1"], ["status"]], ids=lambda one: one[0]
)
def test_a_redis_that_is_away_is_a_failure_with_its_address(arguments, env, tmp_path):
    env["UPWELL_REDIS__URL"] = "redis://:hunter2@127.0.0.1:9/0"
    env["UPWELL_REDIS__STARTUP_TIMEOUT_S"] = "0.3"

    done = upwell(*arguments, env=env, cwd=tmp_path)

    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["worker"], ["pretrain", "--data", "nowhere"]])
def test_a_gpu_that_is_not_there_is_a_failure_before_any_work(command, env, tmp_path):
    env |= {"UPWELL_TRAINING__DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": ""}

    done = upwell(*command, env=env, cwd=tmp_path)

    assert done.returncode == 1
    assert "device cuda: torch finds no GPU here; use cpu, or auto" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broker_that_is_away_is_a_failure_with_its_address(env, tmp_path):
    env["UPWELL_KAFKA__BOOTSTRAP"] = "127.0.0.1:9"
    env["UPWELL_KAFKA__STARTUP_TIMEOUT_S"] = "0.5"
    line = json.dumps({"title": "m1", "concepts": {"genre": ["Comedy"]}})

    done = upwell("catalog", "publish", "-", env=env, cwd=tmp_path, stdin=line)

    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_with_wrong_lines_names_each_and_publishes_nothing(env, tmp_path):
    (tmp_path / "titles.jsonl").write_text(
        '{"title": "m1", "concepts": {}}\n{"title": "", "concepts": {}}\nnot json\n'
        '{"title": "m2", "concepts": {}, "time_ms": 99999999999999}\n'
    )

    done = upwell("catalog", "publish", "titles.jsonl", env=env, cwd=tmp_path)

    assert done.returncode == 1
    assert "3 lines of titles.jsonl are wrong" in done.stderr
    for number in (2, 3, 4):
        assert f"line {number}:" in done.stderr


def test_a_worker_without_a_checkpoint_says_how_to_make_one(env, tmp_path, redis_server):
    env["UPWELL_REDIS__URL"] = redis_server.url

    done = upwell("worker", env=env, cwd=tmp_path)

    assert done.returncode == 1
    assert "no whole checkpoint under checkpoints; make one with `upwell pretrain`" in done.stderr


def test_spaces_are_listed_switched_rolled_back_and_dropped(env, tmp_path, redis_client, redis_url):
    for name in ("old", "new"):
        publisher = Publisher(redis_client, name)
        publisher.create_space(2)
        vector = np.ones((1, 2), np.float32)
        publisher.publish(["m1"], vector, seq=1, step=0, time_ms=np.zeros(1, np.int64))
        publisher.switch()
    env["UPWELL_REDIS__URL"] = redis_url

    def spaces(*arguments):
        return upwell("spaces", *arguments, env=env, cwd=tmp_path)

    assert spaces("rollback").stdout == "old is live\n"
    assert spaces("switch", "new").stdout == "new is live; before: old\n"
    assert spaces("drop", "new").returncode == 1
    assert "dropped, with 1 titles" in spaces("drop", "old").stdout
    listed = json.loads(spaces("list", "--json").stdout)
    assert [(space["name"], space["current"]) for space in listed] == [("new", True)]
