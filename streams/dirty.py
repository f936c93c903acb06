"""The dirty set: titles whose published embedding is older than the graph, and since when.

One numpy column a fact, indexed by the title's dense id, so that a batch of events marks its titles
in one call. A title stays dirty from its oldest event that readers cannot see yet; that event's
append time is what freshness is measured from; when it was read and folded in says where that time
went, and is not kept in a checkpoint. Times are milliseconds since the Unix epoch.
"""

import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

CLEAN = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Taken:
    """Titles taken out of the set, to be re-embedded.

    Attributes:
        titles: dense ids, shape (T,), int32.
        catalog_ms: append time of the oldest unseen catalog event, `CLEAN` if none, shape (T,).
        coplay_ms: the same of co-plays, shape (T,).
        event_ms: newest event time that the title has ever seen, shape (T,).
        when_ms: when the catalog event was read and when it was folded in, and the same two of the
            co-play; `CLEAN` where that is not known, shape (T, 4).
    """

    titles: Int32s
    catalog_ms: Int64s
    coplay_ms: Int64s
    event_ms: Int64s
    when_ms: Int64s

    def __len__(self) -> int:
        return len(self.titles)

    def oldest_ms(self) -> int:
        """Append time of the oldest of their events; `CLEAN` if there is none."""
        columns = (self.catalog_ms, self.coplay_ms)
        return int(min(column.min(initial=CLEAN) for column in columns))

    def keep(self, mask: Bools) -> "Taken":
        """The titles where `mask`, shape (T,), holds."""
        return Taken(*(getattr(self, column.name)[mask] for column in fields(self)))


class DirtySet:
    """Marked by the ingest, emptied by the refresh lane; its user holds the lock.

    Attributes:
        read_ms: when the batch that is being folded in was read from Kafka.
    """

    def __init__(self) -> None:
        self._catalog = np.empty(0, np.int64)
        self._coplay = np.empty(0, np.int64)
        self._event = np.empty(0, np.int64)
        self._when = np.empty((0, 4), np.int64)
        self.read_ms = CLEAN

    def mark_coplays(self, titles: Int32s, append_ms: Int64s, event_ms: Int64s) -> None:
        """Mark titles that co-plays touched; arrays of shape (T,), repeats allowed."""
        self._grow(titles)
        self._note(titles[self._coplay[titles] == CLEAN], 2)
        np.minimum.at(self._coplay, titles, append_ms)
        np.maximum.at(self._event, titles, event_ms)

    def mark_catalog(self, titles: Int32s, append_ms: Int64s, event_ms: Int64s) -> None:
        """Mark titles that catalog events touched; arrays of shape (T,), repeats allowed."""
        self._grow(titles)
        self._note(titles[self._catalog[titles] == CLEAN], 0)
        np.minimum.at(self._catalog, titles, append_ms)
        np.maximum.at(self._event, titles, event_ms)

    def forget(self, titles: Int32s) -> None:
        """A retired title is neither dirty nor has it seen an event: its slot may be reused."""
        self._grow(titles)
        self._catalog[titles] = CLEAN
        self._coplay[titles] = CLEAN
        self._when[titles] = CLEAN
        self._event[titles] = 0

    def take(self, limit: int) -> Taken:
        """Take out up to `limit` titles: with catalog events first, then the longest dirty."""
        dirty = np.flatnonzero((self._catalog != CLEAN) | (self._coplay != CLEAN)).astype(np.int32)
        if len(dirty) > limit:
            order = np.lexsort((self._coplay[dirty], self._catalog[dirty]))
            dirty = np.sort(dirty[order[:limit]])
        taken = Taken(
            dirty,
            self._catalog[dirty],
            self._coplay[dirty],
            self._event[dirty],
            self._when[dirty],
        )
        self._catalog[dirty] = CLEAN
        self._coplay[dirty] = CLEAN
        self._when[dirty] = CLEAN
        return taken

    def put_back(self, taken: Taken) -> None:
        """They could not be published: they are dirty since when they were, or longer."""
        self._grow(taken.titles)
        np.minimum.at(self._catalog, taken.titles, taken.catalog_ms)
        np.minimum.at(self._coplay, taken.titles, taken.coplay_ms)
        np.minimum.at(self._when, taken.titles, taken.when_ms)

    def seen_ms(self, titles: Int32s) -> Int64s:
        """Newest event time that each title has seen, 0 if none, shape (T,)."""
        self._grow(titles)
        return self._event[titles]

    def oldest_ms(self) -> int:
        """Append time of the oldest event that readers cannot see yet; `CLEAN` if none."""
        columns = (self._catalog, self._coplay)
        return int(min(column.min(initial=CLEAN) for column in columns))

    @property
    def urgent(self) -> bool:
        """Whether a catalog event waits: its title goes out at once, not at the next tick."""
        return bool((self._catalog != CLEAN).any())

    def __len__(self) -> int:
        return int(((self._catalog != CLEAN) | (self._coplay != CLEAN)).sum())

    def save(self, file: Path) -> None:
        """Write the set as one .npy of shape (3, capacity), int64."""
        np.save(file, np.stack([self._catalog, self._coplay, self._event]), allow_pickle=False)

    @classmethod
    def load(cls, file: Path) -> "DirtySet":
        """Read what `save` wrote."""
        loaded = cls()
        loaded._catalog, loaded._coplay, loaded._event = np.load(file, allow_pickle=False)
        loaded._when = np.full((len(loaded._event), 4), CLEAN, np.int64)
        return loaded

    def _grow(self, titles: Int32s) -> None:
        need = int(titles.max()) + 1 if len(titles) else 0
        if need <= len(self._event):
            return
        more = max(need, 2 * len(self._event)) - len(self._event)
        clean = np.full(more, CLEAN, np.int64)
        self._catalog = np.concatenate([self._catalog, clean])
        self._coplay = np.concatenate([self._coplay, clean])
        self._event = np.concatenate([self._event, np.zeros(more, np.int64)])
        self._when = np.concatenate([self._when, np.full((more, 4), CLEAN, np.int64)])

    def _note(self, titles: Int32s, column: int) -> None:
        """These were clean until now: a later event of theirs is not the one that is waited for."""
        self._when[titles, column] = self.read_ms
        self._when[titles, column + 1] = int(time.time() * 1000)


def joined(parts: list[Taken]) -> Taken:
    """Several takings as one."""
    columns = (np.concatenate([getattr(one, f.name) for one in parts]) for f in fields(Taken))
    return Taken(*columns)
