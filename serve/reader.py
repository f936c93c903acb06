"""Reads embeddings: what a recommender uses. Needs numpy and redis, and nothing else of ours.

    reader = EmbeddingReader("redis://127.0.0.1:6379/0")
    matrix, found, versions = reader.get_many(["m1", "m2"])

All vectors of one call are of one space, since a key carries its space. The live space is asked for
in the same round trip, *after* the vectors: where it is still the one that we read, it was so while
we read, and nobody had dropped it; else the call is made again.
"""

import math
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from redis import Redis
from redis.exceptions import RedisError

from serve import reading, spaces, vectors
from serve.connection import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    Closing,
    RedisFailed,
    RedisUnreachable,
    call,
    call_all,
    call_many,
    connect,
    translate,
)
from serve.reading import Batch, Live, Versions
from serve.spaces import NoSpace
from serve.topology import address_of, is_cluster
from serve.updates import Follower, Updates

__all__ = ["Batch", "EmbeddingReader", "NoSpace", "Snapshot", "Updates", "Versions"]

ATTEMPTS = 8  # switches in a row that one call bears
_LOT = 512  # titles in one request
FUNCTION_AGAIN_S = 30.0  # a server without our function is asked for it again after so long


class Snapshot(NamedTuple):
    """A whole space: N titles, their names (None: none), vectors (N, dim) and seqs (N,)."""

    space: str
    titles: list[str]
    names: list[str | None]
    matrix: npt.NDArray[np.float32]
    seq: npt.NDArray[np.int64]


class EmbeddingReader(Closing):
    """Reads the live space, or one that is named. Several threads may use one reader.

    Args:
        source: a client, or the URL of a server that is then waited for.
        space: read this one, live or not; none: the live one.
    """

    def __init__(self, source: Redis | str, *, space: str | None = None) -> None:
        self._client: Redis = connect(source) if isinstance(source, str) else source
        self._owns_client = isinstance(source, str)
        self._pinned = None if space is None else vectors.check_space(space)
        self._live: Live | None = None
        # When to try the server-side function (again), monotonic. It cannot span a cluster's slots.
        self._function_from = math.inf if is_cluster(self._client) else 0.0

    @property
    def client(self) -> Redis:
        return self._client

    def space(self) -> str:
        """The id of the space that is read now; raises NoSpace where none is live."""
        return self._learn().space

    def dim(self) -> int:
        """Components of a vector; raises NoSpace where no space is live."""
        return self._learn().dim

    def get_many(self, titles: Sequence[str]) -> Batch:
        """Vectors of N titles, in one round trip.

        Returns:
            matrix: shape (N, dim); a row of zeros for a title that is unknown or retired.
            found: shape (N,).
            versions: the space, and seq, step and time_ms of each.

        Raises:
            NoSpace: no space is live.
            RedisFailed: Redis failed.
        """
        for _ in range(ATTEMPTS):
            live = self._live or self._learn()
            batch = self._ask(live, titles).valid(live, pinned=self._pinned is not None)
            if batch is not None:
                return batch
            self._live = None
        raise RedisFailed(
            f"Redis at {address_of(self._client)}: the live space changed {ATTEMPTS} times "
            "during one read; look for two programs that switch against each other"
        )

    def names(self, titles: Sequence[str]) -> list[str | None]:
        """The names of N titles; None where there is none."""
        prefix = vectors.title_prefix(self.space())
        raws = call_all(self._client, [("HGET", prefix + title, "name") for title in titles])
        return [None if raw is None else raw.decode() for raw in raws]

    def all(self) -> tuple[list[str], npt.NDArray[np.float32]]:
        """Every title of the space, in order, and the vectors as rows, shape (N, dim)."""
        snapshot = self.snapshot()
        return snapshot.titles, snapshot.matrix

    def snapshot(self) -> Snapshot:
        """The whole space, in the order of its titles.

        Read title by title while others write: each vector stood there at some moment of this call.
        """
        live = self._learn()
        prefix = vectors.title_prefix(live.space).encode()
        rows: dict[bytes, tuple[bytes, bytes, bytes | None]] = {}
        for keys in spaces.scan(self._client, live.space):
            for start in range(0, len(keys), _LOT):
                lot = keys[start : start + _LOT]
                hashes = call_all(self._client, [("HMGET", k, "vec", "seq", "name") for k in lot])
                for key, (vec, seq, name) in zip(lot, hashes, strict=True):
                    if vec is not None:
                        rows[key[len(prefix) :]] = vec, seq, name
        ordered = sorted(rows)
        matrix, _ = vectors.decode_rows([rows[key][0] for key in ordered], live.dim)
        return Snapshot(
            live.space,
            [key.decode() for key in ordered],
            [None if (name := rows[key][2]) is None else name.decode() for key in ordered],
            matrix,
            np.array([int(rows[key][1]) for key in ordered], np.int64),
        )

    def follow(
        self, *, block_s: float = 0.5, from_start: bool = False, patience_s: float = 60.0
    ) -> Iterator[Updates]:
        """What is published from now on, for ever; every `block_s` seconds at the latest, a lot.

        The first lot says `reset`, as does one after a switch, a flush or a broken connection: what
        was read before is void.

        Args:
            block_s: longest wait for something new; a lot may be empty.
            from_start: begin with the oldest update that is left.
            patience_s: how long to bear an unreachable Redis.

        Raises:
            RedisUnreachable: nobody answered for `patience_s` seconds.
            RedisFailed: Redis failed otherwise.
        """
        follower = self.follower(from_start=from_start)
        lost_at: float | None = None
        pause = FIRST_PAUSE_S
        while True:
            try:
                lot = follower.poll(block_s)
            except RedisUnreachable:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() + pause > lost_at + patience_s:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            lost_at, pause = None, FIRST_PAUSE_S
            yield lot
            if not lot.space:  # none is live yet: `poll` did not wait
                time.sleep(min(block_s, FIRST_PAUSE_S))

    def follower(self, *, from_start: bool = False) -> Follower:
        """The same, to be polled by the caller."""
        return Follower(self._client, space=self._pinned, from_start=from_start)

    def close(self) -> None:
        """Give the connection back, where it is ours."""
        if self._owns_client:
            self._client.close()

    def _learn(self) -> Live:
        """Ask which space is to be read, and what it holds."""
        for _ in range(ATTEMPTS):
            space = self._pinned or spaces.current(self._client)
            if space is None:
                raise NoSpace(
                    f"no embedding space is live at {address_of(self._client)}; "
                    "start a worker, or look with: upwell spaces list"
                )
            meta = call(self._client, "HMGET", vectors.meta_key(space), "epoch", "dim")
            live = reading.live_of(space, meta)
            if live is not None:
                self._live = live
                return live
            if self._pinned:
                break
        raise NoSpace(
            f"space {space!r} does not stand at {address_of(self._client)}; "
            "`upwell spaces list` shows all"
        )

    def _ask(self, live: Live, titles: Sequence[str]) -> reading.Answer:
        if time.monotonic() >= self._function_from:
            try:
                reply = call(self._client, *reading.one_command(live, titles))
            except RedisUnreachable:
                raise
            except RedisFailed:  # not granted, another version's, or not brought by a publisher yet
                self._function_from = time.monotonic() + FUNCTION_AGAIN_S
            else:
                answer = reading.parse_one(reply, live, len(titles))
                if answer is not None:
                    return answer
        *of_space, of_current = reading.plain_commands(live, titles)
        if is_cluster(self._client):  # answers of two nodes come in no order: so, one after another
            answers = call_many(self._client, of_space)
            answers += call_many(self._client, [of_current])
        else:
            answers = call_many(self._client, [*of_space, of_current])
        for failed in answers:
            if isinstance(failed, RedisError):
                raise translate(failed, address_of(self._client))
        return reading.parse_plain(answers, live)
