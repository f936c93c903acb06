"""Long stories told to the graph and to dictionaries: a hundred thousand changes for each index.

`UPWELL_SOAK_CHANGES=10000000` tells one a hundred times as long, in two or three minutes each.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from store.edges import EdgeBatch, Op
from store.graph import DynamicGraph, Relation

INDEXES = ("sums16", "fstable", "cstable")
CHANGES = int(os.environ.get("UPWELL_SOAK_CHANGES", "100000"))
TITLES, CONCEPTS = 600, 40
COPLAY, GENRE = 0, 1
BATCH = 5000  # above the size from which the store sorts


class Story:
    """A graph and the dictionaries that say what it must hold."""

    def __init__(self, index: str, seed: int, *, exact: bool, capacity: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.exact = exact
        self.graph = DynamicGraph(
            [
                Relation("coplay", "title", "title", symmetric=True),
                Relation("genre", "title", "concept"),
            ],
            leaf_index=index,
            leaf_capacity=capacity,
            threads=2,
        )
        self.edges: tuple[dict[tuple[int, int], float], ...] = ({}, {})
        self.name_more()

    def name_more(self) -> None:
        """Have all titles and concepts live again, whatever was retired."""
        for kind, count in (("title", TITLES), ("concept", CONCEPTS)):
            table = self.graph.ids[kind]
            for number in range(count - len(table)):
                table.intern([f"{kind} {self.rng.integers(2**62)} {number}"])

    def change(self, size: int, shares: list[float]) -> None:
        """Random changes, skewed to a few titles; half of them to edges that are likely there."""
        rng = self.rng
        relation = (rng.random(size) < 0.3).astype(np.int16)
        heads = (rng.random(size) ** 3 * TITLES).astype(np.int32)
        tails = (rng.random(size) ** 2 * np.where(relation, CONCEPTS, TITLES)).astype(np.int32)
        # Whole numbers add without rounding in each index; any float32 reads back from the exact.
        weights = rng.integers(0, 4, size).astype(np.float32)
        ops = rng.choice(3, size, p=shares).astype(np.uint8)
        if self.exact:
            weights = rng.random(size).astype(np.float32) * np.float32(1e3)
            ops[ops == Op.ADD] = Op.SET
        self.graph.apply(EdgeBatch(relation, heads, tails, weights, ops, np.zeros(size, np.int64)))
        columns = (relation, heads, tails, weights, ops)
        for row in zip(*(column.tolist() for column in columns), strict=True):
            self.tell(*row)

    def tell(self, relation: int, head: int, tail: int, weight: float, op: int) -> None:
        """Tell the dictionaries of one change."""
        edges = self.edges[relation]
        ends = ((head, tail),) if relation == GENRE else ((head, tail), (tail, head))
        old = edges.get((head, tail), 0.0) if op == Op.ADD else 0.0
        for edge in ends:
            if op == Op.DELETE:
                edges.pop(edge, None)
            else:
                edges[edge] = old + weight

    def retire(self) -> None:
        """Remove some vertices of either type, and name others in their place."""
        for kind, count in (("title", TITLES), ("concept", CONCEPTS)):
            gone = self.rng.choice(count, 3, replace=False).astype(np.int32)
            self.graph.retire(kind, gone)
            lost = set(gone.tolist())
            ends = {COPLAY: ("title", "title"), GENRE: ("title", "concept")}
            for relation, edges in enumerate(self.edges):
                for edge in list(edges):
                    if any(
                        k == kind and e in lost for k, e in zip(ends[relation], edge, strict=True)
                    ):
                        del edges[edge]
        self.name_more()

    def check(self) -> None:
        """All that the graph can say of its edges is what the dictionaries say."""
        for relation, edges in enumerate(self.edges):
            heads, tails, weights = self.graph.edges(relation)
            found = list(zip(heads.tolist(), tails.tolist(), strict=True))
            wanted = sorted(edges)
            assert found == wanted
            assert weights.tolist() == [edges[edge] for edge in wanted]
            assert self.graph.num_edges(relation) == len(edges)
        titles, concepts = np.arange(TITLES), np.arange(CONCEPTS)
        heads, tails, weights = self.graph.edges(COPLAY)
        degree = np.bincount(heads, minlength=TITLES)
        assert self.graph.degree(COPLAY, titles).tolist() == degree.tolist()
        totals = np.bincount(heads, weights.astype(np.float64), minlength=TITLES)
        np.testing.assert_allclose(self.graph.weight_sum(COPLAY, titles), totals, rtol=1e-5)
        indptr, back, _ = self.graph.neighbors(GENRE, concepts, reverse=True)
        pairs = zip(back.tolist(), np.repeat(concepts, np.diff(indptr)).tolist(), strict=True)
        assert set(pairs) == set(self.edges[GENRE])
        drawn = self.graph.sample(COPLAY, titles, 3, seed=int(self.rng.integers(2**31)))
        known = {edge for edge, weight in self.edges[COPLAY].items() if weight > 0}
        for title, row in zip(titles.tolist(), drawn.tolist(), strict=True):
            assert all((title, other) in known for other in row if other >= 0)


@pytest.mark.timeout(300 if CHANGES <= 100_000 else 0)
@pytest.mark.parametrize(
    ("index", "exact", "capacity"),
    [*((index, False, 16) for index in INDEXES), ("sums16", True, 16), ("sums16", True, 256)],
    ids=[*INDEXES, "sums16-any-weight", "sums16-large-leaves"],
)
def test_a_long_story_leaves_what_dictionaries_hold(
    index: str, exact: bool, capacity: int, tmp_path: Path
) -> None:
    story = Story(index, 11, exact=exact, capacity=capacity)
    told, turn = 0, 0
    grow, shrink = [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]

    while told < CHANGES:
        size = int(story.rng.integers(1, 2 * BATCH))
        story.change(size, shrink if turn % 5 == 4 else grow)
        told, turn = told + size, turn + 1
        if turn % 7 == 0:
            story.retire()
        if turn % 11 == 0:
            story.graph.save(tmp_path)
            story.graph = DynamicGraph.load(tmp_path, threads=2)
        if turn % 5 == 0 or told >= CHANGES:
            story.check()

    for kind, count in (("title", TITLES), ("concept", CONCEPTS)):
        story.graph.retire(kind, np.arange(count, dtype=np.int32))
    report = story.graph.memory_report()
    assert not any(size for part, size in report.items() if part.endswith(".blocks"))
