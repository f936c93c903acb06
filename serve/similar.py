"""Titles near a title: exact cosine search over a local copy that follows the updates.

The copy holds unit vectors, one row a title, so that a search is one matrix-vector product: 100 000
titles of dim 64 are 26 MB and some milliseconds. Rows of retired titles are used again.
"""

import difflib
import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from redis import Redis

from serve import search, spaces
from serve.connection import RedisFailed, call_all
from serve.reader import EmbeddingReader
from serve.reading import Batch
from serve.spaces import NoSpace
from serve.updates import Updates
from serve.vectors import title_prefix

_SUGGESTIONS = 5
_NAMED = 50  # names with all the words of a query, of which one is the query
_FIRST_ROWS = 1024


log = logging.getLogger(__name__)


class Neighbour(NamedTuple):
    """A title near the one asked for; `score` is the cosine, -1 to 1."""

    title: str
    name: str | None
    score: float


class UnknownTitle(ValueError):
    """No title has that id or name; the text offers close ones. `suggestions`: names or ids."""

    def __init__(self, query: str, suggestions: list[str]) -> None:
        hint = f"; do you mean {', '.join(suggestions)}?" if suggestions else ""
        super().__init__(f"no title has the id or name {query!r}{hint}")
        self.suggestions = suggestions


class SimilarTitles:
    """Finds neighbours in the live space. One thread at a time.

    Args:
        reader: reads the space; or a client, or a URL, for a reader of the live one.
    """

    def __init__(self, reader: EmbeddingReader | Redis | str) -> None:
        self._reader = reader if isinstance(reader, EmbeddingReader) else EmbeddingReader(reader)
        self._follower = self._reader.follower()
        self._clear()

    def __len__(self) -> int:
        return len(self._row)

    def refresh(self) -> int:
        """Take over what was published since the last call; return how many titles changed.

        Raises:
            NoSpace: no space is live.
            RedisFailed: Redis failed.
        """
        changed = 0
        while True:
            lot = self._follower.poll()
            if lot.reset:
                changed += self._load(lot)
            elif lot.updates:
                changed += self._apply(lot)
            else:
                return changed

    def similar(self, query: str, k: int = 10) -> list[Neighbour]:
        """The `k` titles nearest to the title with this id or name, without that title itself.

        Raises:
            UnknownTitle: there is no such title.
            NoSpace, RedisFailed: as `refresh` does.
        """
        self.refresh()
        title = self.find(query)
        return self.near(self._unit[self._row[title]], k, without=(title,))

    def near(
        self, vector: npt.NDArray[np.float32], k: int = 10, *, without: Sequence[str] = ()
    ) -> list[Neighbour]:
        """The `k` titles nearest to a vector of shape (dim,), best first; ties by row."""
        if not self._row:
            return []
        length = float(np.linalg.norm(vector))
        scores = self._unit @ (vector / length if length else vector)
        scores[~self._used] = -np.inf
        scores[[self._row[title] for title in without if title in self._row]] = -np.inf
        k = min(k, int((scores > -np.inf).sum()))
        if k <= 0:
            return []
        best = np.argpartition(-scores, k - 1)[:k]
        best = best[np.lexsort((best, -scores[best]))]
        return [
            Neighbour(self._title[row], self._name[row], float(scores[row]))
            for row in best.tolist()
        ]

    def find(self, query: str) -> str:
        """The id of the title with this id or, whatever its case, this name.

        Of several with the name, the first by id. A name may be given without its year: "Toy Story"
        finds "Toy Story (1995)" where nothing is called "Toy Story".

        Raises:
            UnknownTitle: there is none; it offers close ones.
        """
        if query in self._row:
            return query
        wanted = _plain(query)
        for names in (self._by_name, self._by_short_name):
            if wanted in names:
                return min(names[wanted])
        close = difflib.get_close_matches(wanted, self._by_name, n=_SUGGESTIONS, cutoff=0.6)
        within = [name for name in self._by_name if wanted and wanted in name]
        shown = dict.fromkeys([*close, *sorted(within, key=len)])
        labels = [self._name[self._row[min(self._by_name[name])]] or name for name in shown]
        raise UnknownTitle(query, labels[:_SUGGESTIONS])

    def name(self, title: str) -> str | None:
        """The name of a title of the copy; None where it has none or is not there."""
        row = self._row.get(title)
        return None if row is None else self._name[row]

    def _clear(self) -> None:
        self._row: dict[str, int] = {}
        self._title: list[str] = []
        self._name: list[str | None] = []
        self._by_name: dict[str, set[str]] = {}
        self._by_short_name: dict[str, set[str]] = {}
        self._free: list[int] = []
        self._unit = np.zeros((0, 0), np.float32)
        self._used = np.zeros(0, np.bool_)

    def _load(self, lot: Updates) -> int:
        self._clear()
        if not lot.space:
            self._reader.space()  # says in its error what is missing
            raise NoSpace("the live space vanished while it was read; try again")
        snapshot = self._reader.snapshot()
        self._put(snapshot.titles, snapshot.names, snapshot.matrix)
        return len(snapshot.titles)

    def _apply(self, lot: Updates) -> int:
        titles = list(dict.fromkeys(update.title for update in lot.updates))
        batch: Batch = self._reader.get_many(titles)
        prefix = title_prefix(lot.space)
        raws = call_all(self._reader.client, [("HGET", prefix + one, "name") for one in titles])
        if batch.versions.space != lot.space:
            return 0  # switched between the two calls: the next poll says `reset`
        names = [None if raw is None else raw.decode() for raw in raws]
        for title, found in zip(titles, batch.found.tolist(), strict=True):
            if not found:
                self._drop(title)
        rows = np.flatnonzero(batch.found)
        there = rows.tolist()
        self._put([titles[i] for i in there], [names[i] for i in there], batch.matrix[rows])
        return len(titles)

    def _put(
        self, titles: list[str], names: list[str | None], matrix: npt.NDArray[np.float32]
    ) -> None:
        if not titles:
            return
        rows = [self._place(title) for title in titles]
        self._grow(matrix.shape[1])
        norms = np.linalg.norm(matrix, axis=1, keepdims=True)
        self._unit[rows] = matrix / np.where(norms > 0, norms, 1)
        self._used[rows] = True
        for row, title, name in zip(rows, titles, names, strict=True):
            if self._name[row] != name:
                self._unname(row)
                self._name[row] = name
                for index, key in self._index(name):
                    index.setdefault(key, set()).add(title)

    def _place(self, title: str) -> int:
        row = self._row.get(title)
        if row is None:
            if self._free:
                row = self._free.pop()
                self._title[row] = title
            else:
                row = len(self._title)
                self._title.append(title)
                self._name.append(None)
            self._row[title] = row
        return row

    def _grow(self, dim: int) -> None:
        rows = len(self._used)
        if len(self._title) > rows:
            more = max(_FIRST_ROWS, 2 * rows, len(self._title))
            unit = np.zeros((more, dim), np.float32)
            used = np.zeros(more, np.bool_)
            if rows:
                unit[:rows], used[:rows] = self._unit, self._used
            self._unit, self._used = unit, used

    def _drop(self, title: str) -> None:
        row = self._row.pop(title, None)
        if row is None:
            return
        self._unname(row)
        self._name[row] = None
        self._used[row] = False
        self._unit[row] = 0
        self._free.append(row)

    def _unname(self, row: int) -> None:
        """Take a row's name out of the indices."""
        title = self._title[row]
        for index, key in self._index(self._name[row]):
            titles = index.get(key, set())
            titles.discard(title)
            if not titles:
                index.pop(key, None)

    def _index(self, name: str | None) -> list[tuple[dict[str, set[str]], str]]:
        """In which index a name stands, and under what."""
        if name is None:
            return []
        return [(self._by_name, _plain(name)), (self._by_short_name, _without_year(name))]


def similar_titles(
    source: EmbeddingReader | Redis | str, query: str, k: int = 10
) -> list[Neighbour]:
    """One search, for a program that then ends: by the server, where the space has an index there.

    Else, or where the server does not find the name, over a local copy: that reads the whole space.

    Raises:
        UnknownTitle, NoSpace, RedisFailed: as `SimilarTitles.similar` does.
    """
    reader = source if isinstance(source, EmbeddingReader) else EmbeddingReader(source)
    space = spaces.get_space(reader.client, reader.space())
    if space is not None and space.search:
        try:
            found = _by_server(reader, space, query, k)
        except RedisFailed as error:
            log.warning("searching a local copy instead: %s", error)
        else:
            if found is not None:
                return found
    return SimilarTitles(reader).similar(query, k)


def _by_server(
    reader: EmbeddingReader, space: spaces.Space, query: str, k: int
) -> list[Neighbour] | None:
    """The neighbours, by the space's index; None where it does not know the title."""
    title = query
    matrix, found, versions = reader.get_many([title])
    if not found[0] and space.search == search.FT:
        wanted = _plain(query)
        names = search.named(reader.client, space.name, query, _NAMED)
        for same in (_plain, _without_year):
            titles = sorted(one for one, name in names.items() if same(name) == wanted)
            if titles:
                title = titles[0]
                matrix, found, versions = reader.get_many([title])
                break
    if not found[0] or versions.space != space.name or not matrix[0].any():
        return None
    near = search.nearest(reader.client, space.name, space.search, matrix[0], k + 1)
    near = [(one, score) for one, score in near if one != title][:k]
    labels = reader.names([one for one, _ in near])
    return [Neighbour(one, name, score) for (one, score), name in zip(near, labels, strict=True)]


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


def _without_year(name: str) -> str:
    """A film's name without the "(1995)" at its end."""
    plain = _plain(name)
    head, _, year = plain.rpartition(" (")
    return head if head and year.endswith(")") and year[:-1].isdigit() else plain
