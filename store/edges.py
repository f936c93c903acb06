"""The parcel that enters the store: a batch of edge changes, one numpy column a field."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt


class Op(IntEnum):
    """What a row does to its edge."""

    ADD = 0
    """Add the weight to the edge; create it if absent."""
    SET = 1
    """Give the edge this weight; create it if absent."""
    DELETE = 2
    """Remove the edge, if it is there; the weight is not looked at."""


@dataclass(frozen=True, slots=True)
class EdgeBatch:
    """Edge changes, in the order in which they arrived.

    The order counts: rows that name the same edge act one after the other.

    Attributes:
        relation: the graph's number of the relation, shape (E,), int16.
        head: dense id of the vertex from which the edge goes, shape (E,), int32.
        tail: dense id of the vertex to which it goes, shape (E,), int32.
        weight: finite and >= 0, shape (E,), float32.
        op: an `Op`, shape (E,), uint8.
        time_ms: event time, shape (E,), int64, milliseconds since the Unix epoch.

    Raises:
        ValueError: a column has the wrong dtype or length.
    """

    relation: npt.NDArray[np.int16]
    head: npt.NDArray[np.int32]
    tail: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]
    op: npt.NDArray[np.uint8]
    time_ms: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = np.shape(self.head)
        for name, dtype in COLUMNS.items():
            column = getattr(self, name)
            if not isinstance(column, np.ndarray) or column.dtype != dtype:
                kind = getattr(column, "dtype", type(column).__name__)
                raise ValueError(f"{name} is {kind}: want an array of {np.dtype(dtype)}")
            if column.ndim != 1 or column.shape != shape:
                raise ValueError(f"{name} has shape {column.shape}, but head has {shape}")

    def __len__(self) -> int:
        return int(self.head.shape[0])


COLUMNS: dict[str, type[np.generic]] = {
    "relation": np.int16,
    "head": np.int32,
    "tail": np.int32,
    "weight": np.float32,
    "op": np.uint8,
    "time_ms": np.int64,
}


def as_rows(
    heads: npt.NDArray[np.int32],
    tails: npt.NDArray[np.int32],
    weights: npt.NDArray[np.floating],
    count: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Edges as rows (indptr, tails, weights) of `count` heads, sorted by tail, equal ones added."""
    keys = heads.astype(np.int64) << 32 | tails
    order = np.argsort(keys, kind="stable")
    keys, weights = keys[order], weights[order].astype(np.float32)
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    if len(first) < len(keys):
        weights = np.add.reduceat(weights, first)
        keys = keys[first]
    indptr = np.searchsorted(keys, np.arange(count + 1, dtype=np.int64) << 32)
    return indptr, (keys & 0x7FFFFFFF).astype(np.int32), weights
