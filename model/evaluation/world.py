"""The world as it is known at a moment of the stream: graph, counts, catalogue. No look-ahead.

Arms are given a `World` and nothing else, so what it does not hold cannot enter a score. It moves
by `arrive` (titles come to the catalogue with their concepts) and `ingest` (plays become counts
and co-plays), in the order of the stream.

Shape suffixes: T titles of the stream (known or not yet).
"""

import threading

import numpy as np
import numpy.typing as npt
from scipy import sparse

from model.evaluation.stream import Int64s, Stream
from model.positives import Positives
from store.edges import EdgeBatch, Op
from store.graph import DynamicGraph, Relation

Float32s = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

_NONE = np.zeros(0, np.int64)
COPLAY = Relation("coplay", "title", "title", symmetric=True)


class World:
    """See above.

    Attributes:
        graph: titles and concepts that are in the catalogue, and all co-plays so far.
        lock: for those who want one; nobody else holds it.
        dense_T: dense id of each title in `graph`, -1 where it has not come, int32.
        plays_T: plays of each title so far, int64.
        positives: co-plays so far, in dense ids and time order.
    """

    def __init__(self, stream: Stream, *, with_concepts: bool = True) -> None:
        self._stream = stream
        self._with_concepts = with_concepts
        semantic = stream.relations if with_concepts else ()
        self.graph = DynamicGraph(
            [COPLAY, *(Relation(name, "title", "concept") for name in semantic)]
        )
        self.lock = threading.RLock()
        titles = len(stream.titles)
        self.dense_T = np.full(titles, -1, np.int32)
        self.plays_T = np.zeros(titles, np.int64)
        self._past: list[Positives] = []
        self._counts: sparse.csr_array | None = None
        self._columns: list[tuple[Int64s, Int64s, Float32s]] = []
        self._by_title = np.argsort(stream.triple_title, kind="stable")
        self._starts = np.searchsorted(stream.triple_title[self._by_title], np.arange(titles + 1))

    @property
    def known_T(self) -> Bools:
        """Which titles are in the catalogue."""
        return self.dense_T >= 0

    def arrive(self, until_ms: int) -> Int64s:
        """Let in the titles that came no later than `until_ms`; returns their numbers."""
        stream = self._stream
        new = np.flatnonzero((self.dense_T < 0) & (stream.arrival_ms <= until_ms))
        if not len(new):
            return new
        ids = self.graph.ids["title"].intern([stream.titles[title] for title in new.tolist()])
        self.dense_T[new] = ids
        if self._with_concepts:
            spans = [
                self._by_title[self._starts[title] : self._starts[title + 1]]
                for title in new.tolist()
            ]
            self._tie(np.concatenate(spans))
        return new

    def _tie(self, triples: Int64s) -> None:
        """Put semantic edges into the graph."""
        if not len(triples):
            return
        stream = self._stream
        names = [stream.concepts[concept] for concept in stream.triple_concept[triples].tolist()]
        self._put(
            (stream.triple_relation[triples] + 1).astype(np.int16),
            self.dense_T[stream.triple_title[triples]],
            self.graph.ids["concept"].intern(names),
            np.ones(len(triples), np.float32),
            np.zeros(len(triples), np.int64),
            Op.SET,
        )

    def ingest(self, rows: slice) -> None:
        """Take in plays and their co-plays.

        Raises:
            ValueError: one is of a title that has not come.
        """
        stream = self._stream
        played = stream.plays[rows]
        strange = np.flatnonzero(self.dense_T[played] < 0)
        if len(strange):
            title = stream.titles[int(played[strange[0]])]
            raise ValueError(f"title {title!r} is played before it came to the catalogue")
        np.add.at(self.plays_T, played, 1)
        low, high = np.searchsorted(stream.pair_row, [rows.start, rows.stop])
        a, b = stream.pair_later[low:high], stream.pair_earlier[low:high]
        weight = stream.pair_weight[low:high]
        time_ms = stream.time_ms[stream.pair_row[low:high]]
        more = Positives(self.dense_T[a], self.dense_T[b], weight, time_ms)
        self._put(np.zeros(len(a), np.int16), more.a, more.b, weight, time_ms, Op.ADD)
        self._past.append(more)
        self._columns.append((a, b, weight))
        self._counts = None

    def _put(
        self,
        relation: npt.NDArray[np.int16],
        head: npt.NDArray[np.int32],
        tail: npt.NDArray[np.int32],
        weight: Float32s,
        time_ms: Int64s,
        op: Op,
    ) -> None:
        ops = np.full(len(head), op, np.uint8)
        self.graph.apply(EdgeBatch(relation, head, tail, weight, ops, time_ms))

    @property
    def positives(self) -> Positives:
        """All co-plays so far."""
        self._past = [Positives.join(self._past)]
        return self._past[0]

    def counts(self) -> sparse.csr_array:
        """Summed co-play weight of each two titles of the stream, symmetric, shape (T, T)."""
        if self._counts is None:
            size = len(self.dense_T)
            past = self._columns or [(_NONE, _NONE, np.zeros(0, np.float32))]
            a = np.concatenate([one[0] for one in past])
            b = np.concatenate([one[1] for one in past])
            weight = np.concatenate([one[2] for one in past])
            half = sparse.coo_array((weight, (a, b)), shape=(size, size))
            self._counts = sparse.csr_array(half) + sparse.csr_array(half.T)
        return self._counts

    def concepts(self) -> sparse.csr_array:
        """1 where a title in the catalogue has a concept, shape (T, C), float32."""
        stream = self._stream
        shape = (len(stream.titles), len(stream.concepts))
        known = self.known_T[stream.triple_title] & self._with_concepts
        rows, columns = stream.triple_title[known], stream.triple_concept[known]
        ones = np.ones(len(rows), np.float32)
        table = sparse.csr_array(sparse.coo_array((ones, (rows, columns)), shape=shape))
        table.data[:] = 1.0
        return table

    def by_title(self, rows_ND: Float32s) -> Float32s:
        """Rows of a table by dense id as rows by title number; 0 where there is none, (T, D)."""
        out = np.zeros((len(self.dense_T), rows_ND.shape[1]), np.float32)
        there = np.flatnonzero((self.dense_T >= 0) & (self.dense_T < len(rows_ND)))
        out[there] = rows_ND[self.dense_T[there]]
        return out
