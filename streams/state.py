"""The worker's state: a deterministic fold over the log, and its form in a checkpoint.

Holds the graph, the catalogue, the dirty set and the next offset of every partition. `apply_*` fold
one batch in; whoever calls holds `lock`. The model is no part of the fold (training depends on when
a cycle starts), but stands in the same checkpoint, so that all is restored as one.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.positives import Positives
from store.edges import EdgeBatch, Op
from store.graph import DynamicGraph, Relation
from streams.catalog import Catalog
from streams.columns import CoPlays, find, intern
from streams.dirty import DirtySet
from streams.events import CatalogEntry
from streams.settings import GraphSettings

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

COPLAY = Relation("coplay", "title", "title", symmetric=True)
BATCH = 65_536  # co-plays that the graph takes at once: what it sorts them in stays in the cache
MAX_FRESH = 500_000  # co-plays that wait for the next cycle; older ones fall out
MAX_PARTS = 256  # batches in which they wait


@dataclass(slots=True)
class State:
    """All that a replay of the log from its beginning would give.

    Attributes:
        changed_concepts: dense ids of concepts whose titles changed since they were re-embedded.
        retired: titles to delete from Redis, with the event time of their retirement.
        positions: next offset to read, by (topic, partition).
        seq: number of the last publication; it grows, and none is used twice.
        fresh: co-plays since the last training cycle, in order of arrival.
        event_ms: time of the newest event that each (topic, partition) has given: its watermark.
        stale: catalog events that were older than what stood, since the start.
        freed: dense ids of retired titles, by who must forget them before they mean another.
    """

    graph: DynamicGraph
    catalog: Catalog
    dirty: DirtySet = field(default_factory=DirtySet)
    positions: dict[tuple[str, int], int] = field(default_factory=dict)
    changed_concepts: set[int] = field(default_factory=set)
    retired: dict[str, int] = field(default_factory=dict)
    seq: int = 0
    fresh: list[Positives] = field(default_factory=list)
    freed: dict[str, list[Int32s]] = field(default_factory=lambda: {"embedder": [], "trainer": []})
    event_ms: dict[tuple[str, int], int] = field(default_factory=dict)
    stale: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    @classmethod
    def empty(cls, settings: GraphSettings) -> "State":
        """A state before the first event."""
        graph = DynamicGraph(
            [COPLAY],
            leaf_index=settings.leaf_index,
            leaf_capacity=settings.leaf_capacity,
            half_life_s=settings.half_life_s,
            threads=settings.threads,
        )
        return cls(graph, Catalog(graph, unknown_relations=settings.unknown_relations))

    def apply_coplays(self, pairs: CoPlays, append_ms: Int64s) -> Int32s:
        """Add the weight of each pair to its edge, and mark both titles dirty.

        A title that the catalogue has retired stays away; one that it has not named yet may come.

        Args:
            append_ms: when each event was appended to Kafka, shape (E,).

        Returns:
            The pairs' titles as dense ids, shape (E', 2): E' pairs whose titles both live.
        """
        titles = self.graph.ids["title"]
        if self.catalog.any_retired:
            keep = self._playable(pairs.a) & self._playable(pairs.b)
            if not keep.all():
                pairs, append_ms = pairs.keep(keep), append_ms[keep]
        a, b = intern(titles, pairs.a), intern(titles, pairs.b)
        edges = len(a)
        relation = np.full(min(edges, BATCH), self.graph.relation_id(COPLAY.name), np.int16)
        op = np.full(min(edges, BATCH), Op.ADD, np.uint8)
        for start in range(0, edges, BATCH):
            part = slice(start, start + BATCH)
            count = len(a[part])
            self.graph.apply(
                EdgeBatch(
                    relation=relation[:count],
                    head=a[part],
                    tail=b[part],
                    weight=pairs.weight[part],
                    op=op[:count],
                    time_ms=pairs.time_ms[part],
                )
            )
        for side in (a, b):
            self.dirty.mark_coplays(side, append_ms, pairs.time_ms)
        if edges:
            # A copy of what may be a view: else the whole message would stay for its time column.
            self.fresh.append(Positives(a, b, pairs.weight, pairs.time_ms.copy()))
            self._bound_fresh()
        return np.stack([a, b], axis=1)

    def seen(self, topic: str, partitions: Int32s, time_ms: Int64s) -> None:
        """Move the watermarks of a topic's partitions up to these events, shape (E,) each."""
        if not len(partitions):
            return
        newest = np.full(int(partitions.max()) + 1, -1, np.int64)
        np.maximum.at(newest, partitions, time_ms)
        for part in np.flatnonzero(newest >= 0).tolist():
            key = topic, part
            self.event_ms[key] = max(self.event_ms.get(key, 0), int(newest[part]))

    def low_watermark_ms(self, topic: str) -> int | None:
        """Event time that every partition of a topic has reached; those with no event do not count.

        A decision that waits for "all until then" can be made up to it, as far as each partition's
        events come in order. None: there was no event.
        """
        return min((at for (name, _), at in self.event_ms.items() if name == topic), default=None)

    def _playable(self, names: Sequence[str]) -> Bools:
        """Which titles are not retired, shape (E,): who has an id is in the graph, and is not."""
        playable = find(self.graph.ids["title"], names) >= 0
        unknown = np.flatnonzero(~playable)
        playable[unknown] = self.catalog.playable([names[row] for row in unknown.tolist()])
        return playable

    def apply_catalog(
        self, entries: Sequence[CatalogEntry], append_ms: Int64s, *, learn: bool = False
    ) -> dict[int, str]:
        """Upsert or retire titles; `append_ms` as above, one an entry.

        Args:
            learn: new relations are accepted, whatever the settings say of the stream.

        Returns:
            Rows of `entries` that were refused -> why.
        """
        change = self.catalog.apply(entries, learn=learn)
        self.stale += change.ignored
        self._forget(change.retired_ids)
        self.dirty.mark_catalog(change.titles, append_ms[change.rows], change.time_ms)
        self.changed_concepts.update(change.concepts.tolist())
        for title in self.graph.ids["title"].names(change.titles):
            self.retired.pop(title, None)
        self.retired.update(change.retired)
        return change.refused

    def _bound_fresh(self) -> None:
        """Forget what no cycle would see: without this a stalled trainer takes all memory."""
        if len(self.fresh) > MAX_PARTS or self.fresh_count() > 2 * MAX_FRESH:
            self.fresh = [self.take_fresh()]

    def take_concepts(self) -> Int32s:
        """The changed concepts, which are then no longer so, shape (C,)."""
        taken = np.fromiter(sorted(self.changed_concepts), np.int32, len(self.changed_concepts))
        self.changed_concepts.clear()
        return taken

    def take_fresh(self) -> Positives:
        """The co-plays since the last call, the newest `MAX_FRESH` of them."""
        taken = Positives.join(self.fresh)
        self.fresh.clear()
        return taken[-MAX_FRESH:] if len(taken) > MAX_FRESH else taken

    def fresh_count(self) -> int:
        """Co-plays that wait for the next cycle."""
        return sum(map(len, self.fresh))

    def take_freed(self, who: str) -> Int32s:
        """Ids that `who` must forget, once, shape (N,)."""
        freed = self.freed_for(who)
        self.freed[who] = []
        return freed

    def freed_for(self, who: str) -> Int32s:
        """The same, without taking them."""
        freed = self.freed[who]
        return np.unique(np.concatenate(freed)) if freed else np.empty(0, np.int32)

    def _forget(self, retired: Int32s) -> None:
        if not len(retired):
            return
        self.dirty.forget(retired)
        for freed in self.freed.values():
            freed.append(retired)
        for i, pairs in enumerate(self.fresh):
            gone = np.isin(pairs.a, retired) | np.isin(pairs.b, retired)
            self.fresh[i] = pairs[~gone]

    def forget_dirt(self) -> None:
        """What has been folded in so far needs no refresh: everything is published at the start."""
        self.dirty.take(2**31)
        self.changed_concepts.clear()
        self.fresh.clear()

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    def save(self, folder: Path) -> dict[str, object]:
        """Write the arrays under `folder`, and return the rest as JSON for the manifest."""
        self.graph.save(folder / "graph")
        return self.save_beside_graph(folder)

    def save_beside_graph(self, folder: Path) -> dict[str, object]:
        """`save` without the graph, for a caller that writes an image of it once nobody waits."""
        self.catalog.save(folder / "catalog")
        self.dirty.save(folder / "dirty.npy")
        return {
            "seq": self.seq,
            "positions": [[topic, part, at] for (topic, part), at in self.positions.items()],
            "retired": self.retired,
            "event_ms": [[topic, part, at] for (topic, part), at in self.event_ms.items()],
        }

    @classmethod
    def load(cls, folder: Path, meta: dict[str, object], settings: GraphSettings) -> "State":
        """Read what `save` wrote."""
        graph = DynamicGraph.load(folder / "graph", threads=settings.threads)
        catalog = Catalog.load(
            folder / "catalog", graph, unknown_relations=settings.unknown_relations
        )
        positions: list[tuple[str, int, int]] = meta["positions"]  # type: ignore[assignment]
        retired: dict[str, int] = meta["retired"]  # type: ignore[assignment]
        watermarks: list[tuple[str, int, int]] = meta.get("event_ms", [])  # type: ignore[assignment]
        return cls(
            graph,
            catalog,
            DirtySet.load(folder / "dirty.npy"),
            {(topic, part): at for topic, part, at in positions},
            retired=dict(retired),
            seq=int(str(meta["seq"])),
            event_ms={(topic, part): at for topic, part, at in watermarks},
        )
