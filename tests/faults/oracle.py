"""What must be: a plain fold of the same log, in dictionaries, and a watch over what Redis shows.

    Log      every message of the topics, read by a client of its own, by (topic, partition)
    Fold     pair -> weight, title -> catalog entry, up to any offsets; knows nothing of the store
    Watch    title -> last seq and newest event time, from the updates stream, as it comes

Weights of events are small whole numbers, so that float32 sums them without a rounding error, in
whatever order: what is compared is compared for equality. Of a title that is retired for good, all
co-plays are gone, whether they came before or after: so a fold of two topics has one outcome,
however they are interleaved. Titles that come back are left without co-plays.
"""

import contextlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import confluent_kafka
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from serve import vectors
from serve.connection import Client, RedisFailed, call, call_all, connect
from streams.state import COPLAY, State
from tests.faults.rig import Fault, entry_of, title_of

Positions = Mapping[tuple[str, int], int]
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as it stands in the log."""

    offset: int
    key: bytes | None
    value: bytes | None
    time_ms: int
    headers: list[tuple[str, bytes | None]] | None = None


class Log:
    """All that was ever written to some topics. Not for two threads."""

    def __init__(self, bootstrap: str, topics: Iterable[str], partitions: int) -> None:
        self.entries: dict[tuple[str, int], list[Entry]] = {
            (topic, part): [] for topic in topics for part in range(partitions)
        }
        self._consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "oracle",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(*key, OFFSET_BEGINNING) for key in self.entries])

    def read(self, count: int, within_s: float = 60.0) -> None:
        """Read on until `count` messages are known in all; raises Fault where they do not come."""
        deadline = time.monotonic() + within_s
        while len(self) < count:
            self.poll()
            if time.monotonic() > deadline:
                raise Fault(f"{count} messages were delivered, and the log holds {len(self)}")

    def poll(self) -> None:
        """Take in what is there now."""
        for one in self._consumer.consume(10_000, timeout=0.05):
            if one.error() is None:
                self._take(one)

    def ends(self) -> dict[tuple[str, int], int]:
        """The offset after the last message of each partition that has one."""
        return {key: found[-1].offset + 1 for key, found in self.entries.items() if found}

    def close(self) -> None:
        self._consumer.close()

    def __len__(self) -> int:
        return sum(map(len, self.entries.values()))

    def _take(self, one: Any) -> None:
        entry = Entry(one.offset(), one.key(), one.value(), one.timestamp()[1], one.headers())
        self.entries[one.topic(), one.partition()].append(entry)


@dataclass(slots=True)
class Listed:
    """A title of the catalogue: its last event."""

    time_ms: int
    name: str | None = None
    concepts: set[str] = field(default_factory=set)
    retired: bool = False


class Fold:
    """The log, folded up to some offsets; starts at the first checkpoint of the rig."""

    def __init__(self, log: Log, coplays: str, titles: int) -> None:
        self._log, self._coplays = log, coplays
        self._at: dict[tuple[str, int], int] = dict.fromkeys(log.entries, 0)  # index, not offset
        self.weights: dict[Pair, float] = defaultdict(float)
        self.newest_ms: dict[str, int] = defaultdict(int)
        self.catalog: dict[str, Listed] = {}
        self.bad: set[tuple[str, int, int]] = set()  # what is not JSON
        self.poison: set[tuple[str, int, int]] = set()  # what is known to be bad in other ways
        self.events = 0
        for number in range(titles):
            entry = entry_of(number)
            self.catalog[title_of(number)] = Listed(0, entry.name, _concepts(entry.concepts))

    def advance(self, positions: Positions) -> None:
        """Fold in all before `positions`, which never go back."""
        for key, entries in self._log.entries.items():
            end, at = positions.get(key, 0), self._at[key]
            fold = self._coplay if key[0] == self._coplays else self._entry
            while at < len(entries) and entries[at].offset < end:
                where = (*key, entries[at].offset)
                if where not in self.poison:
                    try:
                        fold(entries[at])
                    except ValueError:
                        self.bad.add(where)
                at += 1
            self._at[key] = at

    def edges(self) -> dict[Pair, float]:
        """The edges that must stand: those whose titles both do."""
        retired = {title for title, one in self.catalog.items() if one.retired}
        return {pair: weight for pair, weight in self.weights.items() if not retired & set(pair)}

    def _coplay(self, entry: Entry) -> None:
        event = json.loads(entry.value or b"")
        a, b = sorted((event["a"], event["b"]))
        self.weights[a, b] += event.get("weight", 1.0)
        self.events += 1
        for title in (a, b):
            # Of a clock that runs ahead, the broker's own is believed.
            newest_ms = min(event["time_ms"], entry.time_ms)
            self.newest_ms[title] = max(self.newest_ms[title], newest_ms)

    def _entry(self, entry: Entry) -> None:
        title = (entry.key or b"").decode()
        stands = self.catalog.get(title)
        if entry.value is None:
            made = Listed(entry.time_ms, retired=True)
        else:
            event = json.loads(entry.value)
            time_ms = min(event["time_ms"], entry.time_ms)
            made = Listed(time_ms, event.get("name"), _concepts(event["concepts"]))
        self.events += 1
        if stands is None or made.time_ms >= stands.time_ms:
            self.catalog[title] = made
            if made.retired:
                self.newest_ms[title] = 0
            else:
                self.newest_ms[title] = max(self.newest_ms[title], made.time_ms)


def _concepts(named: Mapping[str, Iterable[str]]) -> set[str]:
    return {f"{relation}:{value}" for relation, values in named.items() for value in values}


@dataclass(slots=True)
class Difference:
    """What a state has too little or too much of, in weight, and catalog entries that differ."""

    edges: int = 0
    lost: float = 0.0
    doubled: float = 0.0
    examples: list[str] = field(default_factory=list)
    catalog: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.catalog)

    def __str__(self) -> str:
        told = [f"lost {self.lost:g}, doubled {self.doubled:g} of {self.edges} edges"]
        return "; ".join([*told, *self.examples[:3], *self.catalog[:3]])


def compare(state: State, fold: Fold) -> Difference:
    """Every edge and every catalog entry of `state` against the fold up to the same offsets."""
    found = Difference()
    got = edges_of(state, found)
    want = fold.edges()
    found.edges = len(want)
    for pair in got.keys() | want.keys():
        has, must = got.get(pair, 0.0), want.get(pair, 0.0)
        if has != must:
            found.lost += max(must - has, 0.0)
            found.doubled += max(has - must, 0.0)
            found.examples.append(f"{pair}: {has:g}, want {must:g}")
    _compare_catalog(state, fold, found)
    return found


def edges_of(state: State, found: Difference) -> dict[Pair, float]:
    """The co-play edges of a state by their names; one that differs by direction is noted."""
    heads, tails, weights = state.graph.edges(state.graph.relation_id(COPLAY.name))
    ids = state.graph.ids["title"]
    a, b = ids.names(heads), ids.names(tails)
    every = dict(zip(zip(a, b, strict=True), weights.tolist(), strict=True))
    for (one, other), weight in every.items():
        if every.get((other, one)) != weight:
            found.catalog.append(f"{one} and {other} differ by direction")
    return {pair: weight for pair, weight in every.items() if pair[0] < pair[1]}


def _compare_catalog(state: State, fold: Fold, found: Difference) -> None:
    graph, catalog = state.graph, state.catalog
    concepts: dict[str, set[str]] = defaultdict(set)
    for number, relation in enumerate(graph.relations):
        if relation.tail == "concept":
            heads, tails, _ = graph.edges(number)
            named = zip(
                graph.ids["title"].names(heads), graph.ids["concept"].names(tails), strict=True
            )
            for title, concept in named:
                concepts[title].add(concept)
    known = catalog._time
    for title in fold.catalog.keys() | known.keys():
        want = fold.catalog.get(title)
        got = (
            Listed(
                known[title],
                catalog._name.get(title),
                concepts.get(title, set()),
                title in catalog._retired,
            )
            if title in known
            else None
        )
        if got != want:
            found.catalog.append(f"{title}: {got}, want {want}")
    live = {title for title, one in fold.catalog.items() if not one.retired}
    live |= {title for pair in fold.edges() for title in pair}
    odd = live ^ set(graph.ids["title"].names(graph.ids["title"].live_ids()))
    found.catalog += [f"{title} is there, or not, against the log" for title in sorted(odd)[:3]]


class Watch:
    """Follows the updates stream in a thread of its own, from its beginning.

    Attributes:
        seq, time_ms: of the last entry of each title.
        regressions: entries with a lower seq than the one before.
        faded: entries with an older newest event than the one before: an older content under a
            newer number. Titles in `volatile` are left out: they are retired and come again.
        fillings: how often the space was made anew.
    """

    def __init__(self, url: str, space: str, volatile: Iterable[str] = ()) -> None:
        self._url, self._space, self._volatile = url, space, frozenset(volatile)
        self.seq: dict[str, int] = {}
        self.time_ms: dict[str, int] = {}
        self.gone: set[str] = set()
        self.regressions: list[str] = []
        self.faded: list[str] = []
        self.updates, self.fillings = 0, 0
        self._epoch: bytes | None = None
        self._last = b"0"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read to the end of the stream, and stop."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        client = connect(self._url, timeout_s=2.0, retries=0)
        last_round = False
        while not last_round:
            last_round = self._stop.is_set()
            try:
                while self._poll(client):
                    pass
            except RedisFailed:
                time.sleep(0.05)
        client.close()

    def _poll(self, client: Client) -> bool:
        epoch = call(client, "HGET", vectors.meta_key(self._space), "epoch")
        if epoch != self._epoch:
            self._epoch, self._last = epoch, b"0"
            self.fillings += epoch is not None
            self.seq.clear()
            self.gone.clear()
        stream = vectors.updates_key(self._space)
        found = call(client, "XREAD", "COUNT", 5000, "BLOCK", 50, "STREAMS", stream, self._last)
        if not found:
            return False
        for number, fields in found[0][1]:
            if not isinstance(fields, dict):
                fields = dict(zip(fields[::2], fields[1::2], strict=True))
            self._last = number
            self._take(fields)
        return True

    def _take(self, fields: dict[bytes, bytes]) -> None:
        title, seq, time_ms = (
            fields[b"title"].decode(),
            int(fields[b"seq"]),
            int(fields[b"time_ms"]),
        )
        self.updates += 1
        if seq < self.seq.get(title, 0):
            self.regressions.append(f"{title}: seq {seq} after {self.seq[title]}")
        if time_ms < self.time_ms.get(title, 0) and title not in self._volatile:
            self.faded.append(f"{title}: event of {time_ms} after that of {self.time_ms[title]}")
        self.seq[title] = seq
        if b"gone" in fields:
            self.gone.add(title)
            self.time_ms.pop(title, None)
        else:
            self.gone.discard(title)
            self.time_ms[title] = max(time_ms, self.time_ms.get(title, 0))


def compare_published(
    client: Client, space: str, fold: Fold, watch: Watch | None, undated: Iterable[str] = ()
) -> list[str]:
    """Redis against the log: who is there, with which seq and which newest event; what differs.

    Args:
        undated: titles whose newest event depends on how the topics were interleaved.
    """
    undated = frozenset(undated)
    wrong: list[str] = []
    live = {title for title, one in fold.catalog.items() if not one.retired}
    live |= {title for pair in fold.edges() for title in pair}
    prefix = vectors.title_prefix(space)
    there = set()
    cursor: Any = 0
    while True:
        cursor, keys = call(client, "SCAN", cursor, "MATCH", prefix + "*", "COUNT", 5000)
        there |= {key.decode().removeprefix(prefix) for key in keys}
        if int(cursor) == 0:
            break
    titles = sorted(live | there)
    keys = [prefix + title for title in titles]
    hashes = call_all(client, [("HMGET", key, "vec", "seq", "time_ms") for key in keys])
    for title, (vec, seq, time_ms) in zip(titles, hashes, strict=True):
        if (vec is not None) != (title in live):
            wrong.append(f"{title} is {'not ' if vec is None else ''}in Redis against the log")
        elif vec is not None:
            want_ms = fold.newest_ms.get(title, 0)
            if int(time_ms) != want_ms and title not in undated:
                wrong.append(f"{title} was published at event {time_ms}, the newest is {want_ms}")
            if watch is not None and int(seq) != watch.seq.get(title):
                wrong.append(f"{title} has seq {seq}, told was {watch.seq.get(title)}")
    return wrong


def published_matrix(
    client: Client, space: str, titles: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of titles, shape (N, D), and which are there, shape (N,)."""
    prefix = vectors.title_prefix(space)
    found = call_all(client, [("HGET", prefix + title, "vec") for title in titles])
    dim = max((len(one) for one in found if one is not None), default=0) // 4
    matrix = np.zeros((len(titles), dim), np.float32)
    there = np.array([one is not None for one in found])
    for row, raw in enumerate(found):
        with contextlib.suppress(TypeError):
            matrix[row] = np.frombuffer(raw, "<f4")
    return matrix, there
