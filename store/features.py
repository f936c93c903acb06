"""Dense features of the vertices of one type, a row a vertex."""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


class Features:
    """A matrix that grows with the vertices.

    Attributes:
        values: shape (rows, F), float32; a vertex beyond the last row has features 0.
    """

    def __init__(self) -> None:
        self.values = np.zeros((0, 0), np.float32)

    def put(self, ids: Ints, values: npt.NDArray[np.generic]) -> None:
        """Write rows.

        Raises:
            ValueError: the values have the wrong shape, or are not finite; then none is written.
        """
        new = np.asarray(values, np.float32)
        width = self.values.shape[1] or (new.shape[1] if new.ndim == 2 else 0)
        if new.shape != (len(ids), width) or not width:
            raise ValueError(f"values has shape {new.shape}: want ({len(ids)}, {width or 'F'})")
        if not np.isfinite(new).all():
            row = int(np.flatnonzero(~np.isfinite(new).all(axis=1))[0])
            raise ValueError(f"values[{row}] is not finite: {new[row]}")
        need = int(ids.max()) + 1 if len(ids) else 0
        if need > len(self.values) or self.values.shape[1] != width:
            rows = max(need, len(self.values) * 5 // 4)
            grown = np.zeros((rows, width), np.float32)
            if self.values.size:
                grown[: len(self.values)] = self.values
            self.values = grown
        self.values[ids] = new

    def get(self, ids: Ints) -> Floats:
        """Rows, shape (S, F)."""
        out = np.zeros((len(ids), self.values.shape[1]), np.float32)
        known = ids < len(self.values)
        out[known] = self.values[ids[known]]
        return out

    def clear(self, ids: Ints) -> None:
        """Set rows to 0."""
        self.values[ids[ids < len(self.values)]] = 0
