"""The reader for asyncio: the same answers as `EmbeddingReader`, without blocking the loop.

    async with AsyncEmbeddingReader("redis://127.0.0.1:6379/0") as reader:
        matrix, found, versions = await reader.get_many(["m1", "m2"])

Asks and understands by serve/reading.py, as the other reader does. One task or many may use it.
"""

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import EqualJitterBackoff
from redis.exceptions import RedisError

from serve import reading, vectors
from serve.connection import RedisFailed, RedisUnreachable, translate
from serve.reader import ATTEMPTS, FUNCTION_AGAIN_S
from serve.reading import Batch, Live
from serve.spaces import NoSpace
from serve.topology import address


class AsyncEmbeddingReader:
    """Reads the live space, or one that is named.

    Args:
        url: redis://[user:password@]host:port/db; rediss:// for TLS.
        space: read this one, live or not; none: the live one.
        timeout_s: longest wait for one reply, and for a connection.
        retries: further tries of a call, with growing pauses.
        options: of `redis.asyncio.Redis`.
    """

    def __init__(
        self,
        url: str,
        *,
        space: str | None = None,
        timeout_s: float = 2.0,
        retries: int = 3,
        **options: Any,
    ) -> None:
        self._where = address(url)
        self._client: Redis = Redis.from_url(
            url,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(EqualJitterBackoff(cap=1.0, base=0.05), retries),
            **options,
        )
        self._pinned = None if space is None else vectors.check_space(space)
        self._live: Live | None = None
        self._function_from = 0.0

    async def space(self) -> str:
        """The id of the space that is read now; raises NoSpace where none is live."""
        return (await self._learn()).space

    async def get_many(self, titles: Sequence[str]) -> Batch:
        """As `EmbeddingReader.get_many`."""
        for _ in range(ATTEMPTS):
            live = self._live or await self._learn()
            answer = await self._ask(live, titles)
            batch = answer.valid(live, pinned=self._pinned is not None)
            if batch is not None:
                return batch
            self._live = None
        raise RedisFailed(
            f"Redis at {self._where}: the live space changed {ATTEMPTS} times during one read"
        )

    async def names(self, titles: Sequence[str]) -> list[str | None]:
        """The names of N titles; None where there is none."""
        prefix = vectors.title_prefix(await self.space())
        raws = await self._call_all([("HGET", prefix + title, "name") for title in titles])
        return [None if raw is None else raw.decode() for raw in raws]

    async def close(self) -> None:
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _learn(self) -> Live:
        for _ in range(ATTEMPTS):
            raw = None if self._pinned else await self._call("GET", vectors.CURRENT)
            space = self._pinned or ("" if raw is None else raw.decode())
            if not space:
                raise NoSpace(f"no embedding space is live at {self._where}; start a worker")
            meta = await self._call("HMGET", vectors.meta_key(space), "epoch", "dim")
            live = reading.live_of(space, meta)
            if live is not None:
                self._live = live
                return live
            if self._pinned:
                break
        raise NoSpace(f"space {space!r} does not stand at {self._where}")

    async def _ask(self, live: Live, titles: Sequence[str]) -> reading.Answer:
        if time.monotonic() >= self._function_from:
            try:
                reply = await self._call(*reading.one_command(live, titles))
            except RedisUnreachable:
                raise
            except RedisFailed:
                self._function_from = time.monotonic() + FUNCTION_AGAIN_S
            else:
                answer = reading.parse_one(reply, live, len(titles))
                if answer is not None:
                    return answer
        return reading.parse_plain(await self._call_all(reading.plain_commands(live, titles)), live)

    async def _call(self, *command: Any) -> Any:
        try:
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        except RedisError as error:
            raise translate(error, self._where) from error

    async def _call_all(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                answers: list[Any] = await pipe.execute(raise_on_error=False)
        except RedisError as error:
            raise translate(error, self._where) from error
        for answer in answers:
            if isinstance(answer, RedisError):
                raise translate(answer, self._where)
        return answers
