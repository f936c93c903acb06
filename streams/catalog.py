"""The catalogue: which titles there are, under which concepts, and since when.

    graph          edges title ─▶ concept of weight 1, one relation a kind of concept; the concept's
                   name is "relation:value"; dense features of titles
    here           title -> time of the event that was applied last, its name, whether it is retired
    catalog.json   the same in a checkpoint: [[title, time_ms, name or null, retired], ...]

The last event wins, by `time_ms`; of two at one time the one that came later. So late and repeated
events change nothing. A retired title leaves a tombstone with its time, so that an older event
cannot bring it back; a newer one can. An entry replaces all concepts of its title, as a difference
to the edges that stand, and its features, whose width is that of the first that came. A concept
stays when its last title leaves: the model has learnt it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from store.edges import EdgeBatch, Op
from store.graph import DynamicGraph, Relation
from store.ids import IdTable
from streams.events import CatalogEntry, Retirement

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FILE: Final = "catalog.json"
_ENTRIES = msgspec.json.Decoder(list[tuple[str, int, str | None, bool]])


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """What a batch of entries did.

    Attributes:
        titles: dense ids of the titles that are to be embedded anew, one an applied event, repeats
            included, shape (T,), int32.
        rows: which entry it was, shape (T,), int64.
        time_ms: that entry's time, shape (T,), int64.
        concepts: dense ids of the concepts that won or lost a title, ascending, shape (C,), int32.
        retired_ids: dense ids that are free now (or taken again, by one of `titles`), shape (R,).
        retired: titles that are retired now -> when.
        ignored: entries that were older than what stands.
        refused: row -> why an entry was not taken at all.
    """

    titles: Int32s
    rows: Int64s
    time_ms: Int64s
    concepts: Int32s
    retired_ids: Int32s
    retired: dict[str, int]
    ignored: int
    refused: dict[int, str]


class Catalog:
    """Folds catalog events into a graph. Its user holds the lock over both.

    Args:
        graph: gets the vertex types "title" and "concept".
        unknown_relations: whether an entry may bring a relation that the graph does not have.
    """

    def __init__(
        self, graph: DynamicGraph, *, unknown_relations: Literal["accept", "refuse"] = "accept"
    ) -> None:
        graph.ids.setdefault("title", IdTable())
        self._graph = graph
        self._accept = unknown_relations == "accept"
        self._time: dict[str, int] = {}
        self._name: dict[str, str] = {}
        self._retired: set[str] = set()

    def __len__(self) -> int:
        """Titles that are in the catalogue now."""
        return len(self._time) - len(self._retired)

    def __contains__(self, title: object) -> bool:
        return title in self._time and title not in self._retired

    def apply(self, entries: Sequence[CatalogEntry], *, learn: bool = False) -> CatalogChange:
        """Fold entries in, in their order.

        Args:
            learn: take unknown relations whatever the setting says: where the catalogue is built.
        """
        known = None if learn or self._accept else {one.name for one in self._graph.relations}
        last: dict[str, CatalogEntry] = {}
        touched: dict[str, list[int]] = {}
        retired: dict[str, int] = {}
        wiped: dict[str, None] = {}
        refused: dict[int, str] = {}
        width = self._graph.num_features("title")
        ignored = 0
        for row, entry in enumerate(entries):
            title = entry.title
            if entry.time_ms < self._time.get(title, 0):
                ignored += 1
            elif isinstance(entry, Retirement):
                self._time[title] = retired[title] = entry.time_ms
                self._name.pop(title, None)
                self._retired.add(title)
                wiped[title] = None
                last.pop(title, None)
                touched.pop(title, None)
            elif known is not None and (odd := entry.concepts.keys() - known):
                refused[row] = (
                    f"relation {min(odd)!r} is unknown: name it in the first catalogue, or set "
                    "graph.unknown_relations = accept"
                )
            elif entry.features and width and len(entry.features) != width:
                refused[row] = (
                    f"features has {len(entry.features)} numbers, those of the catalogue have "
                    f"{width}: send as many, or none"
                )
            else:
                width = width or len(entry.features or ())
                self._time[title] = entry.time_ms
                if entry.name is None:
                    self._name.pop(title, None)
                else:
                    self._name[title] = entry.name
                self._retired.discard(title)
                retired.pop(title, None)
                last[title] = entry
                touched.setdefault(title, []).append(row)

        freed, lost = self._wipe(list(wiped))
        ids = self._graph.ids["title"].intern(list(last))
        changed = self._replace(list(last.values()), ids)
        self._set_features(list(last.values()), ids, width)
        counts = [len(touched[title]) for title in last]
        rows = np.array([row for title in last for row in touched[title]], np.int64)
        return CatalogChange(
            titles=np.repeat(ids, counts),
            rows=rows,
            time_ms=np.array([entries[row].time_ms for row in rows.tolist()], np.int64),
            concepts=np.unique(np.concatenate([lost, *changed])),
            retired_ids=freed,
            retired=retired,
            ignored=ignored,
            refused=refused,
        )

    @property
    def any_retired(self) -> bool:
        """Whether a title was retired, and has not come back."""
        return bool(self._retired)

    def playable(self, titles: Sequence[str]) -> Bools:
        """Which titles are not retired, shape (N,); those of which nothing is known are not."""
        if not self._retired:
            return np.ones(len(titles), bool)
        return ~np.fromiter(map(self._retired.__contains__, titles), bool, len(titles))

    def names_of(self, titles: Sequence[str]) -> list[str | None]:
        """The name of each title for human eyes, where it has one."""
        return [self._name.get(title) for title in titles]

    def save(self, folder: Path) -> None:
        """Write the catalogue, without the graph, into a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        entries = [
            (title, time_ms, self._name.get(title), title in self._retired)
            for title, time_ms in self._time.items()
        ]
        (folder / FILE).write_bytes(msgspec.json.encode(entries))

    @classmethod
    def load(
        cls,
        folder: Path,
        graph: DynamicGraph,
        *,
        unknown_relations: Literal["accept", "refuse"] = "accept",
    ) -> "Catalog":
        """Read what `save` wrote; `graph` is the one that stood beside it.

        Raises:
            ValueError: the file is missing, or not what was written.
        """
        catalog = cls(graph, unknown_relations=unknown_relations)
        try:
            entries = _ENTRIES.decode((folder / FILE).read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise ValueError(f"{folder / FILE} holds no catalogue: {error}") from error
        for title, time_ms, name, retired in entries:
            catalog._time[title] = time_ms
            if name is not None:
                catalog._name[title] = name
            if retired:
                catalog._retired.add(title)
        return catalog

    def _wipe(self, titles: list[str]) -> tuple[Int32s, Int32s]:
        """Remove titles with all their edges; their ids, and the concepts that lost one."""
        found = self._graph.ids["title"].find(titles)
        freed = found[found >= 0]
        if not len(freed):
            return freed, np.empty(0, np.int32)
        lost = [self._graph.neighbors(number, freed)[1] for number in self._semantic()]
        self._graph.retire("title", freed)
        return freed, np.concatenate([np.empty(0, np.int32), *lost])

    def _replace(self, entries: list[CatalogEntry], ids: Int32s) -> list[Int32s]:
        """Make each title's edges those of its entry; the concepts at edges that changed."""
        wanted: dict[str, tuple[list[int], list[str]]] = {}
        for entry, title in zip(entries, ids.tolist(), strict=True):
            for relation, values in entry.concepts.items():
                heads, tails = wanted.setdefault(relation, ([], []))
                heads += [title] * len(values)
                tails += [f"{relation}:{value}" for value in values]
        for relation in wanted:
            self._graph.add_relation(Relation(relation, "title", "concept"))

        changes: list[tuple[int, Op, Int64s]] = []
        for number in self._semantic() if len(ids) else []:
            indptr, others, _ = self._graph.neighbors(number, ids)
            stand = _keys(np.repeat(ids, np.diff(indptr)), others)
            titles, names = wanted.get(self._graph.relations[number].name, ([], []))
            concepts = self._graph.ids["concept"].intern(names)
            want = np.unique(_keys(np.array(titles, np.int32), concepts))
            changes.append((number, Op.DELETE, np.setdiff1d(stand, want, assume_unique=True)))
            changes.append((number, Op.SET, np.setdiff1d(want, stand, assume_unique=True)))
        if not changes:
            return []
        sizes = [len(keys) for _, _, keys in changes]
        keys = np.concatenate([keys for _, _, keys in changes])
        batch = EdgeBatch(
            relation=np.repeat(np.array([one[0] for one in changes], np.int16), sizes),
            head=(keys >> 32).astype(np.int32),
            tail=(keys & 0xFFFFFFFF).astype(np.int32),
            weight=np.ones(len(keys), np.float32),
            op=np.repeat(np.array([one[1] for one in changes], np.uint8), sizes),
            time_ms=np.zeros(len(keys), np.int64),
        )
        self._graph.apply(batch)
        return [batch.tail]

    def _set_features(self, entries: list[CatalogEntry], ids: Int32s, width: int) -> None:
        """Give each title those of its entry, and none where it has none."""
        if not width:
            return
        has = np.array([bool(entry.features) for entry in entries], bool)
        values = [entry.features for entry in entries if entry.features]
        # Though all who had any have left in the same batch, the width is what they made it: what
        # is refused later must not hang on where batches end.
        self._graph.set_features("title", ids[has], np.reshape(values, (-1, width)))
        self._graph.clear_features("title", ids[~has])

    def _semantic(self) -> list[int]:
        """Numbers of the relations from titles to concepts."""
        return [
            number
            for number, relation in enumerate(self._graph.relations)
            if (relation.head, relation.tail) == ("title", "concept")
        ]


def _keys(heads: Int32s, tails: Int32s) -> Int64s:
    """One number an edge, shape (E,), int64."""
    return heads.astype(np.int64) << 32 | tails
