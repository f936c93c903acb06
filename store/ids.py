"""Names outside, dense numbers inside: the table between them.

Ids are int32, given out from 0 upwards; a released one is given out again before a new one is.
Ten million ids take their names' bytes and about 30 bytes each, and no Python object: the layout is
in store/names.py.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from store import names as kernels

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

T = TypeVar("T", bound=np.generic)

MAX_IDS = 2**31 - 1
_FIRST = 16  # ids before the first growth
_PART = 8192  # names that are interned at once


class IdTable:
    """Two-way table between names and dense ids; its length is the number of live ids."""

    def __init__(self) -> None:
        self._slots = np.full(2 * _FIRST, kernels.EMPTY, np.int32)
        self._tombs = 0
        self._hashes = np.zeros(_FIRST, np.uint32)
        self._offsets = np.zeros(_FIRST, np.int64)
        self._lengths = np.full(_FIRST, -1, np.int32)
        self._free = np.zeros(_FIRST, np.int32)
        self._blob = np.zeros(256, np.uint8)
        self._state = np.zeros(5, np.int64)
        self._handle = np.zeros(2, np.int64)
        self._point()

    def __len__(self) -> int:
        """Number of live ids."""
        return int(self._state[kernels.LIVE])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and int(self.find([name])[0]) >= 0

    @property
    def capacity(self) -> int:
        """Ids are in 0..capacity - 1; some of them may be free."""
        return int(self._state[kernels.NEXT])

    def find(self, names: Sequence[str]) -> Ints:
        """Id of each name, shape (N,); -1 where it has none."""
        return self.find_bytes(*_pack(names))

    def find_bytes(self, text: Bytes, ends: Longs) -> Ints:
        """As `find`; arguments as in `intern_bytes`."""
        out = np.empty(len(ends), np.int32)
        kernels.find(
            self._slots, self._hashes, self._offsets, self._lengths, self._blob, text, ends, out
        )
        return out

    def intern(self, names: Sequence[str]) -> Ints:
        """Id of each name, shape (N,); a name without one gets the next that is free.

        Raises:
            ValueError: a name is no valid Unicode, or there are too many.
        """
        return self.intern_bytes(*_pack(names))

    def intern_bytes(self, text: Bytes, ends: Longs) -> Ints:
        """As `intern`, for names that are no Python strings: a column of an Arrow batch.

        Args:
            text: the names' UTF-8, one after another and valid, shape (B,).
            ends: where in `text` each of them ends, ascending, shape (N,).

        Raises:
            ValueError: there are too many.
        """
        out = np.empty(len(ends), np.int32)
        # Most names of a long column are known or repeated: room is made for a part at a time, so
        # that the table is sized by the names that it has, not by the longest column.
        for first in range(0, len(ends), _PART):
            some = ends[first : first + _PART]
            start = int(ends[first - 1]) if first else 0
            part = text[start : int(some[-1])]
            self._reserve(len(some), len(part))
            kernels.intern(
                self._slots,
                self._hashes,
                self._offsets,
                self._lengths,
                self._free,
                self._blob,
                self._state,
                part,
                some - start,
                out[first : first + _PART],
            )
        return out

    def names(self, ids: npt.NDArray[np.integer]) -> list[str]:
        """Name of each id.

        Raises:
            ValueError: an id is not live.
        """
        wanted = self._checked(ids)
        lengths = self._lengths[wanted]
        out = np.empty(int(lengths.sum(dtype=np.int64)), np.uint8)
        kernels.gather(self._offsets, self._lengths, self._blob, wanted, out)
        text = out.tobytes()
        stops = np.cumsum(lengths, dtype=np.int64).tolist()
        starts = [0, *stops[:-1]]
        if text.isascii():
            letters = text.decode("ascii")
            return [letters[a:b] for a, b in zip(starts, stops, strict=True)] if stops else []
        return [text[a:b].decode() for a, b in zip(starts, stops, strict=True)]

    def release(self, ids: npt.NDArray[np.integer]) -> None:
        """Free these ids; a repeated one is freed once.

        Raises:
            ValueError: an id is not live; then none is freed.
        """
        gone = np.unique(self._checked(ids))
        kernels.release(
            self._slots, self._hashes, self._lengths, self._free, self._state, gone.astype(np.int32)
        )
        self._tombs += len(gone)
        if self._state[kernels.WASTE] > max(4096, int(self._state[kernels.USED]) // 2):
            self._compact()

    def is_live(self, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Whether each id has a name, shape (N,)."""
        ids = np.asarray(ids)
        inside = (ids >= 0) & (ids < self.capacity)
        return inside & (self._lengths[np.where(inside, ids, 0)] >= 0)

    def live_ids(self) -> Ints:
        """All live ids, ascending."""
        return np.flatnonzero(self._lengths[: self.capacity] >= 0).astype(np.int32)

    @property
    def lengths(self) -> Ints:
        """Bytes of each id's name, -1 where the id is free, shape (capacity,); do not write."""
        return self._lengths[: self.capacity]

    def nbytes(self) -> int:
        """Bytes that the table takes."""
        return sum(array.nbytes for array in self._arrays().values())

    @property
    def handle(self) -> int:
        """By what number kernels know this table: see store/scalar.py."""
        return int(self._handle.ctypes.data)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What a snapshot keeps of the table."""
        count, used = self.capacity, int(self._state[kernels.USED])
        return {
            "hashes": self._hashes[:count],
            "offsets": self._offsets[:count],
            "lengths": self._lengths[:count],
            "free": self._free[: int(self._state[kernels.FREE])],
            "blob": self._blob[:used],
            "state": self._state,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[np.generic]]) -> "IdTable":
        """The table that `arrays` came from."""
        table = cls()
        table.restore(arrays)
        return table

    def restore(self, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
        """Become the table that `arrays` came from."""
        state = np.array(arrays["state"], np.int64)
        self._hashes = np.array(arrays["hashes"], np.uint32)
        self._offsets = np.array(arrays["offsets"], np.int64)
        self._lengths = np.array(arrays["lengths"], np.int32)
        self._blob = np.array(arrays["blob"], np.uint8)
        self._free = np.zeros(len(self._hashes), np.int32)
        self._free[: int(state[kernels.FREE])] = arrays["free"]
        self._state = state
        self._point()
        self._rehash(len(self._hashes))

    def _point(self) -> None:
        """Write anew where the lengths are; that place is the same for the table's life."""
        self._handle[:] = self._lengths.ctypes.data, len(self._lengths)

    def _arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        return {
            "slots": self._slots,
            "hashes": self._hashes,
            "offsets": self._offsets,
            "lengths": self._lengths,
            "free": self._free,
            "blob": self._blob,
        }

    def _checked(self, ids: npt.NDArray[np.integer]) -> Ints:
        ids = np.asarray(ids)
        live = self.is_live(ids)
        if not live.all():
            row = int(np.flatnonzero(~live)[0])
            raise ValueError(f"ids[{row}] is {ids[row]}: no such live id; {len(self)} are live")
        return ids.astype(np.int32)

    def _reserve(self, count: int, size: int) -> None:
        """Make room for `count` new names of `size` bytes together."""
        need = self.capacity + count
        if need > MAX_IDS:
            raise ValueError(f"{need} ids are more than {MAX_IDS}")
        if need > len(self._hashes):
            room = max(need, len(self._hashes) * 3 // 2)
            self._hashes = _grown(self._hashes, room)
            self._offsets = _grown(self._offsets, room)
            self._lengths = _grown(self._lengths, room, -1)
            self._free = _grown(self._free, room)
            self._point()
        used = int(self._state[kernels.USED])
        if used + size > len(self._blob):
            self._blob = _grown(self._blob, max(used + size, len(self._blob) * 3 // 2))
        if 10 * (len(self) + self._tombs + count) > 7 * len(self._slots):
            self._rehash(len(self) + count)

    def _rehash(self, count: int) -> None:
        size = 2 * _FIRST
        while 10 * count > 7 * size:
            size *= 2
        self._slots = np.full(size, kernels.EMPTY, np.int32)
        self._tombs = 0
        kernels.rehash(self._slots, self._hashes, self._lengths, self._state)

    def _compact(self) -> None:
        kept = int(self._state[kernels.USED] - self._state[kernels.WASTE])
        blob = np.zeros(max(256, kept * 5 // 4), np.uint8)
        kernels.compact(self._offsets, self._lengths, self._blob, self._state, blob)
        self._blob = blob


def _grown(array: npt.NDArray[T], size: int, fill: int = 0) -> npt.NDArray[T]:
    out: npt.NDArray[T] = np.full(size, fill, array.dtype)
    out[: len(array)] = array
    return out


def _pack(names: Sequence[str]) -> tuple[Bytes, Longs]:
    """The names' UTF-8 bytes, one after another, and where each ends, shape (N,)."""
    if isinstance(names, str):
        raise ValueError(f"names is the string {names!r}: want a list of strings")
    try:
        text = "".join(names)
    except TypeError as error:
        raise ValueError(f"a name is no string: {error}") from None
    blob = text.encode()
    if len(blob) == len(text):
        lengths = np.fromiter(map(len, names), np.int64, len(names))
    else:
        lengths = np.fromiter((len(name.encode()) for name in names), np.int64, len(names))
    return np.frombuffer(blob, np.uint8), np.cumsum(lengths)
