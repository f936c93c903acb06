"""A copy of the live space for the page: unit vectors and names, which follow the updates.

One row a title; rows of titles that left are used again. It tells which titles are new since it was
filled, which a search does not need to know.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from serve.reader import EmbeddingReader
from serve.updates import Updates
from serve.vectors import RESERVED

Floats = npt.NDArray[np.float32]

_REMEMBERED: Final = 1000  # new titles that nobody has asked for yet


class Near(NamedTuple):
    """A title near another; `score` is the cosine."""

    title: str
    name: str | None
    score: float


class TitleCopy:
    """Holds the space that `reader` reads. One thread."""

    def __init__(self, reader: EmbeddingReader) -> None:
        self._reader, self._follower = reader, reader.follower()
        self._row: dict[str, int] = {}
        self._title: list[str] = []
        self._name: list[str | None] = []
        self._free: list[int] = []
        self._unit: Floats = np.zeros((0, 0), np.float32)
        self._new: deque[str] = deque(maxlen=_REMEMBERED)

    def __len__(self) -> int:
        return len(self._row)

    def refresh(self) -> int:
        """Take over what was published since the last call; return how many titles it was.

        Raises:
            NoSpace: no space is live.
            RedisFailed: Redis failed.
        """
        changed = 0
        while True:
            lot = self._follower.poll()
            if lot.reset:
                changed += self._load()
            elif lot.updates:
                changed += self._apply(lot)
            else:
                return changed

    def take_new(self) -> list[str]:
        """The last titles that came in since the last call, in order; none that a load brought."""
        new = [title for title in self._new if title in self._row]
        self._new.clear()
        return new

    def name(self, title: str) -> str | None:
        """Its name; None where it has none, or is not there."""
        row = self._row.get(title)
        return None if row is None else self._name[row]

    def near(self, title: str, k: int) -> list[Near] | None:
        """The `k` titles nearest to a title, best first; None where it is not there."""
        row = self._row.get(title)
        if row is None:
            return None
        scores = self._unit[: len(self._title)] @ self._unit[row]
        scores[[row, *self._free]] = -np.inf
        k = min(k, len(self._row) - 1)
        if k <= 0:
            return []
        best = np.argpartition(-scores, k - 1)[:k]
        best = best[np.lexsort((best, -scores[best]))]
        return [Near(self._title[i], self._name[i], float(scores[i])) for i in best.tolist()]

    def rows(self) -> tuple[list[str], list[str | None], Floats]:
        """Ids, names and unit vectors of all T titles, the last as a copy of shape (T, dim)."""
        rows = sorted(self._row.values())
        return [self._title[i] for i in rows], [self._name[i] for i in rows], self._unit[rows]

    def _load(self) -> int:
        snapshot = self._reader.snapshot()
        self._row, self._title, self._name, self._free = {}, [], [], []
        self._unit = np.zeros((0, 0), np.float32)
        self._put(snapshot.titles, snapshot.names, snapshot.matrix)
        self._new.clear()
        return len(snapshot.titles)

    def _apply(self, lot: Updates) -> int:
        titles = list(dict.fromkeys(update.title for update in lot.updates))
        batch = self._reader.get_many(titles)
        if batch.versions.space != lot.space:
            return 0  # switched between the two calls: the next poll says `reset`
        names = self._reader.names(titles)
        for title, found in zip(titles, batch.found.tolist(), strict=True):
            if not found and (row := self._row.pop(title, None)) is not None:
                self._free.append(row)
        there = np.flatnonzero(batch.found).tolist()
        self._put([titles[i] for i in there], [names[i] for i in there], batch.matrix[there])
        return len(titles)

    def _put(self, titles: Sequence[str], names: Sequence[str | None], matrix: Floats) -> None:
        kept = [i for i, title in enumerate(titles) if not title.startswith(RESERVED)]
        rows = [self._place(titles[i]) for i in kept]
        if not rows:
            return
        if len(self._title) > len(self._unit):
            unit = np.zeros((2 * len(self._title), matrix.shape[1]), np.float32)
            unit[: len(self._unit)] = self._unit if len(self._unit) else 0
            self._unit = unit
        norms = np.linalg.norm(matrix[kept], axis=1, keepdims=True)
        self._unit[rows] = matrix[kept] / np.where(norms > 0, norms, 1)
        for row, i in zip(rows, kept, strict=True):
            self._name[row] = names[i]

    def _place(self, title: str) -> int:
        row = self._row.get(title)
        if row is not None:
            return row
        if self._free:
            row = self._free.pop()
            self._title[row] = title
        else:
            row = len(self._title)
            self._title.append(title)
            self._name.append(None)
        self._row[title] = row
        self._new.append(title)
        return row
