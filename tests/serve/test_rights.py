"""deploy/redis.acl grants the publisher and the reader what they need, and nothing else."""

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from serve import spaces
from serve.connection import RedisRefused, connect
from serve.publisher import Publisher
from serve.reader import EmbeddingReader
from serve.script import ServerScript
from serve.similar import SimilarTitles
from serve.status import end_status, read_status, write_status
from streams.embedded import RedisServer
from tests.serve.library import DIM, put, rows, times
from tests.servers import redis_binary

ACL = (Path(__file__).parents[2] / "deploy" / "redis.acl").read_text()
if (binary := redis_binary()) is not None:
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    if "v=7.0." in version.stdout:
        ACL = ACL.replace(" +client|setinfo", "")  # as docs/redis-contract.md says


def granted(user: str) -> set[str]:
    """The commands that the file grants, as INFO names them."""
    (line,) = [line for line in ACL.splitlines() if line.startswith(f"user {user} ")]
    return {word[1:] for word in line.split() if word.startswith("+")}


def without(right: str) -> str:
    return ACL.replace(f" +{right}", "")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server under the file, with one more user, for the test's own look at things."""
    path = tmp_path / "users.acl"
    path.write_text(ACL + "user test on >test ~* &* +@all\n")
    with RedisServer(binary=redis_binary(), arguments=["--aclfile", str(path)]) as server:
        yield server


def url(server: RedisServer, user: str, password: str | None = None) -> str:
    password = password or f"change-me-{user.removeprefix('upwell-')}"
    return f"redis://{user}:{password}@{server.address}/0"


@pytest.fixture
def admin(server: RedisServer) -> Iterator[Redis]:
    client = connect(url(server, "test", "test"))
    yield client
    client.close()


def commands_of(admin: Redis) -> set[str]:
    """What has been called since the counts were set back, functions' inner calls included."""
    stats = admin.info("commandstats")
    return {
        key.removeprefix("cmdstat_")
        for key, count in stats.items()
        if count["calls"] > count["rejected_calls"] + count["failed_calls"]
    }


def publish_in_every_way(client: Redis) -> None:
    publisher = Publisher(client, "main")
    publisher.create_space(DIM)
    publisher.publish(["a", "b"], rows(1, 2), seq=1, step=1, time_ms=times(2), names=["A", "B"])
    publisher.retire(["a"], seq=2, time_ms=1)
    put(publisher, "a", 3.0, 3)
    assert publisher.missing(["a", "c"]) == ["c"]
    publisher.switch()
    assert publisher.check()
    old = Publisher(client, "old")
    old.create_space(DIM)
    put(old, "a", 1.0, 1)
    old.switch()
    spaces.rollback(client)
    spaces.drop(client, "old")
    write_status(client, "w", {})
    end_status(client, "w")
    write_status(client, "w", {})
    script = ServerScript(client)  # what servers without FUNCTIONs get
    script._functions = False
    publisher._writer._script = script
    put(publisher, "a", 4.0, 4)


def read_in_every_way(client: Redis) -> None:
    for again_at in (0.0, float("inf")):
        reader = EmbeddingReader(client)
        reader._function_from = again_at
        np.testing.assert_array_equal(reader.get_many(["a", "b", "c"]).found, [True, True, False])
    assert reader.names(["a"]) == ["A"] or reader.names(["a"]) == [None]
    assert reader.all()[0] == ["a", "b"]
    follower = reader.follower(from_start=True)
    follower.poll()
    assert follower.poll().updates
    follower._stands()
    assert len(SimilarTitles(client).similar("b")) == 1
    assert [space.name for space in spaces.list_spaces(client)] == ["main"]
    assert list(read_status(client)) == ["w"]


def test_each_right_that_is_granted_is_used_and_suffices(server: RedisServer, admin: Redis) -> None:
    connection = {"auth", "info"}
    for user, act in (
        ("upwell-publisher", publish_in_every_way),
        ("upwell-reader", read_in_every_way),
    ):
        admin.config_resetstat()
        client = connect(url(server, user))
        act(client)
        client.close()
        used = commands_of(admin) - connection - {"config|resetstat"}

        assert used == granted(user)
    assert admin.acl_log() == []


@pytest.mark.parametrize(
    ("user", "commands"),
    [
        (
            "upwell-reader",
            [
                ("SET", "upwell:current", "x"),
                ("HSET", "upwell:main:t:a", "vec", "x"),
                ("DEL", "upwell:main:t:a"),
                ("XADD", "upwell:main:updates", "*", "title", "a"),
                ("FCALL", "any", "0"),
                ("GET", "session:1"),
            ],
        ),
        (
            "upwell-publisher",
            [
                ("SET", "session:1", "x"),
                ("GET", "session:1"),
                ("FUNCTION", "FLUSH"),
                ("EVAL", "return 1", "0"),
            ],
        ),
        (
            "upwell-publisher",
            [("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("ACL", "LIST"), ("SHUTDOWN",)],
        ),
    ],
)
def test_what_is_not_needed_is_not_allowed(
    server: RedisServer, user: str, commands: list[tuple[str, ...]]
) -> None:
    client = connect(url(server, user))

    for command in commands:
        with pytest.raises(NoPermissionError):
            client.execute_command(*command)
    client.close()


def test_who_does_not_say_who_he_is_gets_nothing(server: RedisServer) -> None:
    with pytest.raises(RedisRefused, match="refuses user or password"):
        connect(server.url)
    with pytest.raises(RedisRefused, match="invalid username-password"):
        connect(url(server, "upwell-reader", "guessed"))


def test_a_missing_right_is_named_with_its_remedy_and_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "users.acl"
    path.write_text(without("hsetnx"))

    with RedisServer(binary=redis_binary(), arguments=["--aclfile", str(path)]) as server:
        client = connect(url(server, "upwell-publisher"))
        with pytest.raises(RedisRefused) as caught:
            Publisher(client, "main").create_space(DIM)
        client.close()

    assert server.address in str(caught.value)
    assert "hsetnx" in str(caught.value)
    assert "deploy/redis.acl" in str(caught.value)
    assert "change-me" not in str(caught.value) + caplog.text


def test_a_reader_without_the_function_reads_by_plain_commands(tmp_path: Path) -> None:
    path = tmp_path / "users.acl"
    path.write_text(without("fcall_ro"))

    with RedisServer(binary=redis_binary(), arguments=["--aclfile", str(path)]) as server:
        publisher = connect(url(server, "upwell-publisher"))
        client = connect(url(server, "upwell-reader"))
        publish_in_every_way(publisher)

        assert EmbeddingReader(client).get_many(["a"]).found.all()

        publisher.close()
        client.close()


def test_a_publisher_without_functions_uses_scripts(tmp_path: Path) -> None:
    path = tmp_path / "users.acl"
    path.write_text(without("function|load"))

    with RedisServer(binary=redis_binary(), arguments=["--aclfile", str(path)]) as server:
        client = connect(url(server, "upwell-publisher"))
        publish_in_every_way(client)
        client.close()
