"""docs/redis-contract.md tells the truth: its readers are run as they are printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis

from serve import vectors
from tests.serve.library import DIM, live, put, rows, times

DOCUMENT = (Path(__file__).parents[2] / "docs" / "redis-contract.md").read_text()

# Where redis-cli is not installed, this does what its --raw does.
STAND_IN = """#!{python}
import sys
import redis

def lines(answer):
    if isinstance(answer, (list, tuple)):
        for one in answer:
            yield from lines(one)
    else:
        yield b"" if answer is None else answer if isinstance(answer, bytes) else b"%d" % answer

assert sys.argv[1] == "-u" and sys.argv[3] == "--raw"
client = redis.Redis.from_url(sys.argv[2], protocol=2)
client.response_callbacks.clear()
for line in lines(client.execute_command(*sys.argv[4:])):
    sys.stdout.buffer.write(line + b"\\n")
"""


def snippet(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    return str(found)


@pytest.fixture
def published(redis_client: Redis) -> None:
    publisher = live(redis_client)
    publisher.publish(
        ["m1", "m2"], rows(0.5, -2), seq=4, step=9, time_ms=times(2, 77), names=["Heat", None]
    )
    publisher.retire(["m3"], seq=5, time_ms=78)


def test_the_python_reader_reads(redis_url: str, redis_client: Redis, published: None) -> None:
    names: dict[str, Any] = {"url": redis_url}
    exec(snippet("python"), names)  # noqa: S102 -- it is our own document

    try:
        found = names["get_many"](["m2", "m1", "m3", "unknown"])
        put(live(redis_client, "next"), "m1", 7.0, 1)
        after_a_switch = names["get_many"](["m1", "m2"])
    finally:
        names["client"].close()

    assert list(found) == ["m2", "m1"]
    np.testing.assert_array_equal(found["m1"], [0.5] * DIM)
    assert list(after_a_switch) == ["m1"]
    np.testing.assert_array_equal(after_a_switch["m1"], [7] * DIM)


def test_the_python_reader_is_as_short_as_it_says() -> None:
    lines = [line for line in snippet("python").splitlines() if line]

    assert len(lines) <= 20
    assert "serve" not in snippet("python")


def test_the_redis_cli_reader_reads(redis_url: str, published: None, tmp_path: Path) -> None:
    if shutil.which("redis-cli") is None:
        stand_in = tmp_path / "redis-cli"
        stand_in.write_text(STAND_IN.format(python=sys.executable))
        stand_in.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "url": redis_url,
        "title": "m1",
    }

    ran = subprocess.run(
        ["sh", "-eu", "-c", snippet("sh")], env=env, capture_output=True, text=True, check=True
    )

    words = ran.stdout.split()
    assert words[:DIM] == ["0.5"] * DIM
    assert words[DIM : DIM + 4] == ["4", "9", "77", "Heat"]
    assert words[DIM + 5 : DIM + 13] == ["title", "m3", "seq", "5", "time_ms", "78", "gone", "1"]
    assert ran.stderr == ""


def test_every_key_and_field_that_is_written_is_described(
    redis_client: Redis, published: None
) -> None:
    fields: set[str] = set()
    for key in redis_client.scan_iter():
        pattern = re.sub(r"^upwell:main:t:.*", "upwell:<space>:t:<title>", key.decode())
        assert f"`{pattern.replace(':main:', ':<space>:')}`" in DOCUMENT, key
        if redis_client.type(key) == b"hash":
            fields |= {field.decode() for field in redis_client.hkeys(key)}

    assert {field for field in fields if f"`{field}`" not in DOCUMENT} == set()
    assert f"`schema` (`{vectors.SCHEMA}`)" in DOCUMENT
    assert f"1 to {vectors.MAX_TITLE_BYTES} bytes" in DOCUMENT
