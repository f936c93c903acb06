"""Unit vectors of a space's titles in one mapping, which the processes of a machine may share.

    0      header    see `_HEADER`; 4096 bytes
    ...    version   uint64 (capacity,)       odd while the row is being written
    ...    text_at   uint64 (capacity,)       where the row's id and name stand; 0: the row is free
    ...    unit      float32 (capacity, dim)  unit vectors
    ...    heap      id length uint16, name length uint32 (all ones: no name), id, name; UTF-8

Little-endian, parts aligned to 64 bytes. Only one process writes at a time (serve/local_copy.py
holds a lock); any may read meanwhile. A reader that sees a row's version odd, or changed while it
read, reads that row again, so it never uses half a vector. Texts are only ever appended: one that
a row has pointed to stays as it is. What is full is copied into a larger mapping, and the old one
says `replaced`. A writer that is killed leaves `writing` set, and perhaps odd rows: the next one
frees those, and takes up the updates at the last mark, which stands in two slots of which
`generation` names the valid one: so it is whole, too.

Between a version and what it guards stands a lock's acquisition, since processors other than x86
may else let one pass the other.
"""

import mmap
import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from serve import vectors
from serve.updates import Mark

Float32s = npt.NDArray[np.float32]
UInt64s = npt.NDArray[np.uint64]
Rows64 = npt.NDArray[np.int64]

MAGIC = b"upwell\x00\x01"
_NO_NAME = 2**32 - 1
_HEADER_BYTES = 4096
_ALIGNED = 64
_TOGETHER = 256  # rows that are odd at one time
_PAUSES_S = (0.0, 0.0001, 0.0005, 0.002, 0.01, 0.05)  # before a torn row is read again

_HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("dim", "<u8"),
        ("capacity", "<u8"),
        ("heap", "<u8"),  # bytes
        ("space", "S64"),
        ("epoch", "S64"),
        ("rows", "<u8"),  # in use, free ones between them included
        ("heap_end", "<u8"),
        ("writing", "<u8"),
        ("replaced", "<u8"),
        ("generation", "<u8"),
        ("marks", [("seq", "<u8"), ("ms", "<u8"), ("number", "<u8")], (2,)),
    ]
)


class Full(Exception):
    """A mapping has no room for what is to be put into it."""


class Unusable(ValueError):
    """A file is no copy of ours, or a torn one."""


class Text(NamedTuple):
    """What a row stands for."""

    title: str
    name: str | None


class Rows:
    """One mapping. Methods that write are for whoever holds the lock.

    Attributes:
        path: of the file; None: memory of this process.
    """

    def __init__(self, buffer: mmap.mmap, path: Path | None) -> None:
        self.path = path
        self._buffer = buffer
        self._fence = threading.Lock()
        self._header = np.frombuffer(buffer, _HEADER, 1)
        dim, capacity = self.dim, int(self._header["capacity"][0])
        parts = _layout(dim, capacity)
        self._version = np.frombuffer(buffer, "<u8", capacity, parts[0])
        self._text_at = np.frombuffer(buffer, "<u8", capacity, parts[1])
        self._unit = np.frombuffer(buffer, vectors.DTYPE, capacity * dim, parts[2])
        self._unit = self._unit.reshape(capacity, dim)
        self._heap_at = parts[3]

    @classmethod
    def create(cls, path: Path | None, mark: Mark, dim: int, capacity: int, heap: int) -> Self:
        """An empty mapping; raises OSError where the disk has no room for it."""
        size = _layout(dim, capacity)[3] + heap
        if path is None:
            buffer = mmap.mmap(-1, size)
        else:
            with open(path, "w+b") as file:
                # Else a full disk would end the process by a signal, at some later write.
                os.posix_fallocate(file.fileno(), 0, size)
                buffer = mmap.mmap(file.fileno(), size)
        header = np.frombuffer(buffer, _HEADER, 1)
        for field, value in (("dim", dim), ("capacity", capacity), ("heap", heap)):
            header[field] = value
        header["space"], header["epoch"] = mark.space.encode(), mark.epoch
        header["magic"] = MAGIC
        made = cls(buffer, path)
        made.commit(mark)
        return made

    @classmethod
    def open(cls, path: Path) -> Self:
        """The mapping of a file; raises Unusable where it is none of ours, or OSError."""
        with open(path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _HEADER_BYTES:
                raise Unusable(f"{path} has {size} bytes: no copy of a space")
            buffer = mmap.mmap(file.fileno(), size)
        header = np.frombuffer(buffer, _HEADER, 1)
        known = header["magic"][0] == MAGIC
        dim, capacity, heap = (int(header[one][0]) for one in ("dim", "capacity", "heap"))
        if not known or _layout(dim, capacity)[3] + heap != size:
            raise Unusable(f"{path} is no copy of a space, or one of another layout")
        return cls(buffer, path)

    @property
    def dim(self) -> int:
        return int(self._header["dim"][0])

    @property
    def generation(self) -> int:
        """Grows with every mark."""
        return int(self._header["generation"][0])

    @property
    def replaced(self) -> bool:
        """Whether another mapping has taken this one's place."""
        return bool(self._header["replaced"][0])

    def replace(self) -> None:
        self._header["replaced"] = 1

    def mark(self) -> Mark:
        slot = self._header["marks"][0][self.generation % 2]
        position = f"{slot['ms']}-{slot['number']}".encode()
        space, epoch = self._header["space"][0], self._header["epoch"][0]
        return Mark(space.decode(), epoch, int(slot["seq"]), position)

    def commit(self, mark: Mark) -> None:
        """What was put in so far is all up to here."""
        ms, _, number = mark.position.partition(b"-")
        following = self.generation + 1
        self._header["marks"][0][following % 2] = (mark.seq, int(ms), int(number))
        self._pass()
        self._header["generation"] = following

    def versions(self) -> UInt64s:
        """A copy: a row whose number is another than before was written."""
        return self._version[: self._rows()].copy()

    def text_places(self) -> UInt64s:
        """A copy: where each row's text stands; 0: the row is free."""
        return self._text_at[: self._rows()].copy()

    def text(self, at: int) -> Text:
        """The id and name at one of `text_places`."""
        raw = self._buffer
        title_end = at + 6 + int.from_bytes(raw[at : at + 2], "little")
        name_bytes = int.from_bytes(raw[at + 2 : at + 6], "little")
        title = raw[at + 6 : title_end].decode()
        if name_bytes == _NO_NAME:
            return Text(title, None)
        return Text(title, raw[title_end : title_end + name_bytes].decode())

    def put(self, rows: Rows64, unit: Float32s, texts: Sequence[Text | None]) -> None:
        """Write rows.

        Args:
            rows: ascending or not, without repeats, shape (N,).
            unit: shape (N, dim).
            texts: None leaves the one that stands.

        Raises:
            Full: a row is beyond the end, or there is no room for a text; nothing was written.
        """
        blobs = [None if text is None else _packed(text) for text in texts]
        needed = sum(len(blob) for blob in blobs if blob is not None)
        end = int(self._header["heap_end"][0])
        if (len(rows) and int(rows.max()) >= len(self._version)) or needed > (
            int(self._header["heap"][0]) - end
        ):
            raise Full
        places = np.zeros(len(rows), np.uint64)
        at = self._heap_at + end
        for number, blob in enumerate(blobs):
            if blob is not None:
                self._buffer[at : at + len(blob)] = blob
                places[number] = at
                at += len(blob)
        self._header["heap_end"] = at - self._heap_at
        for start in range(0, len(rows), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            self._write(rows[part], unit[part], places[part])

    def free(self, rows: Rows64) -> None:
        """Take rows out of every search."""
        for start in range(0, len(rows), _TOGETHER):
            part = rows[start : start + _TOGETHER]
            self._write(part, None, np.zeros(len(part), np.uint64))

    def repair(self) -> None:
        """Free the rows that a writer left half written."""
        if self._header["writing"][0]:
            odd = np.flatnonzero(self._version & 1)
            self._header["rows"] = max(self._rows(), int(odd.max(initial=-1)) + 1)
            self._text_at[odd] = 0
            self._pass()
            self._version[odd] += 1
            self._header["writing"] = 0

    def scores(self, query: Float32s) -> tuple[Float32s, UInt64s]:
        """The product of each row with `query`, -inf where the row is free, and `text_places`.

        A row that a writer leaves odd for longer than some milliseconds is left out.
        """
        count = self._rows()
        version, text_at, unit = self._version[:count], self._text_at[:count], self._unit[:count]
        before = version.copy()
        self._pass()
        found: Float32s = unit @ query
        places = text_at.copy()
        self._pass()
        torn = np.flatnonzero((version != before) | (before & 1 == 1))
        for pause_s in _PAUSES_S:
            if not torn.size:
                break
            time.sleep(pause_s)
            before = version[torn]
            self._pass()
            found[torn], places[torn] = unit[torn] @ query, text_at[torn]
            self._pass()
            torn = torn[(version[torn] != before) | (before & 1 == 1)]
        places[torn] = 0
        found[places == 0] = -np.inf
        return found, places

    def vector(self, row: int) -> tuple[Float32s, int]:
        """A copy of one row, and where its text stands (0: it is free, or was not to be had)."""
        for pause_s in _PAUSES_S:
            before = int(self._version[row])
            self._pass()
            unit, place = self._unit[row].copy(), int(self._text_at[row])
            self._pass()
            if int(self._version[row]) == before and not before & 1:
                return unit, place
            time.sleep(pause_s)
        return np.zeros(self.dim, np.float32), 0

    def all(self) -> Iterable[tuple[Rows64, Float32s, list[Text]]]:
        """All rows in use, in lots; for whoever holds the lock."""
        used = np.flatnonzero(self._text_at[: self._rows()])
        for start in range(0, len(used), 4096):
            rows = used[start : start + 4096]
            yield rows, self._unit[rows], [self.text(at) for at in self._text_at[rows].tolist()]

    def _write(self, rows: Rows64, unit: Float32s | None, places: UInt64s) -> None:
        self._header["writing"] = 1
        self._version[rows] += 1
        self._pass()
        if unit is None:
            self._text_at[rows] = 0
        else:
            self._unit[rows] = unit
            named = places > 0
            self._text_at[rows[named]] = places[named]
        self._pass()
        self._version[rows] += 1
        if len(rows):
            self._header["rows"] = max(self._rows(), int(rows.max()) + 1)
        self._header["writing"] = 0

    def _rows(self) -> int:
        return int(self._header["rows"][0])

    def _pass(self) -> None:
        """Nothing moves from one side of this to the other."""
        with self._fence:
            pass


def heap_bytes(texts: Iterable[Text]) -> int:
    """Room that these take."""
    return sum(len(_packed(text)) for text in texts)


def _layout(dim: int, capacity: int) -> tuple[int, int, int, int]:
    """Where version, text_at, unit and heap begin."""
    version = _HEADER_BYTES
    text_at = _up(version + 8 * capacity)
    unit = _up(text_at + 8 * capacity)
    return version, text_at, unit, _up(unit + vectors.DTYPE.itemsize * dim * capacity)


def _up(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _packed(text: Text) -> bytes:
    title = text.title.encode()
    name = b"" if text.name is None else text.name.encode()
    length = _NO_NAME if text.name is None else len(name)
    head: Any = len(title).to_bytes(2, "little") + length.to_bytes(4, "little")
    return bytes(head + title + name)
