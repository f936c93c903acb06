"""How vectors get into the server: whole chunks in one call, or, in a cluster, title by title.

Both compare and set inside the server (server.lua). On one server a chunk's titles, its updates and
the space's counters are one call, so that nobody sees a part of it. In a cluster they lie in
different slots, which no call can span: there each title is written by itself, its update is told
after it, and the counters come last. Who dies in between leaves vectors that were not told of; to
publish them again mends that, which a restarted worker does.
"""

import contextlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from serve import search, vectors
from serve.connection import RedisFailed, SpaceLost, call_many, call_stream, translate
from serve.script import Command, ServerScript, is_missing
from serve.topology import address_of, is_cluster

CHUNK = 128  # titles in one call: the server does nothing else for about a millisecond
UNDER_WAY = 8  # calls sent before the first answer is read
SINGLES = 1024  # single titles sent before the first answer is read


@dataclass(frozen=True, slots=True)
class Filling:
    """What a publisher knows of its space: which filling, and the highest seq that it wrote."""

    epoch: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """N titles to be written.

    keys: of their hashes, in UTF-8. blob: N vectors of `width` bytes, one after the other.
    times, names: N texts; names is None for none, and "" for one that is to stay as it is.
    """

    keys: list[bytes]
    blob: memoryview
    width: int
    times: list[str]
    names: list[str] | None
    seq: int
    step: int


class Writer(ABC):
    """Writes to one space; `search_kind` as in its meta. All methods raise SpaceLost, RedisFailed.

    `put` and `retire` return the rows that stand with a newer seq, and were left as they are.
    """

    def __init__(
        self, client: Redis, space: str, search_kind: str, *, updates_kept: int, mark_s: int
    ) -> None:
        self._client = client
        self._space = space
        self._meta = vectors.meta_key(space)
        self._updates = vectors.updates_key(space)
        self._vset = [search.vset_key(space)] if search_kind == search.VSET else []
        self._prefix = len(vectors.title_prefix(space))
        self._updates_kept = updates_kept
        self._mark_s = mark_s
        self._script = ServerScript(client)

    @abstractmethod
    def put(self, parcel: Parcel, filling: Filling) -> list[int]:
        """Write vectors."""

    @abstractmethod
    def retire(self, keys: list[bytes], seq: int, time_ms: int, filling: Filling) -> list[int]:
        """Take titles away, and mark them."""

    def note(self, epoch: str, field: str, value: int | str) -> None:
        """Set a field of the space's meta."""
        self._send([self._script.command("note", [self._meta], [epoch, field, value])])

    def _send(self, commands: Sequence[Command], *, again: bool = True) -> list[Any]:
        answers = call_many(self._client, commands)
        failed = [answer for answer in answers if isinstance(answer, RedisError)]
        if again and failed and all(is_missing(error) for error in failed):
            self._script.load()
            return self._send(commands, again=False)
        if failed:
            raise self._explain(failed[0])
        return answers

    def _explain(self, error: RedisError) -> RedisFailed:
        where = address_of(self._client)
        _, lost, why = str(error).partition("UPWELLLOST ")
        if lost:
            return SpaceLost(
                f"Redis at {where}, space {self._space!r}: {why}; publish every title again"
            )
        return translate(error, where)


class ChunkWriter(Writer):
    """For one server, or the primary behind sentinels: one call a chunk."""

    def put(self, parcel: Parcel, filling: Filling) -> list[int]:
        def commands() -> Iterator[Command]:
            for start in range(0, len(parcel.keys), CHUNK):
                end = min(start + CHUNK, len(parcel.keys))
                names = parcel.names[start:end] if parcel.names else []
                yield self._script.command(
                    "put",
                    [*parcel.keys[start:end], self._updates, self._meta, *self._vset],
                    [
                        *self._head(end - start, parcel.seq, filling),
                        parcel.step,
                        parcel.width,
                        parcel.blob[start * parcel.width : end * parcel.width],
                        " ".join(parcel.times[start:end]),  # one long argument is cheaper than many
                        "".join(f"{name}\0" for name in names),
                    ],
                )

        return self._run(commands)

    def retire(self, keys: list[bytes], seq: int, time_ms: int, filling: Filling) -> list[int]:
        def commands() -> Iterator[Command]:
            for start in range(0, len(keys), CHUNK):
                part = keys[start : start + CHUNK]
                yield self._script.command(
                    "retire",
                    [*part, self._updates, self._meta, *self._vset],
                    [*self._head(len(part), seq, filling), time_ms, self._mark_s],
                )

        return self._run(commands)

    def _head(self, count: int, seq: int, filling: Filling) -> list[Any]:
        known = (filling.epoch, filling.last_seq)
        return [count, self._prefix, self._updates_kept, *known, seq]

    def _run(self, commands: Callable[[], Iterator[Command]], *, again: bool = True) -> list[int]:
        stale: list[int] = []
        with contextlib.closing(
            call_stream(self._client, commands(), under_way=UNDER_WAY)
        ) as answers:
            for chunk, answer in enumerate(answers):
                if again and isinstance(answer, RedisError) and is_missing(answer):
                    break
                if isinstance(answer, RedisError):
                    raise self._explain(answer)
                stale += [chunk * CHUNK + position - 1 for position in answer]
            else:
                return stale
        self._script.load()
        return self._run(commands, again=False)


class SlotWriter(Writer):
    """For a cluster: a call a title, then its update, then the counters."""

    def put(self, parcel: Parcel, filling: Filling) -> list[int]:
        def command(row: int) -> Command:
            vector = parcel.blob[row * parcel.width : (row + 1) * parcel.width]
            name = parcel.names[row] if parcel.names else ""
            args = [parcel.seq, parcel.step, vector, parcel.times[row], name]
            return self._script.command("put_one", [parcel.keys[row]], args)

        commands = (command(row) for row in range(len(parcel.keys)))
        tail = [["seq", parcel.seq, "time_ms", time] for time in parcel.times]
        return self._write(parcel.keys, commands, tail, parcel.seq, parcel.step, filling)

    def retire(self, keys: list[bytes], seq: int, time_ms: int, filling: Filling) -> list[int]:
        args = [seq, time_ms, self._mark_s]
        commands = (self._script.command("retire_one", [key], args) for key in keys)
        tail = [["seq", seq, "time_ms", time_ms, "gone", 1]] * len(keys)
        return self._write(keys, commands, tail, seq, "", filling)

    def _write(
        self,
        keys: list[bytes],
        commands: Iterator[Command],
        tails: list[list[Any]],
        seq: int,
        step: int | str,
        filling: Filling,
    ) -> list[int]:
        if not keys:
            return []
        known = [filling.epoch, filling.last_seq]
        self._send([self._script.command("record", [self._meta], [*known, 0, ""])])
        stale: list[int] = []
        row = 0
        while batch := list(itertools.islice(commands, SINGLES)):
            written = self._send(batch)
            stale += [row + offset for offset, done in enumerate(written) if not done]
            bound = ("MAXLEN", "~", self._updates_kept, "*")
            told = [
                ("XADD", self._updates, *bound, "title", keys[at][self._prefix :], *tails[at])
                for at, done in enumerate(written, start=row)
                if done
            ]
            self._send(told)
            row += len(batch)
        self._send([self._script.command("record", [self._meta], [*known, seq, step])])
        return stale


def writer(
    client: Redis, space: str, search_kind: str, *, updates_kept: int, mark_s: int
) -> Writer:
    """The writer that suits what `client` speaks with."""
    kind = SlotWriter if is_cluster(client) else ChunkWriter
    return kind(client, space, search_kind, updates_kept=updates_kept, mark_s=mark_s)
