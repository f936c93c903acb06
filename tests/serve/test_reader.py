"""The reader, against a real server: whole batches of one space, and updates that miss nothing."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from serve import spaces, vectors
from serve.connection import RedisUnreachable, connect
from serve.publisher import Publisher
from serve.reader import EmbeddingReader
from serve.spaces import NoSpace
from serve.updates import BATCH, Update
from streams.embedded import RedisServer, free_port
from tests.serve.library import DIM, live, made, put, rows, times
from tests.servers import redis_binary


@pytest.fixture(params=["function", "plain"])
def reader(request: pytest.FixtureRequest, redis_client: Redis) -> EmbeddingReader:
    """Both ways to ask: the server's function, and plain commands."""
    made_now = EmbeddingReader(redis_client)
    if request.param == "plain":
        made_now._function_from = float("inf")
    return made_now


def test_vectors_come_in_the_order_asked_with_their_versions(
    redis_client: Redis, reader: EmbeddingReader
) -> None:
    publisher = live(redis_client)
    publisher.publish(["a", "b"], rows(1, 2), seq=4, step=7, time_ms=times(2, 99))
    publisher.publish(["c"], rows(3), seq=5, step=8, time_ms=times(1, 100))

    matrix, found, versions = reader.get_many(["c", "missing", "a", "c"])

    np.testing.assert_array_equal(matrix, [[3] * DIM, [0] * DIM, [1] * DIM, [3] * DIM])
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(found, [True, False, True, True])
    np.testing.assert_array_equal(versions.seq, [5, -1, 4, 5])
    np.testing.assert_array_equal(versions.step, [8, -1, 7, 8])
    np.testing.assert_array_equal(versions.time_ms, [100, -1, 99, 100])
    assert versions.space == "main"


def test_a_retired_title_is_not_found(redis_client: Redis, reader: EmbeddingReader) -> None:
    publisher = live(redis_client)
    put(publisher, "a", 1.0, 1)
    publisher.retire(["a"], seq=2, time_ms=1)

    assert reader.get_many(["a"]).found.tolist() == [False]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_titles_that_are_all_unknown_or_none_at_all_are_no_error(
    redis_client: Redis, reader: EmbeddingReader, count: int
) -> None:
    live(redis_client)

    matrix, found, versions = reader.get_many(["?"] * count)

    assert matrix.shape == (count, DIM)
    assert found.tolist() == [False] * count
    assert versions.seq.tolist() == [-1] * count


def test_no_live_space_is_an_error_with_a_remedy(
    redis_client: Redis, reader: EmbeddingReader
) -> None:
    with pytest.raises(NoSpace, match="start a worker"):
        reader.get_many(["a"])
    made(redis_client)
    with pytest.raises(NoSpace):
        reader.space()


def test_a_reader_goes_with_a_switch_and_one_of_a_named_space_does_not(
    redis_client: Redis, reader: EmbeddingReader
) -> None:
    put(live(redis_client, "a"), "m", 1.0, 1)
    pinned = EmbeddingReader(redis_client, space="a")
    assert (reader.space(), reader.get_many(["m"]).matrix[0, 0]) == ("a", 1)

    put(live(redis_client, "b"), "m", 2.0, 1)

    assert reader.get_many(["m"]).matrix[0, 0] == 2
    assert reader.space() == "b"
    assert pinned.get_many(["m"]).matrix[0, 0] == 1
    spaces.drop(redis_client, "a")
    with pytest.raises(NoSpace, match="'a' does not stand"):
        pinned.get_many(["m"])


def test_a_space_that_was_made_anew_with_another_dim_is_noticed(
    redis_client: Redis, reader: EmbeddingReader
) -> None:
    put(live(redis_client), "m", 1.0, 1)
    reader.get_many(["m"])
    redis_client.flushall()

    publisher = Publisher(redis_client, "main")
    publisher.create_space(DIM + 1)
    publisher.publish(["m"], np.ones((1, DIM + 1), np.float32), seq=1, step=1, time_ms=times(1))
    publisher.switch()

    assert reader.get_many(["m"]).matrix.shape == (1, DIM + 1)
    assert reader.dim() == DIM + 1


def test_a_vector_of_a_wrong_length_is_an_error_that_says_so(
    redis_client: Redis, reader: EmbeddingReader
) -> None:
    put(live(redis_client), "m", 1.0, 1)
    redis_client.hset("upwell:main:t:m", "vec", b"short")

    with pytest.raises(ValueError, match="has 5 bytes"):
        reader.get_many(["m"])


def test_names_come_for_those_who_have_one(redis_client: Redis, reader: EmbeddingReader) -> None:
    live(redis_client).publish(
        ["a", "b"], rows(1, 2), seq=1, step=1, time_ms=times(2), names=["Heat", None]
    )

    assert reader.names(["b", "a", "?"]) == [None, "Heat", None]


def test_all_is_the_whole_space_and_nothing_else(
    redis_client: Redis, reader: EmbeddingReader
) -> None:
    put(live(redis_client, "other"), "elsewhere", 1.0, 1)
    publisher = live(redis_client)
    titles = [f"m{row:04}" for row in range(1500)]
    publisher.publish(titles, rows(*range(1500)), seq=1, step=1, time_ms=times(1500))
    publisher.retire(["m0003"], seq=2, time_ms=1)

    found, matrix = reader.all()

    assert found == titles[:3] + titles[4:]
    np.testing.assert_array_equal(matrix[:, 0], [*range(3), *range(4, 1500)])


titles = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@settings(max_examples=50)
@given(st.dictionaries(titles, st.floats(-1e6, 1e6, width=32), max_size=12), st.data())
def test_both_ways_to_ask_agree_for_any_title(
    redis_server: RedisServer, known: dict[str, float], data: st.DataObject
) -> None:
    client = connect(redis_server.url)
    client.flushall()
    publisher = live(client)
    publisher.publish(list(known), rows(*known.values()), seq=1, step=1, time_ms=times(len(known)))
    asked = data.draw(st.lists(st.sampled_from([*known, "unknown \n 1 2 3"]), max_size=20))
    by_function, plain = EmbeddingReader(client), EmbeddingReader(client)
    plain._function_from = float("inf")

    first, second = by_function.get_many(asked), plain.get_many(asked)

    assert by_function._function_from == 0  # it was really used
    np.testing.assert_array_equal(first.matrix, second.matrix)
    np.testing.assert_array_equal(first.found, second.found)
    for mine, other in zip(first.versions, second.versions, strict=True):
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(
        first.matrix[:, 0], np.array([known.get(title, 0) for title in asked], np.float32)
    )
    assert sorted(by_function.all()[0], key=str.encode) == sorted(known, key=str.encode)
    client.close()


def test_readers_never_mix_two_spaces_nor_miss_a_title(
    redis_server: RedisServer, redis_client: Redis
) -> None:
    """While spaces are filled, switched and dropped, each batch is of one, and whole."""
    asked = [f"m{row}" for row in range(50)]
    done = threading.Event()
    bad: list[str] = []
    batches = itertools.count()

    def fill(number: int) -> None:
        publisher = made(redis_client, f"s{number}")
        publisher.publish(asked, rows(*[number] * 50), seq=1, step=1, time_ms=times(50))
        publisher.switch()

    def read(plain: bool) -> None:
        with EmbeddingReader(redis_server.url) as reader:
            reader._function_from = float("inf") if plain else 0.0
            while not done.is_set():
                matrix, found, versions = reader.get_many(asked)
                next(batches)
                if not found.all():
                    bad.append(f"{int((~found).sum())} missed in {versions.space}")
                if set(np.unique(matrix).tolist()) != {float(versions.space[1:])}:
                    bad.append(f"mixed: {np.unique(matrix)} in {versions.space}")

    fill(0)
    readers = [threading.Thread(target=read, args=(turn % 2 == 0,)) for turn in range(4)]
    for thread in readers:
        thread.start()
    for number in range(1, 40):
        fill(number)
        spaces.drop(redis_client, f"s{number - 1}")
    done.set()
    for thread in readers:
        thread.join()

    assert bad == []
    assert next(batches) > 40


def test_updates_come_in_order_after_a_reset(redis_client: Redis) -> None:
    publisher = live(redis_client)
    put(publisher, "before", 1.0, 1)
    follower = EmbeddingReader(redis_client).follower()

    assert follower.poll() == ("main", [], True)
    publisher.publish(["a", "b"], rows(1, 2), seq=2, step=1, time_ms=times(2, 50))
    publisher.retire(["a"], seq=3, time_ms=51)

    assert follower.poll() == (
        "main",
        [
            Update("a", 2, 50, gone=False),
            Update("b", 2, 50, gone=False),
            Update("a", 3, 51, gone=True),
        ],
        False,
    )
    assert follower.poll(block_s=0.01) == ("main", [], False)


def test_from_the_start_means_the_oldest_update_that_is_left(redis_client: Redis) -> None:
    put(live(redis_client), "before", 1.0, 1)
    follower = EmbeddingReader(redis_client).follower(from_start=True)

    assert follower.poll().reset
    assert [update.title for update in follower.poll().updates] == ["before"]


def test_a_blocked_follower_wakes_with_the_write(redis_server: RedisServer) -> None:
    client = connect(redis_server.url)
    client.flushall()
    publisher = live(client)
    lots = EmbeddingReader(redis_server.url).follow(block_s=1.0)
    assert next(lots).reset
    timer = threading.Timer(0.05, put, args=(publisher, "a", 1.0, 1))
    timer.start()

    assert [update.title for update in next(lots).updates] == ["a"]

    timer.join()
    client.close()


def test_a_switch_resets_a_follower(redis_client: Redis) -> None:
    live(redis_client, "a")
    follower = EmbeddingReader(redis_client).follower()
    follower.poll()

    put(live(redis_client, "b"), "m", 1.0, 1)

    assert follower.poll() == ("b", [], True)
    assert follower.poll() == ("b", [], False)


def test_a_flush_and_a_refill_reset_a_follower(redis_client: Redis) -> None:
    put(live(redis_client), "m", 1.0, 1)
    follower = EmbeddingReader(redis_client).follower()
    follower.poll()

    redis_client.flushall()
    assert follower.poll() == ("", [], True)
    assert follower.poll() == ("", [], True)
    put(live(redis_client), "m", 1.0, 1)

    assert follower.poll() == ("main", [], True)


def test_a_server_that_was_set_back_resets_a_follower(redis_client: Redis) -> None:
    publisher = live(redis_client)
    put(publisher, "m", 1.0, 1)
    dump = redis_client.dump("upwell:main:meta")
    put(publisher, "m", 2.0, 2)
    follower = EmbeddingReader(redis_client).follower()
    follower.poll()

    redis_client.restore("upwell:main:meta", 0, dump, replace=True)

    assert follower.poll().reset


def test_a_follower_that_the_stream_has_left_behind_is_reset(redis_client: Redis) -> None:
    publisher = Publisher(redis_client, "main", updates_kept=2 * BATCH)
    publisher.create_space(DIM)
    publisher.switch()
    follower = EmbeddingReader(redis_client).follower()
    put(publisher, "first", 1.0, 1)
    follower.poll()
    names = [f"m{row}" for row in range(BATCH)]

    for seq in range(2, 6):
        publisher.publish(names, rows(*[seq] * BATCH), seq=seq, step=1, time_ms=times(BATCH))

    assert follower.poll() == ("main", [], True)
    assert follower.poll() == ("main", [], False)


def test_many_updates_come_in_several_lots_and_none_is_missed(redis_client: Redis) -> None:
    publisher = live(redis_client)
    follower = EmbeddingReader(redis_client).follower()
    put(publisher, "first", 1.0, 1)
    follower.poll()
    count = 2 * BATCH + 7
    names = [f"m{row}" for row in range(count)]
    publisher.publish(names, rows(*range(count)), seq=2, step=1, time_ms=times(count))

    lots = [follower.poll() for _ in range(4)]

    assert not any(lot.reset for lot in lots)
    assert [update.title for lot in lots for update in lot.updates] == names


def test_followers_bear_an_outage_and_say_reset_after_it() -> None:
    with RedisServer(binary=redis_binary()) as server:
        client = connect(server.url, retries=0)
        live(client)
        lots = EmbeddingReader(client).follow(block_s=0.01, patience_s=20)
        next(lots)

        server.stop()
        back = threading.Timer(0.3, server.start)
        back.start()

        assert next(lots) == ("", [], True)  # it kept nothing on disk
        back.join()
        client.close()


def test_an_outage_that_lasts_is_an_error() -> None:
    client = Redis(port=free_port(), retry=Retry(NoBackoff(), 0))
    lots = EmbeddingReader(client).follow(patience_s=0.1)

    with pytest.raises(RedisUnreachable, match="no answer"):
        next(lots)


def test_a_follower_of_a_dead_space_key_waits(redis_client: Redis) -> None:
    redis_client.set(vectors.CURRENT, "ghost")
    follower = EmbeddingReader(redis_client).follower()

    assert follower.poll() == ("", [], True)
