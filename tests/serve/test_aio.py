"""The asyncio reader gives what the other one gives."""

import asyncio

import numpy as np
import pytest
from redis import Redis

from serve import spaces
from serve.aio import AsyncEmbeddingReader
from serve.connection import RedisUnreachable
from serve.reader import EmbeddingReader
from serve.spaces import NoSpace
from streams.embedded import free_port
from tests.serve.library import live, put, rows, times


@pytest.mark.parametrize("function_from", [0.0, float("inf")], ids=["function", "plain"])
def test_both_readers_agree(redis_url: str, redis_client: Redis, function_from: float) -> None:
    publisher = live(redis_client)
    publisher.publish(
        ["a", "b", "c"], rows(1, 2, 3), seq=1, step=2, time_ms=times(3), names=["A", None, "C"]
    )
    publisher.retire(["c"], seq=2, time_ms=1)
    asked = ["c", "b", "?", "a", "a"]
    want = EmbeddingReader(redis_client).get_many(asked)

    async def read() -> None:
        async with AsyncEmbeddingReader(redis_url) as reader:
            reader._function_from = function_from
            many = await asyncio.gather(*[reader.get_many(asked) for _ in range(5)])
            for batch in many:
                np.testing.assert_array_equal(batch.matrix, want.matrix)
                np.testing.assert_array_equal(batch.found, want.found)
                np.testing.assert_array_equal(batch.versions.seq, want.versions.seq)
            assert await reader.names(asked) == [None, None, None, "A", "A"]
            assert await reader.space() == "main"
            assert (await reader.get_many([])).matrix.shape == (0, 3)

    asyncio.run(read())


def test_it_goes_with_a_switch_unless_its_space_is_named(
    redis_url: str, redis_client: Redis
) -> None:
    put(live(redis_client, "a"), "m", 1.0, 1)

    async def read() -> None:
        async with (
            AsyncEmbeddingReader(redis_url) as reader,
            AsyncEmbeddingReader(redis_url, space="a") as pinned,
        ):
            assert (await reader.get_many(["m"])).matrix[0, 0] == 1
            put(live(redis_client, "b"), "m", 2.0, 1)
            assert (await reader.get_many(["m"])).matrix[0, 0] == 2
            assert (await pinned.get_many(["m"])).matrix[0, 0] == 1
            spaces.drop(redis_client, "a")
            with pytest.raises(NoSpace, match="'a' does not stand"):
                await pinned.get_many(["m"])

    asyncio.run(read())


def test_errors_are_those_of_the_other_reader(redis_url: str, redis_client: Redis) -> None:
    async def read() -> None:
        async with AsyncEmbeddingReader(redis_url) as reader:
            with pytest.raises(NoSpace, match="start a worker"):
                await reader.get_many(["m"])
        port = free_port()
        async with AsyncEmbeddingReader(f"redis://127.0.0.1:{port}", retries=0) as reader:
            with pytest.raises(RedisUnreachable, match=str(port)):
                await reader.get_many(["m"])

    asyncio.run(read())


def test_a_vector_of_a_wrong_length_is_an_error(redis_url: str, redis_client: Redis) -> None:
    put(live(redis_client), "m", 1.0, 1)
    redis_client.hset("upwell:main:t:m", "vec", b"short")

    async def read() -> None:
        async with AsyncEmbeddingReader(redis_url) as reader:
            await reader.get_many(["m"])

    with pytest.raises(ValueError, match="has 5 bytes"):
        asyncio.run(read())
