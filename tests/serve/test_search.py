"""Search by the server: against those that can, and the fallback for the one of the wheel.

Set TEST_REDIS_SERVER to a Redis 8 binary for vector sets, and TEST_REDISEARCH to a redisearch.so
for search indices; without them, those tests are skipped.
"""

import os
from collections.abc import Iterator

import numpy as np
import pytest
from redis import Redis

from serve import search, spaces
from serve.connection import connect
from serve.publisher import Publisher
from serve.reader import EmbeddingReader
from serve.similar import SimilarTitles, UnknownTitle, similar_titles
from streams.embedded import RedisServer
from tests.serve.library import times
from tests.servers import redis_binary, wait_until

DIM = 16
COUNT = 200


@pytest.fixture(params=[search.VSET, search.FT])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server that can search in one way or the other."""
    module = os.environ.get("TEST_REDISEARCH")
    if redis_binary() is None or (request.param == search.FT and not module):
        pytest.skip("set TEST_REDIS_SERVER, and for FT TEST_REDISEARCH, to files that can search")
    arguments = ["--loadmodule", str(module)] if request.param == search.FT else []
    with RedisServer(binary=redis_binary(), arguments=arguments) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Redis]:
    client = connect(server.url)
    yield client
    client.close()


def filled(client: Redis, space: str = "main", *, index: bool = True) -> Publisher:
    """A live space of random vectors, some with names."""
    publisher = Publisher(client, space)
    publisher.create_space(DIM, index=index)
    matrix = np.random.default_rng(0).standard_normal((COUNT, DIM)).astype(np.float32)
    titles = [f"m {row}" for row in range(COUNT)]
    names = [f"Film {row} (1995)" if row else "Toy Story (1995)" for row in range(COUNT)]
    publisher.publish(titles, matrix, seq=1, step=1, time_ms=times(COUNT), names=names)
    publisher.switch()
    return publisher


def test_the_server_finds_what_an_exact_search_finds(client: Redis) -> None:
    filled(client)
    exact = SimilarTitles(client)
    hits = 0

    for query in ("m 0", "m 17", "m 99"):
        wait_until(lambda query=query: len(similar_titles(client, query, 10)) == 10)
        found = similar_titles(client, query, 10)
        want = {one.title: one for one in exact.similar(query, 10)}
        hits += sum(one.title in want for one in found)
        for one in found:
            if one.title in want:
                assert one.score == pytest.approx(want[one.title].score, abs=1e-4)
                assert one.name == want[one.title].name
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)

    assert hits >= 27  # of 30: the server's search is approximate


def test_names_are_found_as_by_the_local_copy(client: Redis) -> None:
    filled(client)

    by_id = similar_titles(client, "m 0", 3)

    assert similar_titles(client, "toy  STORY", 3)[0].title == by_id[0].title
    assert similar_titles(client, "Toy Story (1995)", 3)[0].title == by_id[0].title
    with pytest.raises(UnknownTitle, match=r"Toy Story \(1995\)"):
        similar_titles(client, "Toy Stori", 3)


def test_retired_and_moved_titles_are_followed(client: Redis) -> None:
    publisher = filled(client)
    near = similar_titles(client, "m 0", 1)[0].title
    publisher.retire([near], seq=2, time_ms=1)
    vector = EmbeddingReader(client).get_many(["m 0"]).matrix
    publisher.publish(["m 50"], vector, seq=3, step=1, time_ms=times(1))

    wait_until(lambda: similar_titles(client, "m 0", 5)[0].title == "m 50")

    assert near not in {one.title for one in similar_titles(client, "m 0", COUNT)}
    assert publisher.publish(["m 50"], vector, seq=1, step=1, time_ms=times(1)).stale == 1


def test_an_index_goes_with_its_space_and_comes_back_with_it(client: Redis) -> None:
    filled(client)
    filled(client, "next", index=False)
    space = spaces.get_space(client, "main")
    assert space is not None
    assert space.search == search.supported(client)

    spaces.drop(client, "main")
    assert [key for key in client.scan_iter() if b":main:" in key] == []
    if space.search == search.FT:
        assert client.execute_command("FT._LIST") == []

    client.flushall()
    filled(client)
    wait_until(lambda: len(similar_titles(client, "m 0", 5)) == 5)


@pytest.mark.parametrize("index", [False, redis_binary() is None])
def test_without_an_index_a_local_copy_is_searched(redis_client: Redis, index: bool) -> None:
    filled(redis_client, index=index)
    space = spaces.get_space(redis_client, "main")

    assert space is not None
    assert space.search == search.NONE
    assert len(similar_titles(redis_client, "toy story", 5)) == 5
