"""Columns of many events: names as they came, numbers as numpy arrays.

A column of names is a list of strings (from JSON), or `Names`: bytes, as an Arrow batch holds them.
Names goes into an id table without becoming a Python string:

    text  (B,) uint8   the values' UTF-8, one after another
    ends  (M,) int64   where in `text` each of the M values ends
    code  (E,) int32   row i is value code[i]; none: row i is value i, and M = E
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import overload

import numpy as np
import numpy.typing as npt

from store.ids import IdTable

Bytes = npt.NDArray[np.uint8]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Names(Sequence[str]):
    """E strings as bytes: see above. As a sequence it is slow; `intern` is why it is here."""

    text: Bytes
    ends: Int64s
    code: Int32s | None = None

    @classmethod
    def of(cls, names: Sequence[str]) -> "Names":
        """The same strings as bytes."""
        if isinstance(names, Names):
            return names
        encoded = [name.encode() for name in names]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum(lengths))

    @classmethod
    def join(cls, parts: Sequence["Names"]) -> "Names":
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        values = np.cumsum([0, *(len(part.ends) for part in parts)])
        starts = np.cumsum([0, *(len(part.text) for part in parts)])
        text = np.concatenate([np.empty(0, np.uint8), *(part.text for part in parts)])
        ends = np.concatenate(
            [np.empty(0, np.int64), *(p.ends + s for p, s in zip(parts, starts[:-1], strict=True))]
        )
        if all(part.code is None for part in parts):
            return cls(text, ends)
        codes = [
            (np.arange(len(part.ends)) if part.code is None else part.code) + base
            for part, base in zip(parts, values[:-1], strict=True)
        ]
        return cls(text, ends, np.concatenate(codes).astype(np.int32))

    def __len__(self) -> int:
        return len(self.ends) if self.code is None else len(self.code)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> "Names": ...
    def __getitem__(self, at: int | slice) -> "str | Names":
        if isinstance(at, slice):
            return self.keep(np.arange(len(self))[at])
        row = range(len(self))[at]
        value = row if self.code is None else int(self.code[row])
        start = int(self.ends[value - 1]) if value else 0
        return self.text[start : int(self.ends[value])].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        values = self._values()
        return iter(values if self.code is None else [values[code] for code in self.code.tolist()])

    def keep(self, rows: Int64s) -> "Names":
        """These rows, shape (K,)."""
        chosen = rows if self.code is None else self.code[rows]
        return Names(self.text, self.ends, chosen.astype(np.int32))

    def compact(self) -> "Names":
        """The same without values that no row has: an id table is to learn no other."""
        if self.code is None:
            return self
        used = np.bincount(self.code, minlength=len(self.ends)) > 0
        if used.all():
            return self
        starts = np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])
        lengths = (self.ends - starts)[used]
        ends = np.cumsum(lengths)
        # Byte i of the new text is byte i of the old one, and what was left out before it.
        moved = np.repeat(starts[used] - (ends - lengths), lengths)
        text = self.text[np.arange(len(moved)) + moved]
        place = np.cumsum(used, dtype=np.int32) - np.int32(1)
        return Names(text, ends, place[self.code])

    def _values(self) -> list[str]:
        stops = self.ends.tolist()
        whole = self.text.tobytes()
        starts = [0, *stops][:-1]
        return [whole[a:b].decode() for a, b in zip(starts, stops, strict=True)]


def intern(table: IdTable, names: Sequence[str]) -> Int32s:
    """Id of each name, shape (E,); new ones get one."""
    if not isinstance(names, Names):
        return table.intern(names)
    names = names.compact()
    ids = table.intern_bytes(names.text, names.ends)
    return ids if names.code is None else ids[names.code]


def find(table: IdTable, names: Sequence[str]) -> Int32s:
    """Id of each name, shape (E,), -1 where it has none."""
    if not isinstance(names, Names):
        return table.find(names)
    ids = table.find_bytes(names.text, names.ends)
    return ids if names.code is None else ids[names.code]


def join_names(parts: Sequence[Sequence[str]]) -> Sequence[str]:
    """Columns of names one after the other."""
    if any(isinstance(part, Names) for part in parts):
        return Names.join([Names.of(part) for part in parts])
    return list(chain.from_iterable(parts))


@dataclass(frozen=True, slots=True)
class CoPlays:
    """Co-plays as columns, in the order of their arrival.

    Attributes:
        a, b: the titles, E strings each; a[i] != b[i].
        weight: shape (E,), float32, MIN_WEIGHT to MAX_WEIGHT.
        time_ms: event time, shape (E,), int64.
        row: which of the decoded messages it came in, shape (E,), int32.
    """

    a: Sequence[str]
    b: Sequence[str]
    weight: Floats
    time_ms: Int64s
    row: Int32s

    def __len__(self) -> int:
        return len(self.weight)

    def keep(self, mask: Bools) -> "CoPlays":
        """The events where `mask`, shape (E,), holds."""
        rows = np.flatnonzero(mask)
        return CoPlays(
            _chosen(self.a, rows),
            _chosen(self.b, rows),
            self.weight[mask],
            self.time_ms[mask],
            self.row[mask],
        )

    @classmethod
    def join(cls, parts: Sequence["CoPlays"]) -> "CoPlays":
        """One after the other; `row` stays as it was in each."""
        return cls(
            join_names([part.a for part in parts]),
            join_names([part.b for part in parts]),
            np.concatenate([part.weight for part in parts]),
            np.concatenate([part.time_ms for part in parts]),
            np.concatenate([part.row for part in parts]),
        )


def _chosen(names: Sequence[str], rows: Int64s) -> Sequence[str]:
    if isinstance(names, Names):
        return names.keep(rows)
    return [names[row] for row in rows.tolist()]
