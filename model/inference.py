"""Vectors for publishing: all of them for a new version of the weights, or a few anew.

An `Embedder` belongs to one version of the weights. `full` goes layer by layer over all nodes and
keeps every layer's states. `refresh` reads the graph as it is now around a few titles and concepts,
and recomputes the states of *those nodes* from the kept states of their neighbours. What a change
does to nodes two steps away waits for the next `full`: on a dense graph everything is within two
steps of everything. Both read the same neighbourhood (partition/neighbourhood.py), so on a graph
that did not change they agree. What titles that nobody has played are read by (model/unplayed.py)
is of the last `full`, too.

Layout: `states[l]` are the states after layer l (0: the inputs), one table for titles and one for
concepts, rows = dense ids. Rows of free slots hold zeros.

Shape suffixes: S titles asked for, K concepts asked for, U distinct sources, D width.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.batch import log_weight
from model.reading import Reading, has, without_coplays
from model.semantic_gnn import SemanticGNN
from model.sparse import Adjacency
from model.unplayed import ConceptTable, read
from partition.neighbourhood import Incoming, features, incoming, strength, vertices
from store.graph import DynamicGraph

Int32s = npt.NDArray[np.int32]
Lock = AbstractContextManager[object]

CHUNK_EDGES = 2_000_000  # a layer of `full` works on about so many edges at once


@dataclass(frozen=True, slots=True)
class _Block:
    """Targets of one layer with the sources of their edges: states, queries, messages."""

    own_TD: Tensor
    query_TD: Tensor
    message_UD: Tensor
    edges: Adjacency


class Embedder:
    """Vectors of one version of the weights; for one thread at a time.

    Args:
        model: its rows must be the graph's dense ids (`SemanticGNN.bind`); switched to evaluation.
    """

    def __init__(self, model: SemanticGNN) -> None:
        self.model = model.eval()
        dim, tables = model.config.dim, model.config.layers  # the last layer has titles only
        self.titles = [torch.zeros(0, dim) for _ in range(tables)]
        self.concepts = [torch.zeros(0, dim) for _ in range(tables)]
        self.published = torch.zeros(0, dim)
        self.bare = torch.zeros(0, dim)  # those that were not read anew where nobody has played
        self.table = ConceptTable.empty(dim)

    def full(self, graph: DynamicGraph, *, lock: Lock | None = None) -> None:
        """Compute everything from the graph as it is now.

        Args:
            lock: held while the graph is read, not while computing.
        """
        with lock or nullcontext():
            reading = Reading.of(graph, max_coplay=self.model.config.max_coplay)
        self.full_from(reading)

    @torch.no_grad()
    def full_from(self, reading: Reading, *, hidden: Int32s | None = None) -> None:
        """As `full`, from what was read of the graph.

        Args:
            hidden: titles to take as if nobody had played them, dense ids, ascending.
        """
        titles, concepts, edges = reading.titles, reading.concepts, reading.edges
        strong, given = reading.strength, reading.features
        self._resize(reading.title_capacity, reading.concept_capacity)
        self._check_relations(reading.num_relations)
        if hidden is not None and len(hidden):
            strong = np.where(np.isin(titles, hidden), np.float32(0.0), strong)
            edges = without_coplays(edges, titles, hidden)
        for table in (*self.titles, *self.concepts, self.published, self.bare):
            table.zero_()
        self._inputs(titles, concepts, edges, strong, given)
        ends = np.searchsorted(edges.target, np.arange(len(titles) + len(concepts) + 1))
        for number in range(self.model.config.layers):
            last = number == self.model.config.layers - 1
            nodes = len(titles) + (0 if last else len(concepts))
            for start, stop in _chunks(ends[: nodes + 1]):
                self._layer(
                    number, titles, concepts, _rows(edges, ends, start, stop), start, stop, strong
                )
        title_E, concept_E = has(edges, len(titles))
        bare_TD = self.bare[_long(titles)].numpy()
        self.table = ConceptTable.of(title_E, concept_E, strong, bare_TD, reading.concept_capacity)
        self._publish(titles, edges, strong)

    @torch.no_grad()
    def refresh(
        self, graph: DynamicGraph, titles: Int32s, concepts: Int32s, *, lock: Lock | None = None
    ) -> None:
        """Recompute the states of some titles and concepts from the graph as it is now.

        Concepts and titles that are new since `full` may be among them. A relation that is new
        since then has no weights yet: its edges wait for the next version.

        Args:
            titles: dense ids, shape (S,), without repeats.
            concepts: dense ids of concepts whose titles changed, shape (K,), without repeats.
        """
        with lock or nullcontext():
            self._resize(vertices(graph, "title").capacity, vertices(graph, "concept").capacity)
            edges = self._incoming(graph, titles, concepts)
            strong, given = strength(graph, titles), features(graph, titles)
        edges = self._known(edges)
        self._inputs(titles, concepts, edges, strong, given)
        ends = np.searchsorted(edges.target, np.arange(len(titles) + len(concepts) + 1))
        for number in range(self.model.config.layers):
            last = number == self.model.config.layers - 1
            stop = len(titles) + (0 if last else len(concepts))
            self._layer(number, titles, concepts, _rows(edges, ends, 0, stop), 0, stop, strong)
        self._publish(titles, edges, strong)

    @torch.no_grad()
    def attention(
        self, graph: DynamicGraph, title: int, *, lock: Lock | None = None
    ) -> tuple[Incoming, npt.NDArray[np.float32]]:
        """What made a title's vector: the edges into it, and what each layer gave each of them.

        Args:
            title: dense id; its neighbours' states are those of the last `full` or `refresh`.

        Returns:
            The edges, and the attention, shape (layers, heads, E); over E it sums to 1.
        """
        titles, none = np.array([title], np.int32), np.zeros(0, np.int32)
        with lock or nullcontext():
            edges = self._known(self._incoming(graph, titles, none))
        attention = []
        for number in range(self.model.config.layers):
            layer, block = self.model.layer(number), self._block(number, titles, none, edges, 0, 1)
            relation_RD = layer.relation_message(self.model.relation_RP)
            attention.append(
                layer.attention(block.query_TD, block.message_UD, relation_RD, block.edges).numpy()
            )
        return edges, np.stack(attention)

    def vectors(self, titles: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Vectors of titles by dense id, shape (N, D); zeros for one that was never computed."""
        out = np.zeros((len(titles), self.model.config.dim), np.float32)
        known = np.flatnonzero((titles >= 0) & (titles < len(self.published)))
        out[known] = self.published.numpy()[titles[known]]
        return out

    def unplayed(
        self, reading: Reading, titles: Int32s
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """What the vectors of titles that nobody has played are read from, by the last `full`.

        Args:
            reading: what that was made from.
            titles: dense ids, shape (S,), without repeats.

        Returns:
            Bare vectors, shape (S, D), and sums over their concepts (`ConceptTable.sums`).
        """
        title_E, concept_E = has(reading.edges, len(reading.titles))
        place_N = np.full(reading.title_capacity, -1, np.int64)
        place_N[titles] = np.arange(len(titles))
        at = place_N[reading.titles[title_E]]
        asked = at >= 0
        sums_SW = self.table.sums(at[asked], concept_E[asked], len(titles))
        return _take(self.bare, titles).numpy(), sums_SW

    def forget(self, titles: npt.NDArray[np.integer]) -> None:
        """Retired titles: their slots are empty for whoever comes next."""
        self.model.forget_titles(titles)
        for table in (*self.titles, self.published, self.bare):
            table[torch.from_numpy(titles[titles < len(table)].astype(np.int64))] = 0.0

    def _incoming(self, graph: DynamicGraph, titles: Int32s, concepts: Int32s) -> Incoming:
        return incoming(graph, titles, concepts, max_coplay=self.model.config.max_coplay)

    def _known(self, edges: Incoming) -> Incoming:
        """Those of relations that the model has weights for."""
        known = edges.relation < 2 * len(self.model.relation_names)
        return edges if known.all() else edges.only(known)

    def _inputs(
        self,
        titles: Int32s,
        concepts: Int32s,
        edges: Incoming,
        strong: npt.NDArray[np.float32],
        given: npt.NDArray[np.float32],
    ) -> None:
        """States in front of the first layer."""
        model = self.model
        self.concepts[0][_long(concepts)] = model.input(self._concept_rows(concepts))
        chosen = np.flatnonzero(edges.from_concept)
        unique, source = np.unique(edges.source[chosen], return_inverse=True)
        block = Adjacency.of(
            torch.from_numpy(source.astype(np.int64)),
            torch.from_numpy(edges.target[chosen]),
            torch.from_numpy(edges.relation[chosen]),
            torch.zeros(len(chosen)),
            num_sources=len(unique),
            num_targets=len(titles),
        )
        place_SD = model.place(
            self._concept_rows(unique), block, torch.ones(len(chosen), dtype=torch.bool), 0
        )
        own_SD = self._own(titles, strong) + model.featured(torch.from_numpy(given))
        self.titles[0][_long(titles)] = model.input(place_SD) + own_SD

    def _own(self, titles: Int32s, strong: npt.NDArray[np.float32]) -> Tensor:
        """Id embeddings, 0 for a title without co-plays, shape (S, D)."""
        played_S1 = torch.from_numpy((strong > 0).astype(np.float32)).unsqueeze(1)
        return _take(self.model.title_TD, titles) * played_S1

    def _concept_rows(self, concepts: npt.NDArray[np.integer]) -> Tensor:
        """Rows of the concept table; a concept that came after the weights is at its mean."""
        rows_KD = _take(self.model.concept_CD, concepts)
        late = concepts >= len(self.model.concept_CD)
        if late.any() and len(self.model.concept_CD):
            rows_KD[torch.from_numpy(late)] = self.model.concept_CD.mean(0)
        return rows_KD

    def _layer(
        self,
        number: int,
        titles: Int32s,
        concepts: Int32s,
        edges: Incoming,
        start: int,
        stop: int,
        strong: npt.NDArray[np.float32],
    ) -> None:
        """One layer for targets start..stop - 1 of titles + concepts; edges count from start."""
        if stop <= start:
            return
        layer = self.model.layer(number)
        block = self._block(number, titles, concepts, edges, start, stop)
        x_TD = layer.attend(
            block.own_TD, block.query_TD, block.message_UD, self.model.relation_RP, block.edges
        )
        own_titles = titles[start : min(stop, len(titles))]
        own_concepts = concepts[max(start - len(titles), 0) : max(stop - len(titles), 0)]
        if number == self.model.config.layers - 1:
            log_strength = torch.log1p(torch.from_numpy(strong[start:stop]))
            own_TD = self._own(own_titles, strong[start:stop])
            self.bare[_long(own_titles)] = self.model.vectors(x_TD, own_TD, log_strength)
            return
        self.titles[number + 1][_long(own_titles)] = x_TD[: len(own_titles)]
        self.concepts[number + 1][_long(own_concepts)] = x_TD[len(own_titles) :]

    def _publish(self, titles: Int32s, edges: Incoming, strong: npt.NDArray[np.float32]) -> None:
        """The bare vectors, but for titles that nobody has played."""
        self.published[_long(titles)] = self.bare[_long(titles)]
        theta_K = self.model.unplayed.theta.numpy()
        unplayed = np.flatnonzero(strong <= 0)
        title_E, concept_E = has(edges, len(titles))
        place = np.full(len(titles), -1, np.int64)
        place[unplayed] = np.arange(len(unplayed))
        asked = place[title_E] >= 0
        sums_SW = self.table.sums(place[title_E[asked]], concept_E[asked], len(unplayed))
        rows = _long(titles[unplayed])
        vectors_SD = read(theta_K, self.bare[rows].numpy(), sums_SW, self.table)
        self.published[rows] = torch.from_numpy(vectors_SD)

    def _block(
        self,
        number: int,
        titles: Int32s,
        concepts: Int32s,
        edges: Incoming,
        start: int,
        stop: int,
    ) -> _Block:
        """What layer `number` takes for targets start..stop - 1; edges count from start."""
        before_titles, before_concepts = self.titles[number], self.concepts[number]
        code = edges.source.astype(np.int64) + len(before_titles) * edges.from_concept
        unique, source = np.unique(code, return_inverse=True)
        split = int(np.searchsorted(unique, len(before_titles)))
        source_UD = torch.cat(
            [
                before_titles[torch.from_numpy(unique[:split])],
                before_concepts[torch.from_numpy(unique[split:] - len(before_titles))],
            ]
        )
        own_titles = titles[start : min(stop, len(titles))]
        own_concepts = concepts[max(start - len(titles), 0) : max(stop - len(titles), 0)]
        own_TD = torch.cat([before_titles[_long(own_titles)], before_concepts[_long(own_concepts)]])
        block = Adjacency.of(
            torch.from_numpy(source.astype(np.int64)),
            torch.from_numpy(edges.target),
            torch.from_numpy(edges.relation),
            log_weight(edges.weight),
            num_sources=len(unique),
            num_targets=stop - start,
        )
        message_UD, query_TD = self.model.layer(number).project(source_UD, own_TD)
        return _Block(own_TD, query_TD, message_UD, block)

    def _resize(self, titles: int, concepts: int) -> None:
        """Room for new dense ids, with some to spare."""
        self.titles = [_grown(table, titles) for table in self.titles]
        self.concepts = [_grown(table, concepts) for table in self.concepts]
        self.published = _grown(self.published, titles)
        self.bare = _grown(self.bare, titles)

    def _check_relations(self, relations: int) -> None:
        if relations > len(self.model.relation_names):
            raise ValueError(
                f"the graph has {relations} relations, the model {len(self.model.relation_names)}: "
                "bind the model to the graph first"
            )


def _long(ids: npt.NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(ids.astype(np.int64))


def _take(table: Tensor, rows: npt.NDArray[np.integer]) -> Tensor:
    """Rows of a table; zeros for those beyond its end."""
    out = table.new_zeros(len(rows), table.shape[1])
    known = rows < len(table)
    out[torch.from_numpy(known)] = table[_long(rows[known])]
    return out


def _grown(table: Tensor, rows: int) -> Tensor:
    if rows <= len(table):
        return table
    out = table.new_zeros(rows + rows // 8, table.shape[1])
    out[: len(table)] = table
    return out


def _rows(edges: Incoming, ends: npt.NDArray[np.int64], start: int, stop: int) -> Incoming:
    """Edges into targets start..stop - 1, with targets counted from start."""
    chosen = edges.only(slice(int(ends[start]), int(ends[stop])))
    return replace(chosen, target=chosen.target - start)


def _chunks(ends: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges of targets with about `CHUNK_EDGES` edges each, at least one target."""
    out, start = [], 0
    while start < len(ends) - 1:
        stop = int(np.searchsorted(ends, ends[start] + CHUNK_EDGES, side="right")) - 1
        stop = min(max(stop, start + 1), len(ends) - 1)
        out.append((start, stop))
        start = stop
    return out
