"""A reader with a bounded cache in this process, which the updates stream keeps right.

A thread follows the stream and takes out what was published or retired; a switch, a flush or a
broken connection empties the cache. While the thread is not sure to be up to date (it has heard
nothing from Redis for `max_stale_s` seconds), every read goes to Redis. So what a read returns was
current at most that long ago; as a rule some milliseconds.

Rows live in arrays, so that a hit costs no object. A full cache gives up a row that was not read
since the hand last passed it (CLOCK, an approximation of least recently used).
"""

import logging
import threading
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from redis import Redis

from serve.connection import Closing, RedisFailed
from serve.reader import EmbeddingReader
from serve.reading import Batch, Versions
from serve.updates import BATCH, Updates

CAPACITY = 100_000
_BLOCK_S = 0.2  # how often the thread hears from Redis where nothing is published

log = logging.getLogger(__name__)


class CachedReader(Closing):
    """As `EmbeddingReader`, for titles that are asked for again and again. For any thread.

    Args:
        source: a reader, a client, or a URL.
        capacity: titles kept; each takes 4 * dim bytes and about 200 more.
        max_stale_s: how old an answer may be.
    """

    def __init__(
        self,
        source: EmbeddingReader | Redis | str,
        *,
        capacity: int = CAPACITY,
        max_stale_s: float = 1.0,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity {capacity}: a cache holds at least 1 title")
        self._reader = source if isinstance(source, EmbeddingReader) else EmbeddingReader(source)
        self._capacity = capacity
        self._max_stale_s = max_stale_s
        self._lock = threading.Lock()
        self._heard_at = -np.inf  # when the thread was last in step with Redis, monotonic
        self._filling = 0  # numbers the times that the cache was emptied
        self._reads = 0  # reads of Redis under way
        self._newer: dict[str, int] = {}  # seq of titles published while reads are under way
        self._clear("", 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="upwell-cache", daemon=True)
        self._thread.start()

    def get_many(self, titles: Sequence[str]) -> Batch:
        """As `EmbeddingReader.get_many`; all vectors are of one space here, too."""
        if not titles:
            return self._reader.get_many(titles)
        with self._lock:
            rows = np.fromiter((self._row.get(one, -1) for one in titles), np.int64, len(titles))
            fresh = time.monotonic() - self._heard_at <= self._max_stale_s and bool(self._space)
            missing = np.flatnonzero(rows < 0).tolist() if fresh else list(range(len(titles)))
            filling = self._filling
            if fresh:
                hits = self._take(rows)
                if not missing:
                    return hits
            self._reads += 1
        try:
            batch = self._reader.get_many([titles[row] for row in missing])
            with self._lock:
                same = filling == self._filling and batch.versions.space == self._space
                if same:
                    self._keep([titles[row] for row in missing], batch)
        finally:
            with self._lock:
                self._reads -= 1
                if not self._reads:
                    self._newer.clear()
        if len(missing) == len(titles):
            return batch
        if not same:  # what was cached and what was read may be of two spaces
            return self._reader.get_many(titles)
        for whole, part in zip((hits.matrix, hits.found), (batch.matrix, batch.found), strict=True):
            whole[missing] = part
        for of_all, of_part in zip(hits.versions[1:], batch.versions[1:], strict=True):
            of_all[missing] = of_part
        return hits

    def __len__(self) -> int:
        """How many titles are cached, those that are known to be missing among them."""
        with self._lock:
            return len(self._row)

    def close(self) -> None:
        """End the thread, and the connection where it is ours."""
        self._stop.set()
        self._thread.join()
        self._reader.close()

    def _follow(self) -> None:
        """The thread's body: keep in step with Redis, whatever happens to it."""
        follower = self._reader.follower()
        told = False
        while not self._stop.is_set():
            asked_at = time.monotonic()
            try:
                lot = follower.poll(_BLOCK_S)
            except RedisFailed as error:
                with self._lock:
                    self._clear("", 0)
                    self._heard_at = -np.inf
                if not told:
                    told = True
                    log.warning("cache of embeddings is empty until Redis answers: %s", error)
                self._stop.wait(_BLOCK_S)
                continue
            told = False
            self._apply(lot, asked_at)
            if not lot.space:
                self._stop.wait(_BLOCK_S)

    def _apply(self, lot: Updates, asked_at: float) -> None:
        with self._lock:
            if lot.reset:
                self._clear(lot.space, 0)
            for update in lot.updates:
                self._drop(update.title)
                if self._reads:
                    self._newer[update.title] = update.seq
            # All that was written before the question is in the answer, unless that is a full lot.
            # What was written since may not be: so the question's time counts, not the answer's.
            if len(lot.updates) < BATCH:
                self._heard_at = asked_at

    def _clear(self, space: str, dim: int) -> None:
        self._filling += 1
        self._space = space
        self._row: dict[str, int] = {}
        self._title: list[str | None] = []
        self._free: list[int] = []
        self._hand = 0
        self._matrix = np.zeros((0, dim), np.float32)
        self._found = np.zeros(0, np.bool_)
        self._numbers = np.zeros((0, 3), np.int64)  # seq, step, time_ms
        self._touched = np.zeros(0, np.bool_)

    def _take(self, rows: npt.NDArray[np.int64]) -> Batch:
        """Copies of the rows; what stands where the row is -1 is overwritten by the caller."""
        if not len(self._matrix):
            matrix = np.zeros((len(rows), self._matrix.shape[1]), np.float32)
            numbers = np.full((len(rows), 3), -1, np.int64)
            found = np.zeros(len(rows), np.bool_)
        else:
            self._touched[rows[rows >= 0]] = True
            matrix, numbers, found = self._matrix[rows], self._numbers[rows], self._found[rows]
        versions = Versions(self._space, numbers[:, 0], numbers[:, 1], numbers[:, 2])
        return Batch(matrix, found, versions)

    def _keep(self, titles: list[str], batch: Batch) -> None:
        """Put in what was read, unless it was published anew meanwhile."""
        if self._matrix.shape[1] != batch.matrix.shape[1]:
            self._clear(self._space, batch.matrix.shape[1])
        new = [
            row
            for row, (title, seq) in enumerate(
                zip(titles, batch.versions.seq.tolist(), strict=True)
            )
            if title not in self._newer or self._newer[title] <= seq
        ]
        new = new[-self._capacity :]
        places = [self._place(titles[row]) for row in new]
        self._grow()
        self._matrix[places] = batch.matrix[new]
        self._found[places] = batch.found[new]
        self._touched[places] = True
        for column, values in enumerate(batch.versions[1:]):
            self._numbers[places, column] = values[new]

    def _place(self, title: str) -> int:
        row = self._row.get(title)
        if row is not None:
            return row
        if self._free:
            row = self._free.pop()
        elif len(self._title) < self._capacity:
            row = len(self._title)
            self._title.append(None)
        else:
            row = self._evict()
        self._title[row] = title
        self._row[title] = row
        return row

    def _evict(self) -> int:
        """The row that the hand comes to first and that was not read since it passed."""
        self._grow()
        while self._touched[self._hand]:
            self._touched[self._hand] = False
            self._hand = (self._hand + 1) % self._capacity
        row = self._hand
        self._hand = (self._hand + 1) % self._capacity
        title = self._title[row]
        if title is not None:
            del self._row[title]
        return row

    def _grow(self) -> None:
        have, need = len(self._matrix), len(self._title)
        if need <= have:
            return
        more = min(self._capacity, max(1024, 2 * have, need))
        for name in ("_matrix", "_found", "_numbers", "_touched"):
            old = getattr(self, name)
            grown = np.zeros((more, *old.shape[1:]), old.dtype)
            grown[:have] = old
            setattr(self, name, grown)

    def _drop(self, title: str) -> None:
        row = self._row.pop(title, None)
        if row is not None:
            self._title[row] = None
            self._touched[row] = False
            self._free.append(row)
