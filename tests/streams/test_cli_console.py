"""The commands that watch: a page, a terminal, a canary."""

import io
import json
import sys
import time
import urllib.request

import pytest
import typer
import typer.testing
from rich.console import Console

from serve.status import write_status
from streams.cli_console import register
from streams.console.terminal import screen, seconds, trouble
from streams.embedded import free_port, spawn
from tests.servers import wait_until
from tests.streams.test_console import heartbeat


@pytest.fixture
def upwell(redis_url, monkeypatch):
    """Calls the commands as the program does; an error comes back as `exception`."""
    monkeypatch.setenv("UPWELL_REDIS__URL", redis_url)
    app = typer.Typer()
    register(app)
    return lambda *arguments: typer.testing.CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("command", ["console", "top", "canary"])
def test_each_help_has_an_example(upwell, command):
    done = upwell(command, "--help")

    assert done.exit_code == 0
    assert f"upwell {command}" in done.output.split("Example:")[1]


def test_top_once_ends_with_what_is_wrong(upwell, redis_client):
    assert "no worker has a heartbeat" in str(upwell("top", "--once").exception)

    write_status(redis_client, "worker-0", heartbeat())
    fine = upwell("top", "--once")
    write_status(redis_client, "worker-0", heartbeat(error="Redis at h:1 is away"))
    wrong = upwell("top", "--once")

    assert fine.exit_code == 0
    assert "Embeddings are fresh" in fine.output
    assert wrong.exit_code == 1
    assert "Redis at h:1 is away" in wrong.output


def test_top_prints_the_heartbeat_as_json(upwell, redis_client):
    write_status(redis_client, "worker-0", heartbeat())

    told = json.loads(upwell("top", "--json", "--worker", "worker-0").output)

    assert (told["worker"], told["lag"]) == ("worker-0", 31)
    assert "no worker 'other'" in str(upwell("top", "--json", "--worker", "other").exception)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, None),
        ({"checks": {"broker": "no broker answers"}}, "broker: no broker answers"),
        ({"phase": "catching up"}, "the worker is catching up"),
        ({"watermark_ms": 0}, "oldest event that no reader can see"),
    ],
)
def test_trouble_is_what_an_operator_should_look_at_first(fields, words):
    told = heartbeat(**fields) | {"written_ms": int(time.time() * 1000), "worker": "worker-0"}

    found = trouble(told)

    assert found is None if words is None else words in found


def test_a_worker_that_has_just_begun_fits_the_screen():
    told = heartbeat(
        last_cycles=[], freshness_recent_s={}, freshness_s={}, stages_s={}, checkpoint_age_s=None
    )
    out = io.StringIO()

    Console(file=out, width=100).print(
        screen({**told, "written_ms": int(time.time() * 1000), "worker": "worker-0"})
    )

    assert "no training cycle yet" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 100


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.045, "45 ms"),
        (0.25, "0.25 s"),
        (1.5, "1.5 s"),
        (12, "12 s"),
        (600, "10 min"),
    ],
)
def test_a_duration_is_short(value, text):
    assert seconds(value) == text


def test_the_console_command_serves_the_page_until_it_is_stopped(redis_url, redis_client, tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "streams.cli", "console", "--port", str(port)]
    env = {"UPWELL_REDIS__URL": redis_url}

    def get(path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    def shown() -> bool:
        write_status(redis_client, "worker-0", heartbeat())  # it expires: as a worker does
        return "worker-0" in get("/api/now")

    with spawn("console", command, log=tmp_path / "console.log", env=env, grace_s=20) as child:
        wait_until(shown, "the heartbeat is read", within_s=90)
        assert "<title>Upwell</title>" in get("/")
        assert get("/livez") == "ok\n"
        assert child.stop() == 0, child.tail()
    assert f"http://127.0.0.1:{port}/" in child.tail()
