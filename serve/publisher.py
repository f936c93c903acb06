"""Writes embeddings to Redis, so that a reader never sees an older vector after a newer one.

Each publish has a `seq` that grows; the server compares it with the one that stands (server.lua)
and leaves a newer vector alone. So to publish twice, late, or from two processes does no harm. A
batch is refused as a whole before a byte is written; then it goes out in chunks, each of which is
one call: a chunk is written whole or not at all, and many are in flight at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from redis import Redis

from serve import search, spaces, vectors
from serve.changed import LastSent
from serve.connection import call_all
from serve.writers import Filling, Parcel, Writer
from serve.writers import writer as writer_of

_LOOK = 4096  # titles asked for at once
UPDATES_KEPT = 100_000  # entries in a space's updates stream, about
MARK_S = 7 * 86_400  # how long a retired title's mark keeps late writes out


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What became of a batch: the three numbers add up to its titles.

    stale: stand with a newer seq. unchanged: were not sent, being within epsilon of what stands.
    """

    written: int
    stale: int
    unchanged: int = 0


class Publisher:
    """Writes to one space. Not for two threads at once.

    Args:
        client: from `serve.connection.connect`.
        space: the id of the space; `create_space` makes it.
        updates_kept: about how many entries the updates stream keeps.
        mark_s: seconds for which a retired title cannot be written with an older seq.
        epsilon: a vector is sent once it is so far from the one that stands, as a share of that
            one's length; 0: always.
    """

    def __init__(
        self,
        client: Redis,
        space: str,
        *,
        updates_kept: int = UPDATES_KEPT,
        mark_s: int = MARK_S,
        epsilon: float = 0.0,
    ) -> None:
        if not 0 <= epsilon < 1:
            raise ValueError(f"epsilon {epsilon}: use 0 (send always) up to 1")
        self.space = vectors.check_space(space)
        self._client = client
        self._prefix = vectors.title_prefix(space)
        self._writer: Writer | None = None
        self._updates_kept = updates_kept
        self._mark_s = mark_s
        self._epsilon = epsilon
        self._sent: LastSent | None = None
        self._epoch: str | None = None
        self._dim = 0
        self._last_seq = 0  # the highest that we know to be written

    def create_space(
        self, dim: int, step: int = 0, relations: Sequence[str] = (), *, index: bool = False
    ) -> bool:
        """Make the space, or take up the one that stands.

        Args:
            dim: components of a vector.
            step: training step of the weights.
            relations: names of the relations that the embeddings are made of.
            index: let the server search for neighbours, where it can; each publish costs more.

        Returns:
            Whether it is filled: where not, publish every title, then call `filled`.

        Raises:
            ValueError: it stands with another `dim`.
            RedisFailed: Redis failed.
        """
        space = spaces.create(self._client, self.space, dim=dim, step=step, relations=relations)
        self._epoch, self._dim, self._last_seq = space.epoch, space.dim, space.seq
        kind = space.search
        if index and not kind:
            kind = self._index(space)
        self._writer = self._writer_for(kind)
        self._sent = LastSent(space.dim, self._epsilon) if self._epsilon else None
        return space.filled_ms > 0

    def publish(
        self,
        titles: Sequence[str],
        matrix: npt.NDArray[np.float32],
        *,
        seq: int,
        step: int,
        time_ms: npt.NDArray[np.int64],
        names: Sequence[str | None] | None = None,
        everything: bool = False,
    ) -> PublishReport:
        """Write one title a row.

        Args:
            titles: N ids.
            matrix: shape (N, dim), finite.
            seq: higher than that of every publish before.
            step: training step of the weights that made the vectors.
            time_ms: newest event that each has seen, shape (N,), milliseconds.
            names: N names for the eye; None leaves the one that stands.
            everything: send what has not changed by epsilon, too: for a full refresh.

        Raises:
            ValueError: shapes that differ, a vector that is not finite, a title that is too long.
                Nothing was written.
            SpaceLost: the space is not what we left. Nothing of the failing chunk was written.
            RedisFailed: Redis failed for good. Some chunks may have been written.
        """
        time_ms = np.asarray(time_ms)
        writer, epoch = self._open(seq)
        self._check(titles, matrix, step, time_ms, names)
        keys = self._keys(titles)
        offered = len(titles)
        if self._sent is not None:
            if not everything:
                rows = np.flatnonzero(self._sent.differs(titles, matrix, names)).tolist()
                titles, keys = [titles[row] for row in rows], [keys[row] for row in rows]
                names = None if names is None else [names[row] for row in rows]
                matrix, time_ms = matrix[rows], time_ms[rows]
            self._sent.forget(titles)  # until we know what became of them
        parcel = Parcel(
            keys,
            memoryview(vectors.encode(matrix)),
            self._dim * vectors.DTYPE.itemsize,
            [str(time) for time in time_ms.tolist()],
            None if names is None else [(name or "").replace("\0", " ") for name in names],
            seq,
            step,
        )
        stale = writer.put(parcel, Filling(epoch, self._last_seq))
        if keys:
            self._last_seq = max(self._last_seq, seq)
        if self._sent is not None:
            self._sent.remember(titles, matrix, names)
            self._sent.forget([titles[row] for row in stale])
        return PublishReport(len(keys) - len(stale), len(stale), offered - len(keys))

    def retire(self, titles: Sequence[str], *, seq: int, time_ms: int) -> PublishReport:
        """Take titles away; for `mark_s` seconds, a publish with an older seq is refused.

        Args:
            titles: N ids; one that is not there is marked all the same.
            seq: higher than that of every publish before.
            time_ms: the newest of the events that retire them, milliseconds.

        Raises:
            SpaceLost, RedisFailed: as `publish` does.
        """
        writer, epoch = self._open(seq)
        keys = self._keys(titles)
        if self._sent is not None:
            self._sent.forget(titles)
        stale = writer.retire(keys, seq, int(time_ms), Filling(epoch, self._last_seq))
        if keys:
            self._last_seq = max(self._last_seq, seq)
        return PublishReport(len(keys) - len(stale), len(stale))

    def check(self) -> bool:
        """Whether all that we have published still stands there; one short call.

        False after a flush, a restore of an older state or a failover that lost writes, and until
        the space is `filled`: then call `create_space`, publish every title, and call `filled`.
        """
        space = spaces.get_space(self._client, self.space)
        return (
            space is not None
            and space.epoch == self._epoch
            and space.seq >= self._last_seq
            and space.filled_ms > 0
        )

    def last_seq(self) -> int:
        """The highest seq ever published to the space: where a new publisher must go on."""
        space = spaces.get_space(self._client, self.space)
        return 0 if space is None else space.seq

    def missing(self, titles: Sequence[str]) -> list[str]:
        """Which of the titles have no vector in the space."""
        keys = self._keys(titles)
        lacking: list[str] = []
        for start in range(0, len(keys), _LOOK):
            end = start + _LOOK
            there = call_all(self._client, [("HEXISTS", key, "vec") for key in keys[start:end]])
            lacking += [
                title
                for title, is_there in zip(titles[start:end], there, strict=True)
                if not is_there
            ]
        return lacking

    def standing(self) -> Iterator[list[str]]:
        """The titles that have a vector in the space, in lots; each at least once."""
        start = len(self._prefix)
        for keys in spaces.scan(self._client, self.space):
            titles = [key.decode()[start:] for key in keys]
            gone = set(self.missing(titles))
            yield [title for title in titles if title not in gone]

    def filled(self) -> None:
        """Note that every title is published: from now on, anyone may make the space live."""
        writer, epoch = self._open(seq=1)
        writer.note(epoch, "filled_ms", spaces.now_ms())

    def switch(self) -> str | None:
        """Note that the space is filled, make it the live one, and return the one before."""
        self.filled()
        return spaces.switch(self._client, self.space)

    def _index(self, space: spaces.Space) -> str:
        """Have the server search the space, and return how."""
        if space.seq and search.supported(self._client) == search.VSET:
            return search.NONE  # what stands already is not in the set
        kind = search.create(self._client, self.space, space.dim)
        self._writer_for(kind).note(space.epoch, "search", kind)
        return kind

    def _writer_for(self, kind: str) -> Writer:
        return writer_of(
            self._client,
            self.space,
            kind,
            updates_kept=self._updates_kept,
            mark_s=self._mark_s,
        )

    def _keys(self, titles: Sequence[str]) -> list[bytes]:
        try:
            keys = [f"{self._prefix}{title}".encode() for title in titles]
        except UnicodeEncodeError as error:
            raise ValueError(f"a title cannot be written as UTF-8: {error}") from None
        longest = len(self._prefix) + vectors.MAX_TITLE_BYTES
        for row, key in enumerate(keys):
            if not len(self._prefix) < len(key) <= longest:
                raise ValueError(
                    f"title in row {row} has {len(key) - len(self._prefix)} bytes; "
                    f"1 to {vectors.MAX_TITLE_BYTES} are allowed"
                )
        return keys

    def _check(
        self,
        titles: Sequence[str],
        matrix: npt.NDArray[np.float32],
        step: int,
        time_ms: npt.NDArray[np.int64],
        names: Sequence[str | None] | None,
    ) -> None:
        want = (len(titles), self._dim)
        if matrix.shape != want or time_ms.shape != want[:1]:
            raise ValueError(
                f"{want[0]} titles of dim {want[1]} need vectors of shape {want} and times of "
                f"shape {want[:1]}, not {matrix.shape} and {time_ms.shape}"
            )
        if names is not None and len(names) != len(titles):
            raise ValueError(f"{len(titles)} titles, but {len(names)} names")
        if time_ms.size and time_ms.min() < 0:
            row = int(time_ms.argmin())
            raise ValueError(f"time_ms {time_ms[row]} of title {titles[row]!r}: it is before 1970")
        bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
        if bad.size:
            raise ValueError(
                f"vector of title {titles[bad[0]]!r} (row {bad[0]}) is not finite "
                f"({bad.size} such) at step {step}; nothing was published"
            )

    def _open(self, seq: int) -> tuple[Writer, str]:
        """The writer and the epoch, for a call with this seq."""
        if self._epoch is None or self._writer is None:
            raise ValueError(f"space {self.space!r}: call create_space before the first publish")
        if not 0 < seq <= vectors.MAX_SEQ:
            raise ValueError(f"seq {seq}: use 1 to {vectors.MAX_SEQ}")
        return self._writer, self._epoch
