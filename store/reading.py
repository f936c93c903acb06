"""What can be asked of a graph: its edges, its heaviest, draws from them, and what it weighs.

The class checks what comes in; kernels below it run. Readers may run beside each other, but not
beside a writer.
"""

import numpy as np
import numpy.typing as npt

from store.decay import Clock
from store.features import Features
from store.forest import Forest
from store.ids import IdTable
from store.relation import Relation

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
AnyInts = npt.NDArray[np.integer]


class GraphReader:
    """The questions of a `DynamicGraph`, which is the one class made of this.

    Attributes:
        relations: by number.
        ids: names and dense ids, by vertex type.
        features: dense features by vertex type, where there are any.
        clock: of a graph whose edges fade.
    """

    relations: list[Relation]
    ids: dict[str, IdTable]
    features: dict[str, Features]
    clock: Clock | None
    _numbers: dict[str, int]
    _forward: list[Forest]
    _backward: list[Forest | None]

    def relation_id(self, name: str) -> int:
        """The number of a relation.

        Raises:
            ValueError: there is no such relation.
        """
        if name not in self._numbers:
            raise ValueError(f"no relation {name!r}: there are {sorted(self._numbers)}")
        return self._numbers[name]

    def num_nodes(self, vertex_type: str) -> int:
        """Ids of this type are in 0..num_nodes - 1; some of them may be free.

        Raises:
            ValueError: there is no such type.
        """
        return self._table(vertex_type).capacity

    def num_edges(self, relation: int) -> int:
        """Edges of a relation; a symmetric one counts each edge once a direction, loops once."""
        return len(self._forward[self._relation(relation)])

    def num_features(self, vertex_type: str) -> int:
        """Features of each vertex of a type; 0 where none has any."""
        found = self.features.get(vertex_type)
        return 0 if found is None else found.values.shape[1]

    def get_features(self, vertex_type: str, ids: AnyInts) -> Floats:
        """Features of vertices, shape (S, F); 0 where none were given.

        Raises:
            ValueError: a vertex is unknown, or the type has no features.
        """
        rows = self._vertices(vertex_type, ids)
        if vertex_type not in self.features:
            raise ValueError(f"{vertex_type!r} has no features: set_features gives them")
        return self.features[vertex_type].get(rows)

    def degree(self, relation: int, vertices: AnyInts, *, reverse: bool = False) -> Ints:
        """Number of edges at each vertex, shape (S,).

        Args:
            relation: its number.
            vertices: dense ids, shape (S,): heads, or tails if `reverse`.
            reverse: look at the edges that come in.

        Raises:
            ValueError: there is no such relation or vertex.
        """
        forest, rows = self._row(relation, vertices, reverse)
        return forest.degree(rows)

    def weight_sum(self, relation: int, vertices: AnyInts, *, reverse: bool = False) -> Floats:
        """Summed weight of the edges at each vertex, shape (S,); arguments as in `degree`."""
        forest, rows = self._row(relation, vertices, reverse)
        return self._read(forest.weight_sum(rows))

    def weight(self, relation: int, heads: AnyInts, tails: AnyInts) -> Floats:
        """Weight of each edge, 0 where there is none, shape (E,).

        Raises:
            ValueError: there is no such relation or vertex, or the lengths differ.
        """
        forest, rows = self._row(relation, heads, False)
        ends = self._vertices(self.relations[relation].tail, tails, "tails")
        if rows.shape != ends.shape:
            raise ValueError(f"heads has shape {rows.shape}, but tails has {ends.shape}")
        return self._read(forest.weight(rows, ends))

    def has_edges(self, relation: int, heads: AnyInts, tails: AnyInts) -> npt.NDArray[np.bool_]:
        """Whether there is such an edge, shape (E,); arguments as in `weight`."""
        forest, rows = self._row(relation, heads, False)
        return forest.has(rows, self._vertices(self.relations[relation].tail, tails, "tails"))

    def neighbors(
        self, relation: int, vertices: AnyInts, *, reverse: bool = False
    ) -> tuple[Longs, Ints, Floats]:
        """The edges at each vertex, as rows sorted by id; arguments as in `degree`.

        Returns:
            indptr: row i is `ids[indptr[i] : indptr[i + 1]]`, shape (S + 1,), int64.
            ids: the other ends, shape (E,), int32.
            weights: shape (E,), float32.
        """
        forest, rows = self._row(relation, vertices, reverse)
        indptr, ids, weights = forest.neighbors(rows)
        return indptr, ids, self._read(weights)

    def top_k(
        self, relation: int, vertices: AnyInts, k: int, *, reverse: bool = False
    ) -> tuple[Ints, Floats]:
        """The k heaviest edges at each vertex, heaviest first, ties by id; see `degree`.

        Returns:
            ids: the other ends, -1 where a row has no more, shape (S, k), int32.
            weights: 0 where a row has no more, shape (S, k), float32.
        """
        if k < 0:
            raise ValueError(f"k is {k}: want 0 or more")
        forest, rows = self._row(relation, vertices, reverse)
        ids, weights = forest.top_k(rows, k)
        return ids, self._read(weights)

    def edges(self, relation: int) -> tuple[Ints, Ints, Floats]:
        """All edges as (heads, tails, weights), sorted by head, then tail.

        An edge of a symmetric relation comes in both directions.
        """
        heads, tails, weights = self._stored_edges(self._relation(relation))
        return heads, tails, self._read(weights)

    def sample(
        self,
        relation: int,
        seeds: AnyInts,
        fanout: int,
        *,
        seed: int,
        reverse: bool = False,
        weighted: bool = True,
        replace: bool = True,
    ) -> Ints:
        """Draw neighbours of each vertex.

        Args:
            relation: its number.
            seeds: dense ids, with repeats or without, shape (S,).
            fanout: draws a vertex.
            seed: the same seed on the same state draws the same, for any number of threads.
            reverse: draw among the edges that come in.
            weighted: in proportion to weight; an edge of weight 0 is never drawn. Else each edge is
                as likely.
            replace: the same neighbour may be drawn again. Else each at most once, successively.

        Returns:
            Ids, -1 where there is none to draw, shape (S, fanout), int32.
        """
        if fanout < 0:
            raise ValueError(f"fanout is {fanout}: want 0 or more")
        forest, rows = self._row(relation, seeds, reverse)
        return forest.sample(
            rows, fanout, seed & 0x7FFFFFFFFFFFFFFF, weighted=weighted, replace=replace
        )

    def memory_report(self) -> dict[str, int]:
        """Bytes by part: of each relation's forests, of the id tables, and `total`."""
        report: dict[str, int] = {}
        for number, relation in enumerate(self.relations):
            for suffix, forest in (
                ("", self._forward[number]),
                (".reverse", self._backward[number]),
            ):
                if forest is not None:
                    for part, size in forest.memory_report().items():
                        report[f"{relation.name}{suffix}.{part}"] = size
        for vertex_type, features in self.features.items():
            report[f"features.{vertex_type}"] = features.values.nbytes
        for vertex_type, table in self.ids.items():
            report[f"ids.{vertex_type}"] = table.nbytes()
        report["total"] = sum(report.values())
        return report

    def forests(self) -> dict[str, Forest]:
        """Each forest by a name that is fit for a file."""
        found = {}
        for number, forward in enumerate(self._forward):
            found[f"{number}.forward"] = forward
            backward = self._backward[number]
            if backward is not None:
                found[f"{number}.backward"] = backward
        return found

    def _read(self, weights: Floats) -> Floats:
        return weights if self.clock is None else weights * self.clock.today()

    def _stored_edges(self, number: int) -> tuple[Ints, Ints, Floats]:
        forest = self._forward[number]
        vertices = np.arange(forest.num_vertices, dtype=np.int32)
        indptr, ids, weights = forest.neighbors(vertices)
        return np.repeat(vertices, np.diff(indptr)), ids, weights

    def _table(self, vertex_type: str) -> IdTable:
        if vertex_type not in self.ids:
            raise ValueError(f"no vertex type {vertex_type!r}: there are {sorted(self.ids)}")
        return self.ids[vertex_type]

    def _relation(self, number: int) -> int:
        if not 0 <= number < len(self.relations):
            raise ValueError(f"no relation {number}: there are 0..{len(self.relations) - 1}")
        return number

    def _forest(self, number: int, reverse: bool) -> Forest:
        backward = self._backward[number] if reverse else None
        return self._forward[number] if backward is None else backward

    def _row(self, number: int, vertices: AnyInts, reverse: bool) -> tuple[Forest, Ints]:
        """The forest that holds one direction of a relation, and checked vertices of it."""
        relation = self.relations[self._relation(number)]
        vertex_type = relation.tail if reverse else relation.head
        rows = self._vertices(vertex_type, vertices)
        forest = self._forest(number, reverse)
        forest.ensure_vertices(self.num_nodes(vertex_type))
        return forest, rows

    def _vertices(self, vertex_type: str, ids: AnyInts, name: str = "vertices") -> Ints:
        ids = np.asarray(ids)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise ValueError(f"{name} is {ids.dtype} of shape {ids.shape}: want integers, (S,)")
        count = self.num_nodes(vertex_type)
        if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= count):
            row = int(np.flatnonzero((ids < 0) | (ids >= count))[0])
            raise ValueError(
                f"{name}[{row}] is {ids[row]}: {vertex_type!r} has ids below {count} only"
            )
        return np.ascontiguousarray(ids, np.int32)
