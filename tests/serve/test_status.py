"""Heartbeats: the last one of each worker that lives."""

import pytest
from redis import Redis

from serve.status import end_status, forget_silent, read_status, write_status
from tests.servers import wait_until


def test_the_last_heartbeat_of_each_worker_is_read(redis_client: Redis) -> None:
    write_status(redis_client, "w1", {"step": 1})
    write_status(redis_client, "w1", {"step": 2, "freshness_s": {"catalog": {"p50": 0.1}}})
    write_status(redis_client, "w0", {})

    found = read_status(redis_client)

    assert list(found) == ["w0", "w1"]
    assert found["w1"]["step"] == 2
    assert found["w1"]["freshness_s"] == {"catalog": {"p50": 0.1}}
    assert found["w1"]["written_ms"] > 1_700_000_000_000


def test_a_worker_that_fell_silent_is_gone(redis_client: Redis) -> None:
    write_status(redis_client, "w1", {"step": 1}, ttl_s=0.05)

    wait_until(lambda: read_status(redis_client) == {}, "its end")


def test_silent_workers_are_taken_off_the_list_and_others_stay(redis_client: Redis) -> None:
    write_status(redis_client, "w1", {}, ttl_s=0.05)
    write_status(redis_client, "w2", {})
    wait_until(lambda: list(read_status(redis_client)) == ["w2"], "the end of w1")

    assert forget_silent(redis_client) == ["w1"]

    assert forget_silent(redis_client) == []
    assert redis_client.smembers("upwell:workers") == {b"w2"}
    write_status(redis_client, "w1", {})  # it was merely late
    assert list(read_status(redis_client)) == ["w1", "w2"]


def test_a_worker_that_ended_is_gone_at_once(redis_client: Redis) -> None:
    write_status(redis_client, "w1", {"step": 1})
    end_status(redis_client, "w1")

    assert read_status(redis_client) == {}


def test_an_id_that_would_break_the_key_or_a_number_that_is_none_is_refused(
    redis_client: Redis,
) -> None:
    with pytest.raises(ValueError, match="worker 'a:b'"):
        write_status(redis_client, "a:b", {})
    with pytest.raises(ValueError, match="JSON"):
        write_status(redis_client, "a", {"loss": float("nan")})
