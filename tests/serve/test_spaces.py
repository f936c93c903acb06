"""Spaces: made once, switched by one write, gone back from, dropped."""

import threading

import pytest
from redis import Redis

from serve import spaces
from serve.connection import SpaceLost, connect
from serve.spaces import NoSpace
from streams.embedded import RedisServer
from tests.serve.library import live, made, put


def names(client: Redis) -> set[str]:
    return {space.name for space in spaces.list_spaces(client)}


def test_a_space_says_what_it_holds(redis_client: Redis) -> None:
    made_now = spaces.create(redis_client, "main", dim=64, step=5, relations=["coplay", "genre"])

    assert spaces.get_space(redis_client, "main") == made_now
    assert (made_now.dim, made_now.step, made_now.schema) == (64, 5, 1)
    assert made_now.relations == ("coplay", "genre")
    assert (made_now.seq, made_now.filled_ms, made_now.live_ms) == (0, 0, 0)
    assert made_now.created_ms > 1_700_000_000_000
    assert not made_now.current
    assert redis_client.hget("upwell:main:meta", "dtype") == b"float32"


def test_to_make_a_space_twice_changes_nothing(redis_client: Redis) -> None:
    first = spaces.create(redis_client, "main", dim=64)

    assert spaces.create(redis_client, "main", dim=64, step=9) == first


def test_a_space_of_another_dim_or_schema_is_refused(redis_client: Redis) -> None:
    spaces.create(redis_client, "main", dim=64)

    with pytest.raises(ValueError, match=r"has vectors of 64, not 32.*upwell spaces drop main"):
        spaces.create(redis_client, "main", dim=32)
    redis_client.hset("upwell:main:meta", "schema", 99)
    with pytest.raises(ValueError, match="schema 99"):
        spaces.create(redis_client, "main", dim=64)
    with pytest.raises(ValueError, match="dim 0"):
        spaces.create(redis_client, "other", dim=0)


def test_many_that_make_one_space_agree_on_its_epoch(redis_server: RedisServer) -> None:
    found = []

    def make() -> None:
        client = connect(redis_server.url)
        found.append(spaces.create(client, "contested", dim=8).epoch)
        client.close()

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_switch_is_one_write_and_returns_the_space_before(redis_client: Redis) -> None:
    first, second = made(redis_client, "a"), made(redis_client, "b")

    assert first.switch() is None
    assert second.switch() == "a"

    assert redis_client.get("upwell:current") == b"b"
    assert [space.name for space in spaces.list_spaces(redis_client) if space.current] == ["b"]


def test_a_space_that_is_not_filled_is_not_made_live(redis_client: Redis) -> None:
    made(redis_client, "a")

    with pytest.raises(NoSpace, match="not complete"):
        spaces.switch(redis_client, "a")
    with pytest.raises(NoSpace, match="there are: a"):
        spaces.switch(redis_client, "b")

    assert spaces.current(redis_client) is None


def test_rollback_goes_back_in_the_order_of_the_switches(redis_client: Redis) -> None:
    for name in ("a", "b", "c"):
        live(redis_client, name)

    assert spaces.rollback(redis_client) == "b"
    assert spaces.rollback(redis_client) == "a"
    with pytest.raises(NoSpace, match="no space was live before"):
        spaces.rollback(redis_client)
    assert spaces.current(redis_client) == "a"


def test_after_a_rollback_the_way_back_leads_past_the_bad_space(redis_client: Redis) -> None:
    for name in ("a", "bad"):
        live(redis_client, name)
    spaces.rollback(redis_client)
    live(redis_client, "c")

    assert spaces.rollback(redis_client) == "a"


def test_a_dropped_space_leaves_no_key(redis_client: Redis) -> None:
    live(redis_client, "stays")
    publisher = made(redis_client, "goes")
    for seq in range(1, 4):
        put(publisher, f"m{seq}", 1.0, seq)
    publisher.retire(["m1"], seq=9, time_ms=1)

    assert spaces.drop(redis_client, "goes") == 3

    assert [key for key in redis_client.scan_iter() if b"goes" in key] == []
    assert names(redis_client) == {"stays"}
    with pytest.raises(SpaceLost):
        put(publisher, "m9", 1.0, 10)
    with pytest.raises(NoSpace, match="goes"):
        spaces.drop(redis_client, "goes")


def test_the_live_space_is_not_dropped(redis_client: Redis) -> None:
    live(redis_client, "a")

    with pytest.raises(ValueError, match="live"):
        spaces.drop(redis_client, "a")


def test_old_spaces_are_kept_by_count_and_one_being_filled_is_left_alone(
    redis_client: Redis,
) -> None:
    for age, name in enumerate(("a", "b", "c", "d")):
        live(redis_client, name)
        redis_client.hset(f"upwell:{name}:meta", "created_ms", 1000 + age)
    made(redis_client, "filling")

    assert spaces.prune(redis_client, keep=2) == ["b", "a"]

    assert names(redis_client) == {"c", "d", "filling"}
    assert spaces.rollback(redis_client) == "c"


def test_a_space_may_be_named_like_the_start_of_another(redis_client: Redis) -> None:
    live(redis_client, "main")
    put(live(redis_client, "main.2"), "m", 1.0, 1)

    spaces.drop(redis_client, "main")

    assert redis_client.exists("upwell:main.2:t:m")
