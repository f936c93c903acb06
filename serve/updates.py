"""Follows what is published: which titles changed, and when all that was known is void.

A space's updates stream is trimmed, a space can be switched, Redis flushed or restored. A follower
turns each of these into one word, `reset`: forget what you have, and read again. What it returns
after that is complete: whoever applies it holds what stands in Redis, a moment ago.
"""

from typing import Any, NamedTuple

from redis import Redis

from serve import vectors
from serve.connection import RedisFailed, call, call_all

BATCH = 5_000  # entries read at once
_NOWHERE = b"0-0"  # before every entry
LONGEST_BLOCK_S = 1.0  # below every socket timeout that makes sense


class Update(NamedTuple):
    """A title was published with this `seq`, or retired (`gone`). `time_ms` as in its hash."""

    title: str
    seq: int
    time_ms: int
    gone: bool


class Updates(NamedTuple):
    """What is new.

    space: the one that it is about; "" while none is live.
    updates: in the order in which they were written.
    reset: what was read before is void; it comes without updates.
    """

    space: str
    updates: list[Update]
    reset: bool


class Mark(NamedTuple):
    """How far a space was followed: its filling, the highest seq, the last entry of the stream."""

    space: str
    epoch: bytes
    seq: int
    position: bytes


class Follower:
    """Reads the live space's updates, a lot at a time, and goes with a switch. One thread.

    Args:
        space: follow this one, live or not; none: the live one.
        from_start: begin with the oldest entry that is left, not with what comes next.
    """

    def __init__(
        self, client: Redis, *, space: str | None = None, from_start: bool = False
    ) -> None:
        self._client = client
        self._pinned = space
        self._from_start = from_start
        self._space = ""
        self._epoch: bytes | None = None
        self._seq = 0
        self._position: bytes = _NOWHERE
        self._valid = False
        self._unsure = False  # entries behind our position may have been trimmed

    @property
    def mark(self) -> Mark:
        """Where it is; `resume` goes on from there, in another process too."""
        return Mark(self._space, self._epoch or b"", self._seq, self._position)

    def resume(self, mark: Mark) -> None:
        """Go on from there: the next `poll` says `reset` only where that is not possible."""
        self._space, self._epoch, self._seq, self._position = mark
        self._valid = self._position != _NOWHERE  # of an empty stream nobody knows what it lost
        self._unsure = True

    def poll(self, block_s: float = 0.0) -> Updates:
        """What came since the last call; the first call and one after a failure say `reset`.

        Args:
            block_s: wait up to so long for something new, seconds.

        Raises:
            RedisFailed: Redis failed; another call may go well.
        """
        try:
            return self._poll(block_s) if self._valid else self._begin()
        except RedisFailed:
            self._valid = False
            raise

    def _begin(self) -> Updates:
        space = self._pinned
        if space is None:
            raw = call(self._client, "GET", vectors.CURRENT)
            space = "" if raw is None else raw.decode()
        if not space:
            self._space = ""
            return Updates("", [], reset=True)
        last, (epoch, seq) = call_all(
            self._client,
            [
                ("XREVRANGE", vectors.updates_key(space), "+", "-", "COUNT", 1),
                ("HMGET", vectors.meta_key(space), "epoch", "seq"),
            ],
        )
        self._space, self._epoch, self._seq = space, epoch, int(seq or 0)
        self._position = last[0][0] if last and not self._from_start else _NOWHERE
        self._valid, self._unsure = epoch is not None, False
        return Updates(space if self._valid else "", [], reset=True)

    def _poll(self, block_s: float) -> Updates:
        stream = vectors.updates_key(self._space)
        wait_ms = int(min(block_s, LONGEST_BLOCK_S) * 1000)
        block = ("BLOCK", wait_ms) if wait_ms > 0 else ()  # BLOCK 0 would wait for ever
        answers = call_all(
            self._client,
            [
                ("XREAD", "COUNT", BATCH, *block, "STREAMS", stream, self._position),
                ("HMGET", vectors.meta_key(self._space), "epoch", "seq"),
                ("GET", vectors.CURRENT),
            ],
        )
        entries, (epoch, seq), current = _entries(answers[0]), answers[1], answers[2]
        switched = self._pinned is None and current != self._space.encode()
        if switched or epoch != self._epoch or int(seq or 0) < self._seq:
            return self._begin()
        if (self._unsure or len(entries) == BATCH) and not self._stands():
            return self._begin()
        self._unsure = False
        self._seq = int(seq)
        if entries:
            self._position = entries[-1][0]
        return Updates(self._space, [_parse(fields) for _, fields in entries], reset=False)

    def _stands(self) -> bool:
        """Whether the entry that we read last is still there: else others went with it, unread.

        To be asked only after a whole lot: who reads less than that has read to the end, and the
        stream keeps many lots.
        """
        if self._position == _NOWHERE:
            return True
        stream = vectors.updates_key(self._space)
        at = self._position
        return bool(call(self._client, "XRANGE", stream, at, at, "COUNT", 1))


def _entries(answer: Any) -> list[tuple[bytes, Any]]:
    """The entries of the one stream that was asked for."""
    if not answer:
        return []
    if isinstance(answer, dict):  # RESP3
        (lots,) = answer.values()
        return list(lots[0])
    return list(answer[0][1])


def _parse(fields: Any) -> Update:
    if not isinstance(fields, dict):
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    return Update(
        fields[b"title"].decode(),
        int(fields[b"seq"]),
        int(fields[b"time_ms"]),
        b"gone" in fields,
    )
