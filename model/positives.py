"""The parcel that training takes: co-plays in time order."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Positives:
    """Co-plays, oldest first.

    Attributes:
        a, b: dense title ids; a pair counts both ways, shape (P,), int32.
        weight: > 0, shape (P,), float32.
        time_ms: shape (P,), int64, milliseconds since the Unix epoch.
    """

    a: npt.NDArray[np.int32]
    b: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]
    time_ms: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("b", "weight", "time_ms"):
            if getattr(self, name).shape != self.a.shape:
                raise ValueError(
                    f"{name} has shape {getattr(self, name).shape}, but a has {self.a.shape}"
                )
        bad = np.flatnonzero(~np.isfinite(self.weight) | (self.weight <= 0))
        if len(bad):
            row = int(bad[0])
            raise ValueError(f"weight[{row}] is {self.weight[row]}: want a finite weight > 0")

    def __len__(self) -> int:
        return len(self.a)

    def __getitem__(self, rows: slice | npt.NDArray[np.generic]) -> "Positives":
        return Positives(self.a[rows], self.b[rows], self.weight[rows], self.time_ms[rows])

    def without(self, titles: npt.NDArray[np.integer]) -> "Positives":
        """Those that name none of `titles`."""
        if not (len(titles) and len(self)):
            return self
        gone = np.isin(self.a, titles) | np.isin(self.b, titles)
        return self[np.flatnonzero(~gone)] if gone.any() else self

    @classmethod
    def empty(cls) -> "Positives":
        return cls(
            np.zeros(0, np.int32),
            np.zeros(0, np.int32),
            np.zeros(0, np.float32),
            np.zeros(0, np.int64),
        )

    @classmethod
    def join(cls, parts: list["Positives"]) -> "Positives":
        """One after the other."""
        parts = parts or [cls.empty()]
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("a", "b", "weight", "time_ms")
            )
        )
