"""Errors that say where and what to do, and never a password."""

import logging
import socket
import threading
from pathlib import Path

import pytest
from redis import Redis

from serve.cache import CachedReader
from serve.connection import (
    RedisFailed,
    RedisRefused,
    RedisUnreachable,
    call,
    call_all,
    call_many,
    call_stream,
    connect,
)
from serve.similar import SimilarTitles
from serve.topology import address
from streams.embedded import RedisServer, free_port
from tests.serve.library import live, put
from tests.servers import redis_binary, silent_port, wait_until

SECRET = "hunter2"
QUICK = {"startup_timeout_s": 0.1, "retries": 0}


def test_an_unreachable_server_is_named_and_its_password_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()

    with pytest.raises(RedisUnreachable) as caught:
        connect(f"redis://me:{SECRET}@127.0.0.1:{port}/0", startup_timeout_s=0.3)

    assert f"127.0.0.1:{port} (Connection refused) (tried for 0.3 s)" in str(caught.value)
    assert len(caplog.records) == 1  # said once, not at every try
    assert SECRET not in str(caught.value) + caplog.text


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    with silent_port() as port, pytest.raises(RedisUnreachable, match=str(port)):
        connect(f"redis://127.0.0.1:{port}", timeout_s=0.1, startup_timeout_s=0.3, retries=0)


def test_a_server_that_starts_late_is_waited_for() -> None:
    server = RedisServer(port=free_port(), binary=redis_binary())
    told: list[str] = []
    starter = threading.Timer(0.3, server.start)
    starter.start()

    try:
        client = connect(server.url, startup_timeout_s=20, on_wait=told.append)
        assert call(client, "PING") is True
        client.close()
    finally:
        starter.join()
        server.stop()

    assert len(told) == 1
    assert server.address in told[0]


def test_a_wrong_password_is_refused_at_once_and_not_repeated() -> None:
    with RedisServer(binary=redis_binary(), arguments=["--requirepass", "right"]) as server:
        for user in ("", f":{SECRET}@"):
            with pytest.raises(RedisRefused) as caught:
                connect(f"redis://{user}{server.address}/0")

            assert server.address in str(caught.value)
            assert "password" in str(caught.value)
            assert SECRET not in str(caught.value)


def test_no_log_of_ours_or_the_clients_holds_the_password(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    arguments = ["--requirepass", SECRET]
    with RedisServer(binary=redis_binary(), arguments=arguments) as server:
        url = f"redis://:{SECRET}@{server.address}/0"
        client = connect(url)
        put(live(client), "a", 1, 1)
        cached, similar = CachedReader(url), SimilarTitles(url, folder=tmp_path)
        cached.get_many(["a"])
        similar.refresh()
        call(client, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        cached.get_many(["a"])

        server.stop()
        for act in (similar.refresh, lambda: call(client, "PING"), lambda: connect(url, **QUICK)):
            with pytest.raises(RedisFailed) as caught:
                act()
            assert SECRET not in str(caught.value)
        wait_until(lambda: "cache of embeddings is empty" in caplog.text, "a warning")
        cached.close()
        client.close()

    assert SECRET not in caplog.text
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.iterdir())


def test_a_url_of_another_kind_is_refused_without_repeating_it() -> None:
    for url in (f"http://me:{SECRET}@host/", SECRET, f"redis://me:{SECRET}@host:port/"):
        with pytest.raises(ValueError, match="Redis URL") as caught:
            connect(url)

        assert SECRET not in str(caught.value)


def test_an_address_has_no_password() -> None:
    assert address(f"redis://me:{SECRET}@host:7/1") == "host:7"
    assert address("redis://host") == "host:6379"
    assert address("unix:///run/redis.sock") == "/run/redis.sock"


def test_a_call_outlives_a_restart_of_the_server() -> None:
    with RedisServer(binary=redis_binary()) as server:
        client = connect(server.url)
        server.stop()
        restart = threading.Timer(0.1, server.start)
        restart.start()

        assert call(client, "SET", "k", "v")

        restart.join()
        client.close()


def test_a_failed_command_is_ours_to_raise_and_does_not_carry_its_bytes(
    redis_client: Redis,
) -> None:
    commands = [("SET", "k", SECRET), ("HGET", "k", SECRET), ("GET", "k")]

    _, failed, value = call_many(redis_client, commands)
    with pytest.raises(RedisFailed, match="WRONGTYPE") as caught:
        call_all(redis_client, commands)

    assert isinstance(failed, Exception)
    assert value == SECRET.encode()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("under_way", [1, 3, 100])
def test_a_stream_of_commands_is_answered_in_order_and_failures_are_answers(
    redis_client: Redis, under_way: int
) -> None:
    commands = [("RPUSH", "l", row) if row != 4 else ("GET", "l") for row in range(10)]

    answers = list(call_stream(redis_client, commands, under_way=under_way))

    assert [a for a in answers if not isinstance(a, Exception)] == list(range(1, 10))
    assert "WRONGTYPE" in str(answers[4])
    assert list(call_stream(redis_client, [], under_way=under_way)) == []


def test_a_stream_sends_again_what_a_broken_connection_left_unanswered(redis_url: str) -> None:
    client, other = connect(redis_url), connect(redis_url)
    answers = []

    for answer in call_stream(client, [("SET", f"k{row}", row) for row in range(50)], under_way=7):
        answers.append(answer)
        if len(answers) in (1, 20, 45):
            call(other, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    assert len(answers) == 50
    assert [
        int(value) for value in call(client, "MGET", *(f"k{row}" for row in range(50)))
    ] == list(range(50))
    client.close()
    other.close()


def test_a_stream_that_is_left_early_leaves_the_client_in_order(redis_client: Redis) -> None:
    stream = call_stream(redis_client, [("ECHO", row) for row in range(9)], under_way=4)

    assert next(stream) == b"0"
    stream.close()

    assert call(redis_client, "ECHO", "other") == b"other"


def test_plain_text_to_a_port_that_hangs_up_is_unreachable() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        hang_up = threading.Thread(target=lambda: listener.accept()[0].close())
        hang_up.start()
        with pytest.raises(RedisUnreachable, match="no answer"):
            connect(
                f"redis://127.0.0.1:{listener.getsockname()[1]}",
                startup_timeout_s=0.01,
                timeout_s=0.5,
            )
        hang_up.join()
