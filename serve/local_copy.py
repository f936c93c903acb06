"""A copy of a space on this machine, which follows the updates stream: in memory, or in a folder.

In a folder, all processes that name it share one file a space: whoever refreshes first takes the
lock, brings the copy up to date for all, and lets go. The others find it done. So the space is
read once a machine, and its vectors stand in memory once; a process that starts later, or again,
goes on from the file's mark instead of reading the space. The ids and names of the rows are this
process's own. A file is made under another name, and renamed when it is complete.

A folder is for processes of one machine and one user: not for a network's file system, where
neither the lock nor the mapping holds.
"""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from serve import spaces
from serve.connection import call_all
from serve.names import NameIndex
from serve.reader import EmbeddingReader
from serve.rows import Full, Rows, Text, Unusable, heap_bytes
from serve.spaces import NoSpace
from serve.updates import Mark, Updates
from serve.vectors import RESERVED, title_prefix

Float32s = npt.NDArray[np.float32]

LOCK_S = 10.0  # how long another process may hold the lock
_LEAST_ROWS = 1024
_LEAST_HEAP = 64 * 1024
_SUFFIX = ".vectors"

log = logging.getLogger(__name__)


class CopyLocked(RuntimeError):
    """Another process held the folder's lock for too long, and there is no copy yet."""


class LocalCopy:
    """Unit vectors, ids and names of the titles of the space that `reader` reads. One thread.

    Args:
        folder: where the copy is, made if need be; None: in memory, for this process alone.
    """

    def __init__(self, reader: EmbeddingReader, folder: Path | None = None) -> None:
        self._reader, self._folder = reader, folder
        self._follower = reader.follower()
        self._rows: Rows | None = None
        self._known: Rows | None = None  # whose ids and names these are:
        self._row: dict[str, int] = {}
        self._text: list[Text | None] = []
        self._names: NameIndex | None = None
        self._version = np.zeros(0, np.uint64)
        self._place = np.zeros(0, np.uint64)
        self._new: dict[str, None] | None = None  # titles to be told of; None before the first copy

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, title: str) -> bool:
        return title in self._row

    @property
    def names(self) -> NameIndex:
        """Which titles have a name; made when it is first asked for."""
        if self._names is None:
            self._names = NameIndex({title: self.name(title) for title in self._row})
        return self._names

    def name(self, title: str) -> str | None:
        """None where it has none, or is not in the copy."""
        row = self._row.get(title)
        text = None if row is None else self._text[row]
        return None if text is None else text.name

    def vector(self, title: str) -> Float32s | None:
        """The unit vector; None where the title is not in the copy."""
        row = self._row.get(title)
        if row is None or self._rows is None:
            return None
        unit, place = self._rows.vector(row)
        return unit if place and self._text_of(row, place).title == title else None

    def nearest(
        self, vector: Float32s, k: int, without: Sequence[str]
    ) -> list[tuple[str, str | None, float]]:
        """Titles, names and cosines, best first; ties by row. `vector`: of length 1, or 0."""
        if self._rows is None:
            return []
        scores, places = self._rows.scores(vector)
        found = min(k + len(without), int((scores > -np.inf).sum()))
        if found <= 0:
            return []
        best = np.argpartition(-scores, found - 1)[:found]
        best = best[np.lexsort((best, -scores[best]))]
        out = []
        for row in best.tolist():
            text = self._text_of(row, int(places[row]))
            if text.title not in without:
                out.append((text.title, text.name, float(scores[row])))
        return out[:k]

    def all(self) -> tuple[list[str], list[str | None], Float32s]:
        """All titles in the order of their rows, their names, and unit vectors, shape (N, dim)."""
        found = [
            (text.title, text.name, vector)
            for text in self._text
            if text is not None and (vector := self.vector(text.title)) is not None
        ]
        dim = 0 if self._rows is None else self._rows.dim
        matrix = np.array([one[2] for one in found], np.float32).reshape(-1, dim)
        return [one[0] for one in found], [one[1] for one in found], matrix

    def take_new(self) -> list[str]:
        """Titles that the copy did not have before; each is told once."""
        new, self._new = self._new, None if self._new is None else {}
        return [title for title in new or {} if title in self._row]

    def refresh(self) -> int:
        """Take over what was published since the last call; return how many rows changed.

        While it fails, the copy stays as it is.

        Raises:
            NoSpace: no space is live.
            RedisFailed: Redis failed.
            CopyLocked: see there.
            OSError: the folder cannot be written, or its disk is full.
        """
        with self._locked() as locked:
            if not locked:
                return 0
            changed = self._take_up()
            while True:
                lot = self._follower.poll()
                if lot.reset:
                    self._load(lot)
                elif lot.updates:
                    self._apply(lot)
                changed += self._learn()
                if not (lot.reset or lot.updates):
                    self._commit()
                    return changed

    def _take_up(self) -> int:
        """Go on where the copy is, whoever brought it there; return how many rows changed."""
        if self._folder is not None and (self._rows is None or self._rows.replaced):
            self._rows = self._opened(self._reader.space()) or self._rows
        if self._rows is None:
            return 0
        self._rows.repair()
        self._go_on_from(self._rows.mark())
        return self._learn()

    def _go_on_from(self, mark: Mark) -> None:
        if self._follower.mark != mark:
            self._follower.resume(mark)

    def _load(self, lot: Updates) -> None:
        """What we had is void: take what another process has made since, or read the space."""
        if not lot.space:
            self._reader.space()  # says in its error what is missing
            raise NoSpace("the live space vanished while it was read; try again")
        mark = self._follower.mark
        there = self._opened(lot.space)
        if there is not None and there.mark().epoch == mark.epoch and not self._same(there):
            self._rows = there
            there.repair()
            self._follower.resume(there.mark())
            return
        snapshot = self._reader.snapshot()
        if snapshot.space != lot.space:
            return  # switched between the two calls: the next poll says `reset`
        texts = [Text(*pair) for pair in zip(snapshot.titles, snapshot.names, strict=True)]
        shown = [row for row, text in enumerate(texts) if not text.title.startswith(RESERVED)]
        texts, matrix = [texts[row] for row in shown], snapshot.matrix[shown]
        rows = self._created(mark, matrix.shape[1], len(texts), heap_bytes(texts))
        rows.put(np.arange(len(texts)), _unit(matrix), texts)
        self._install(rows, there)
        self._sweep(lot.space)

    def _same(self, there: Rows) -> bool:
        """Whether a file is the one that was just found to be void."""
        ours = self._rows
        return ours is not None and not ours.replaced and ours.mark() == there.mark()

    def _apply(self, lot: Updates) -> None:
        told = dict.fromkeys(update.title for update in lot.updates)
        titles = [title for title in told if not title.startswith(RESERVED)]
        batch = self._reader.get_many(titles)
        prefix = title_prefix(lot.space)
        raws = call_all(self._reader.client, [("HGET", prefix + one, "name") for one in titles])
        if batch.versions.space != lot.space:  # switched between the two calls
            self._go_on_from(self._mapped().mark())  # this lot again, should it be switched back
            return
        found = batch.found.tolist()
        gone = [title for title, there in zip(titles, found, strict=True) if not there]
        self._free(gone)
        there = np.flatnonzero(batch.found)
        self._put(
            [
                Text(titles[row], None if (raw := raws[row]) is None else raw.decode())
                for row in there.tolist()
            ],
            _unit(batch.matrix[there]),
        )
        self._commit()

    def _put(self, texts: list[Text], unit: Float32s) -> None:
        rows = self._mapped()
        places = rows.text_places()
        free = np.flatnonzero(places == 0).tolist()
        following = len(places)
        chosen, changed = [], []
        for text in texts:
            row = self._row.get(text.title)
            if row is None and free:
                row = free.pop()
            elif row is None:
                row, following = following, following + 1
            chosen.append(row)
            same = row < len(self._text) and self._text[row] == text and places[row] > 0
            changed.append(None if same else text)
        try:
            rows.put(np.array(chosen, np.int64), unit, changed)
        except Full:
            self._enlarge(following, heap_bytes(texts))
            self._mapped().put(np.array(chosen, np.int64), unit, texts)

    def _free(self, titles: list[str]) -> None:
        gone = [self._row[title] for title in titles if title in self._row]
        self._mapped().free(np.array(gone, np.int64))

    def _enlarge(self, rows: int, heap: int) -> None:
        """Copy all into a larger mapping, under the same row numbers."""
        old = self._mapped()
        lots = list(old.all())
        used = sum(heap_bytes(texts) for _, _, texts in lots)
        new = self._created(old.mark(), old.dim, 2 * rows, used + heap)
        for at, unit, texts in lots:
            new.put(at, unit, texts)
        self._install(new, old)

    def _created(self, mark: Mark, dim: int, rows: int, heap: int) -> Rows:
        """An empty mapping with room to spare; in a folder, not under its name yet."""
        path = None if self._folder is None else self._path(mark.space).with_suffix(".new")
        rows, heap = max(_LEAST_ROWS, rows + rows // 4), max(_LEAST_HEAP, 2 * heap)
        return Rows.create(path, mark, dim, rows, heap)

    def _install(self, rows: Rows, old: Rows | None) -> None:
        """Put a complete mapping in the place of another."""
        if rows.path is not None:
            path = self._path(rows.mark().space)
            os.replace(rows.path, path)
            rows.path = path
        if old is not None:
            old.replace()
        self._rows = rows
        self._go_on_from(rows.mark())

    def _commit(self) -> None:
        rows, mark = self._mapped(), self._follower.mark
        if rows.mark() != mark:
            rows.commit(mark)

    def _learn(self) -> int:
        """Take over the ids and names of rows that changed, by whomsoever; return how many did."""
        if self._rows is None:
            return 0
        had: Container[str] = self._row
        if self._rows is not self._known:
            self._known = self._rows
            self._row, self._text, self._names = {}, [], None
            self._version, self._place = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        versions, places = self._rows.versions(), self._rows.text_places()
        more = len(versions) - len(self._version)
        self._version = np.append(self._version, np.zeros(more, np.uint64))
        self._place = np.append(self._place, np.zeros(more, np.uint64))
        self._text += [None] * more
        moved = np.flatnonzero(places != self._place).tolist()
        left = [text for row in moved if (text := self._text[row]) is not None]
        came = {row: self._rows.text(int(places[row])) for row in moved if places[row]}
        if self._new is None:
            self._new = {}
        else:
            gone = {text.title for text in left}
            fresh = (text.title for text in came.values())
            self._new |= dict.fromkeys(one for one in fresh if one not in had and one not in gone)
        for text in left:
            self._row.pop(text.title)
        for row in moved:
            self._text[row] = came.get(row)
        self._row |= {text.title: row for row, text in came.items()}
        if self._names is not None:
            for text in left:
                self._names.remove(*text)
            for text in came.values():
                self._names.add(*text)
        changed = int((versions != self._version).sum())
        self._version, self._place = versions, places
        return changed

    def _text_of(self, row: int, place: int) -> Text:
        """What a row stands for now; another process may have given it to another title."""
        text = self._text[row] if row < len(self._text) and self._place[row] == place else None
        return text or self._mapped().text(place)

    def _mapped(self) -> Rows:
        if self._rows is None:
            raise NoSpace("there is no copy of a space yet; call refresh")
        return self._rows

    def _path(self, space: str) -> Path:
        assert self._folder is not None  # noqa: S101  (callers have looked)
        return self._folder / f"{space}{_SUFFIX}"

    def _opened(self, space: str) -> Rows | None:
        """The space's file, where it stands and is whole."""
        if self._folder is None:
            return None
        try:
            return Rows.open(self._path(space))
        except FileNotFoundError:
            return None
        except Unusable as error:
            log.warning("%s; reading the space again", error)
            return None

    def _sweep(self, live: str) -> None:
        """Delete files of spaces that are no more; who has one mapped keeps it."""
        if self._folder is None:
            return
        for path in self._folder.glob(f"*{_SUFFIX}"):
            space = path.name.removesuffix(_SUFFIX)
            if space != live and spaces.get_space(self._reader.client, space) is None:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the folder's lock; False where it was not to be had in time, but there is a copy."""
        if self._folder is None:
            yield True
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + LOCK_S
        with open(self._folder / "lock", "ab") as file:
            while not _taken(file.fileno()):
                if time.monotonic() > deadline:
                    told = f"another process has held {file.name} for {LOCK_S:g} s; is it stopped?"
                    if self._rows is None:
                        raise CopyLocked(told)
                    log.warning("%s", told)
                    yield False
                    return
                time.sleep(0.002)
            yield True  # the lock goes with the file


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unit(matrix: Float32s) -> Float32s:
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    norms[norms == 0] = 1
    return np.asarray(matrix / norms, np.float32)
