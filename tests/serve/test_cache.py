"""The cache: few reads of Redis, and never an answer that is older than it may be."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from serve import spaces
from serve.cache import CachedReader
from serve.connection import connect
from serve.reader import EmbeddingReader
from serve.reading import Batch, Versions
from serve.updates import Update, Updates
from streams.embedded import RedisServer
from tests.serve.library import DIM, live, put, rows, times
from tests.servers import redis_binary, wait_until


class Counting(EmbeddingReader):
    """A reader that notes what it was asked for, and can be held up before it answers."""

    def __init__(self, client: Redis) -> None:
        super().__init__(client)
        self.asked: list[list[str]] = []
        self.before_answer: Callable[[], Any] = lambda: None

    def get_many(self, titles: list[str]) -> Batch:
        self.asked.append(list(titles))
        batch = super().get_many(titles)
        self.before_answer()
        return batch


@pytest.fixture
def reader(redis_client: Redis) -> Counting:
    return Counting(redis_client)


@pytest.fixture
def cache(redis_client: Redis, reader: Counting) -> Iterator[CachedReader]:
    publisher = live(redis_client)
    publisher.publish(["a", "b"], rows(1, 2), seq=1, step=3, time_ms=times(2, 9))
    with CachedReader(reader) as made:
        wait_until(lambda: made._space, "a cache in step")
        yield made


def number(cache: CachedReader, title: str) -> float | None:
    matrix, found, _ = cache.get_many([title])
    return float(matrix[0, 0]) if found[0] else None


def test_what_was_read_once_is_not_read_again(cache: CachedReader, reader: Counting) -> None:
    first = cache.get_many(["a", "missing", "b"])
    second = cache.get_many(["b", "missing", "a", "a"])

    assert reader.asked == [["a", "missing", "b"]]
    np.testing.assert_array_equal(first.matrix[:, 0], [1, 0, 2])
    np.testing.assert_array_equal(second.matrix[:, 0], [2, 0, 1, 1])
    np.testing.assert_array_equal(second.found, [True, False, True, True])
    np.testing.assert_array_equal(second.versions.seq, [1, -1, 1, 1])
    np.testing.assert_array_equal(second.versions.step, [3, -1, 3, 3])
    np.testing.assert_array_equal(second.versions.time_ms, [9, -1, 9, 9])
    assert second.versions.space == "main"


def test_only_what_is_missing_is_read(cache: CachedReader, reader: Counting) -> None:
    cache.get_many(["a"])

    batch = cache.get_many(["b", "a", "?"])

    assert reader.asked == [["a"], ["b", "?"]]
    np.testing.assert_array_equal(batch.matrix[:, 0], [2, 1, 0])
    np.testing.assert_array_equal(batch.found, [True, True, False])
    np.testing.assert_array_equal(batch.versions.seq, [1, 1, -1])


def test_a_caller_may_write_into_what_he_got(cache: CachedReader) -> None:
    cache.get_many(["a"])
    cache.get_many(["a"]).matrix[:] = 99

    assert number(cache, "a") == 1


def test_what_is_published_retired_or_new_is_seen_soon(
    cache: CachedReader, redis_client: Redis
) -> None:
    publisher = live(redis_client)
    assert cache.get_many(["a", "b", "new"]).found.tolist() == [True, True, False]

    put(publisher, "a", 5.0, 2)
    publisher.retire(["b"], seq=3, time_ms=1)
    put(publisher, "new", 6.0, 4)

    wait_until(lambda: number(cache, "a") == 5)
    wait_until(lambda: number(cache, "b") is None)
    wait_until(lambda: number(cache, "new") == 6)


def test_a_switch_and_a_flush_empty_the_cache(cache: CachedReader, redis_client: Redis) -> None:
    cache.get_many(["a", "b"])

    put(live(redis_client, "next"), "a", 7.0, 1)
    wait_until(lambda: number(cache, "a") == 7)
    assert number(cache, "b") is None

    redis_client.flushall()
    wait_until(lambda: not cache._space)
    assert len(cache) == 0


def test_a_lost_server_is_an_error_and_not_an_old_answer() -> None:
    with RedisServer(binary=redis_binary()) as server:
        client = connect(server.url, retries=0)
        put(live(client), "a", 1.0, 1)
        with CachedReader(client) as cache:
            wait_until(lambda: cache._space)
            assert number(cache, "a") == 1

            server.stop()
            wait_until(lambda: len(cache) == 0)
            with pytest.raises(RuntimeError, match="no answer"):
                cache.get_many(["a"])

            server.start()
            put(live(client), "a", 2.0, 1)
            wait_until(lambda: cache._space)
            assert number(cache, "a") == 2
        client.close()


def test_a_cache_that_hears_nothing_reads_from_redis(cache: CachedReader, reader: Counting) -> None:
    cache.get_many(["a"])
    cache._max_stale_s = -1.0  # as if the thread had been silent for too long

    cache.get_many(["a"])

    assert reader.asked == [["a"], ["a"]]


def test_a_read_that_a_publish_overtakes_is_not_kept(
    cache: CachedReader, reader: Counting, redis_client: Redis
) -> None:
    publisher = live(redis_client)

    def overtake() -> None:
        reader.before_answer = lambda: None
        put(publisher, "a", 5.0, 2)
        wait_until(lambda: "a" in cache._newer, "the update")

    reader.before_answer = overtake

    assert number(cache, "a") == 1  # it was so when it was asked
    assert number(cache, "a") == 5
    assert cache._newer == {}


def test_a_read_that_a_switch_overtakes_is_made_again_whole(
    cache: CachedReader, reader: Counting, redis_client: Redis
) -> None:
    cache.get_many(["a"])

    def overtake() -> None:
        reader.before_answer = lambda: None
        live(redis_client, "next").publish(["a", "b"], rows(7, 8), seq=1, step=1, time_ms=times(2))
        wait_until(lambda: cache._space == "next", "the switch")

    reader.before_answer = overtake

    batch = cache.get_many(["a", "b"])

    assert batch.versions.space == "next"
    np.testing.assert_array_equal(batch.matrix[:, 0], [7, 8])


def test_a_full_cache_keeps_what_is_read(redis_client: Redis, reader: Counting) -> None:
    titles = [f"m{row}" for row in range(50)]
    live(redis_client).publish(titles, rows(*range(50)), seq=1, step=1, time_ms=times(50))
    with CachedReader(reader, capacity=10) as cache:
        wait_until(lambda: cache._space)
        for start in range(0, 50, 5):
            batch = cache.get_many(["m0", *titles[start : start + 5]])
            np.testing.assert_array_equal(batch.matrix[:, 0], [0, *range(start, start + 5)])

        assert len(cache) == 10
        assert sum("m0" in asked for asked in reader.asked) < 5
        whole = cache.get_many(titles)  # more than it can hold
        np.testing.assert_array_equal(whole.matrix[:, 0], range(50))
        assert len(cache) <= 10


def test_a_cache_of_nothing_is_refused(redis_client: Redis) -> None:
    with pytest.raises(ValueError, match="capacity 0"):
        CachedReader(redis_client, capacity=0)


class Fake:
    """A Redis in a dict, for a cache whose thread is played by the test."""

    def __init__(self) -> None:
        self.stands: dict[str, tuple[int, float]] = {}

    def get_many(self, titles: list[str]) -> Batch:
        found = [title in self.stands for title in titles]
        seq = [self.stands.get(title, (-1, 0.0))[0] for title in titles]
        values = [self.stands.get(title, (-1, 0.0))[1] for title in titles]
        numbers = np.array(seq, np.int64)
        versions = Versions("main", numbers, numbers.copy(), numbers.copy())
        return Batch(rows(*values).reshape(-1, DIM), np.array(found, np.bool_), versions)


@settings(max_examples=100)
@given(
    st.integers(1, 6),
    st.lists(
        st.one_of(
            st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8),
            st.tuples(st.sampled_from("abcdefgh"), st.floats(-9, 9, width=16), st.booleans()),
        ),
        max_size=30,
    ),
)
def test_any_mix_of_reads_and_publishes_ends_in_what_stands(
    capacity: int, steps: list[Any]
) -> None:
    fake = Fake()
    cache = CachedReader.__new__(CachedReader)
    cache._reader, cache._capacity, cache._max_stale_s = fake, capacity, np.inf
    cache._lock, cache._filling, cache._reads, cache._newer = threading.Lock(), 0, 0, {}
    cache._clear("main", 0)
    cache._heard_at = 0.0

    for seq, step in enumerate(steps, start=1):
        if isinstance(step, list):
            batch, want = cache.get_many(step), fake.get_many(step)
            np.testing.assert_array_equal(batch.matrix, want.matrix)
            np.testing.assert_array_equal(batch.found, want.found)
            np.testing.assert_array_equal(batch.versions.seq, want.versions.seq)
            assert len(cache) <= capacity
        else:
            title, value, gone = step
            if gone:
                fake.stands.pop(title, None)
            else:
                fake.stands[title] = seq, value
            cache._apply(Updates("main", [Update(title, seq, 1, gone)], False), 1.0)


def test_readers_through_a_cache_never_mix_two_spaces(redis_client: Redis) -> None:
    asked = [f"m{row}" for row in range(20)]
    done = threading.Event()
    bad: list[str] = []

    def fill(number: int) -> None:
        publisher = live(redis_client, f"s{number}")
        publisher.publish(asked, rows(*[number] * 20), seq=1, step=1, time_ms=times(20))

    def read(cache: CachedReader) -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            matrix, found, versions = cache.get_many(asked[: 1 + turn % 20])
            if set(np.unique(matrix[found]).tolist()) - {float(versions.space[1:])}:
                bad.append(f"mixed: {np.unique(matrix)} in {versions.space}")

    fill(0)
    with CachedReader(redis_client) as cache:
        threads = [threading.Thread(target=read, args=(cache,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1, 25):
            fill(number)
            if number >= 2:
                spaces.drop(redis_client, f"s{number - 2}")
        done.set()
        for thread in threads:
            thread.join()

    assert bad == []
