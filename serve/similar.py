"""Titles near a title: exact cosine search over a local copy that follows the updates.

The copy (serve/local_copy.py) holds unit vectors, one row a title, so that a search is one
matrix-vector product: 100 000 titles of dim 64 are 26 MB and some milliseconds. Given a folder, it
is a file that processes share.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from redis import Redis

from serve import search, spaces
from serve.connection import RedisFailed
from serve.local_copy import CopyLocked, LocalCopy
from serve.names import UnknownTitle, plain, without_year
from serve.reader import EmbeddingReader
from serve.vectors import RESERVED

__all__ = ["CopyLocked", "Neighbour", "SimilarTitles", "UnknownTitle", "similar_titles"]

_NAMED = 50  # names with all the words of a query, of which one is the query
_CANARIES = 4  # heartbeat titles that may stand among the nearest

log = logging.getLogger(__name__)


class Neighbour(NamedTuple):
    """A title near the one asked for; `score` is the cosine, -1 to 1."""

    title: str
    name: str | None
    score: float


class SimilarTitles:
    """Finds neighbours in the live space. One thread at a time.

    Args:
        reader: reads the space; or a client, or a URL, for a reader of the live one.
        folder: share the copy with all processes of this machine that name the same folder
            (serve/local_copy.py); None: a copy in memory, for this process alone.
    """

    def __init__(
        self, reader: EmbeddingReader | Redis | str, *, folder: Path | None = None
    ) -> None:
        self._reader = reader if isinstance(reader, EmbeddingReader) else EmbeddingReader(reader)
        self._copy = LocalCopy(self._reader, folder)

    def __len__(self) -> int:
        return len(self._copy)

    def refresh(self) -> int:
        """Take over what was published since the last call; return how many titles changed.

        Raises:
            NoSpace: no space is live.
            RedisFailed: Redis failed.
            CopyLocked, OSError: the folder cannot be used.
        """
        return self._copy.refresh()

    def similar(self, query: str, k: int = 10) -> list[Neighbour]:
        """The `k` titles nearest to the title with this id or name, without that title itself.

        Raises:
            UnknownTitle: there is no such title.
            NoSpace, RedisFailed, CopyLocked, OSError: as `refresh` does.
        """
        self.refresh()
        title = self.find(query)
        return self.near(self.vector(title), k, without=(title,))

    def near(
        self, vector: npt.NDArray[np.float32], k: int = 10, *, without: Sequence[str] = ()
    ) -> list[Neighbour]:
        """The `k` titles nearest to a vector of shape (dim,), best first; ties by row."""
        length = float(np.linalg.norm(vector))
        unit = vector / length if length else vector
        return [Neighbour(*found) for found in self._copy.nearest(unit, k, without)]

    def find(self, query: str) -> str:
        """The id of the title with this id or, whatever its case, this name.

        Of several with the name, the first by id. A name may be given without its year: "Toy Story"
        finds "Toy Story (1995)" where nothing is called "Toy Story".

        Raises:
            UnknownTitle: there is none; it offers close ones.
        """
        if query in self._copy:
            return query
        found = self._copy.names.find(query)
        if found is None:
            close = self._copy.names.close_to(query)
            raise UnknownTitle(query, [self.name(title) or title for title in close])
        return found

    def name(self, title: str) -> str | None:
        """The name of a title of the copy; None where it has none or is not there."""
        return self._copy.name(title)

    def vector(self, title: str) -> npt.NDArray[np.float32]:
        """The unit vector of a title, by id, shape (dim,); raises UnknownTitle."""
        vector = self._copy.vector(title)
        if vector is None:
            raise UnknownTitle(title, [])
        return vector

    def rows(self) -> tuple[list[str], list[str | None], npt.NDArray[np.float32]]:
        """All titles, their names, and their unit vectors as rows, shape (N, dim)."""
        return self._copy.all()

    def take_new(self) -> list[str]:
        """Titles that have come since the last call: each is told once, in the order of its row.

        Those that were there when the copy was made first are not new.
        """
        return self._copy.take_new()


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
        wanted = plain(query)
        names = search.named(reader.client, space.name, query, _NAMED)
        for same in (plain, without_year):
            titles = sorted(one for one, name in names.items() if same(name) == wanted)
            if titles:
                title = titles[0]
                matrix, found, versions = reader.get_many([title])
                break
    if not found[0] or versions.space != space.name or not matrix[0].any():
        return None
    more = k + 1 + _CANARIES
    near = search.nearest(reader.client, space.name, space.search, matrix[0], more)
    near = [pair for pair in near if pair[0] != title and not pair[0].startswith(RESERVED)][:k]
    labels = reader.names([one for one, _ in near])
    return [Neighbour(one, name, score) for (one, score), name in zip(near, labels, strict=True)]
