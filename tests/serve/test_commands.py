"""`upwell get`, `similar` and `status`: by id or name, in ten lines, with what is wrong."""

import json
import time

import numpy as np
import pytest
import typer.testing
from redis import Redis

from serve.publisher import Publisher
from serve.status import write_status
from streams.cli import app
from tests.serve.library import live, times

NAMES = {"1": "Toy Story (1995)", "3114": "Toy Story 2 (1999)", "6": "Heat (1995)"}
VECTORS = np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0]], np.float32)


@pytest.fixture
def publisher(redis_client: Redis) -> Publisher:
    made = live(redis_client)
    time_ms, names = times(3), list(NAMES.values())
    made.publish(list(NAMES), VECTORS, seq=4, step=7, time_ms=time_ms, names=names)
    return made


@pytest.fixture
def upwell(redis_url: str, publisher: Publisher, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UPWELL_REDIS__URL", redis_url)
    monkeypatch.setenv("COLUMNS", "160")
    runner = typer.testing.CliRunner()
    return lambda *arguments: runner.invoke(app, arguments)


@pytest.mark.parametrize("query", ["1", "toy story", "Toy Story (1995)"])
def test_a_title_is_got_by_id_or_name(upwell, query: str) -> None:
    found = json.loads(upwell("get", query, "--json").stdout)

    assert found["title"] == "1"
    assert found["name"] == "Toy Story (1995)"
    assert (found["space"], found["seq"], found["step"]) == ("main", 4, 7)
    assert found["vector"] == [1.0, 0.0, 0.0]
    assert "name     Toy Story (1995)" in upwell("get", query).stdout


def test_neighbours_are_printed_by_name(upwell) -> None:
    lines = upwell("similar", "Toy Story", "-k", "2").stdout.splitlines()

    assert lines[1].split() == ["0.994", "3114", "Toy", "Story", "2", "(1999)"]
    assert lines[2].split() == ["0.000", "6", "Heat", "(1995)"]
    found = json.loads(upwell("similar", "Toy Story", "--json").stdout)
    assert [one["title"] for one in found] == ["3114", "6"]


def test_an_unknown_name_is_told_with_those_that_are_like_it(upwell) -> None:
    done = upwell("similar", "Toi Story")

    assert done.exit_code != 0
    assert "do you mean Toy Story" in str(done.exception)


WORKER = {
    "role": "worker",
    "phase": "live",
    "pid": 7,
    "titles": 3,
    "concepts": 2,
    "coplay_edges": 5,
    "events_per_s": 12.5,
    "lag": 0,
    "dirty": 0,
    "step": 7,
    "cycles": 2,
    "last_cycles": [{"verdict": "passed", "seconds": 3.1, "reason": ""}],
    "freshness_s": {"catalog": {"p50": 0.05, "p99": 0.4}, "coplay": {"p50": 0.2, "p99": 0.7}},
    "checks": {"redis": None, "kafka": None},
    "error": None,
}
SESSIONS = {"role": "sessions", "pid": 8, "events": {"plays": {"in": 90}}, "pairs": 40}


def beat(client: Redis, **changes) -> None:
    watermark_ms = int(time.time() * 1000) - 1500
    write_status(client, "w1", {**WORKER, "watermark_ms": watermark_ms, **changes})
    write_status(client, "s1", SESSIONS)


def test_the_status_says_in_ten_lines_what_is_live_and_how_fresh(upwell, redis_client) -> None:
    beat(redis_client)

    done = upwell("status")

    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) <= 10
    since = time.strftime("%Y-%m-%d %H:%M")
    assert lines[0].startswith(f"space      main, dim 3, seq 4, live since {since[:-3]}")
    (fresh,) = [line for line in lines if line.startswith("freshness")]
    assert "catalog p50 0.05 s p99 0.40 s" in fresh
    assert "s ago is visible" in fresh
    assert lines[-1] == "wrong      nothing"


def test_what_is_wrong_is_said_with_its_reason(upwell, redis_client) -> None:
    refused = {"verdict": "refused", "seconds": 3.1, "reason": "the vectors are not finite"}
    beat(
        redis_client,
        error="no answer from Redis",
        checks={"redis": "no answer from Redis", "kafka": "3 partitions stand still"},
        last_cycles=[refused],
    )

    done = upwell("status", "--json")

    assert done.exit_code == 1
    assert json.loads(done.stdout)["wrong"] == [
        "w1: 3 partitions stand still",
        "w1: no answer from Redis",
        "w1: the last cycle was refused: the vectors are not finite",
    ]


def test_a_house_without_workers_or_a_live_space_says_what_to_start(upwell, redis_client) -> None:
    redis_client.flushall()

    done = upwell("status")

    assert done.exit_code == 1
    wrong = done.stdout.splitlines()[-1]
    assert "no space is live: start a worker" in wrong
    assert "no worker has a heartbeat" in wrong
    assert "no sessions has a heartbeat: start `upwell sessions`" in wrong
