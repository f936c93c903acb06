"""Which vectors differ enough from what was sent last to be worth a write.

Keeps the last vector sent of each title, one row each, so that small steps add up: a title is sent
once it is `epsilon` away from what readers have, however slowly it went there. Costs 4 * dim bytes
a title, and nothing where epsilon is 0.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_FIRST_ROWS = 1024


class LastSent:
    """The vectors and names that stand in Redis, as far as we know.

    Args:
        dim: components of a vector.
        epsilon: distance, relative to the length of the vector that stands, up to which a new one
            counts as the same.
    """

    def __init__(self, dim: int, epsilon: float) -> None:
        self._epsilon = epsilon
        self._row: dict[str, int] = {}
        self._names: list[str | None] = []
        self._vectors = np.zeros((0, dim), np.float32)
        self._free: list[int] = []

    def differs(
        self,
        titles: Sequence[str],
        matrix: npt.NDArray[np.float32],
        names: Sequence[str | None] | None,
    ) -> npt.NDArray[np.bool_]:
        """Which rows must be sent: new titles, new names, vectors that moved; shape (N,)."""
        rows = np.fromiter((self._row.get(title, -1) for title in titles), np.int64, len(titles))
        differs = rows < 0
        known = np.flatnonzero(~differs)
        old = self._vectors[rows[known]]
        moved = np.linalg.norm(matrix[known] - old, axis=1)
        differs[known] = moved > self._epsilon * np.linalg.norm(old, axis=1)
        if names is not None:
            for position in known.tolist():
                name = names[position]
                if name is not None and name != self._names[rows[position]]:
                    differs[position] = True
        return differs

    def remember(
        self,
        titles: Sequence[str],
        matrix: npt.NDArray[np.float32],
        names: Sequence[str | None] | None,
    ) -> None:
        """Note what was sent and taken; of a title that comes twice, the last."""
        rows = [self._place(title) for title in titles]
        if len(self._names) > len(self._vectors):
            more = max(_FIRST_ROWS, 2 * len(self._vectors), len(self._names))
            grown = np.zeros((more, self._vectors.shape[1]), np.float32)
            grown[: len(self._vectors)] = self._vectors
            self._vectors = grown
        self._vectors[rows] = matrix
        if names is not None:
            for row, name in zip(rows, names, strict=True):
                if name is not None:
                    self._names[row] = name

    def forget(self, titles: Sequence[str]) -> None:
        """Have these sent next time, whatever they are."""
        for title in titles:
            row = self._row.pop(title, None)
            if row is not None:
                self._names[row] = None
                self._free.append(row)

    def _place(self, title: str) -> int:
        row = self._row.get(title)
        if row is None:
            if self._free:
                row = self._free.pop()
            else:
                row = len(self._names)
                self._names.append(None)
            self._row[title] = row
        return row
