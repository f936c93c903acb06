"""The whole graph against dictionaries, under any order of what can be done to it."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from store.edges import EdgeBatch, Op
from store.graph import DynamicGraph, Relation

NAMES = [f"n{i}" for i in range(24)]
rows = st.lists(
    st.tuples(st.sampled_from([0, 1]), st.integers(0, 10**6), st.integers(0, 10**6),
              st.integers(0, 9), st.sampled_from(list(Op))),
    min_size=1, max_size=80,
)  # fmt: skip


class GraphMachine(RuleBasedStateMachine):
    """Titles that are played together (symmetric) and their concepts (directed)."""

    leaf_index = "sums16"

    def __init__(self) -> None:
        super().__init__()
        self.graph = DynamicGraph(
            [Relation("coplay", "title", "title", True), Relation("genre", "title", "concept")],
            leaf_index=self.leaf_index,
            leaf_capacity=8,
        )
        self.names: dict[str, dict[str, int]] = {"title": {}, "concept": {}}
        self.edges: list[dict[tuple[int, int], float]] = [{}, {}]

    @rule(kind=st.sampled_from(["title", "concept"]), names=st.lists(st.sampled_from(NAMES)))
    def intern(self, kind: str, names: list[str]) -> None:
        for name, number in zip(names, self.graph.ids[kind].intern(names).tolist(), strict=True):
            assert self.names[kind].setdefault(name, number) == number

    @precondition(lambda self: self.names["title"] and self.names["concept"])
    @rule(rows=rows)
    def apply(self, rows) -> None:
        titles, concepts = (sorted(self.names[kind].values()) for kind in ("title", "concept"))
        changes = []
        for relation, a, b, weight, op in rows:
            tails = concepts if relation else titles
            changes.append((relation, titles[a % len(titles)], tails[b % len(tails)], weight, op))
        columns = list(zip(*changes, strict=True))
        kinds = (np.int16, np.int32, np.int32, np.float32, np.uint8)
        arrays = [np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
        self.graph.apply(EdgeBatch(*arrays, np.zeros(len(rows), np.int64)))
        for relation, head, tail, weight, op in changes:
            for edge in {(head, tail), (tail, head)} if relation == 0 else {(head, tail)}:
                if op == Op.DELETE:
                    self.edges[relation].pop(edge, None)
                else:
                    old = self.edges[relation].get(edge, 0.0) if op == Op.ADD else 0.0
                    self.edges[relation][edge] = old + weight

    @rule(
        kind=st.sampled_from(["title", "concept"]), picks=st.lists(st.integers(0, 99), max_size=3)
    )
    def retire(self, kind: str, picks: list[int]) -> None:
        names = sorted(self.names[kind])
        gone = {self.names[kind].pop(n) for n in {names[p % len(names)] for p in picks if names}}
        self.graph.retire(kind, np.array(sorted(gone), np.int32))
        for relation, types in enumerate((("title", "title"), ("title", "concept"))):
            for edge in list(self.edges[relation]):
                if any(t == kind and end in gone for t, end in zip(types, edge, strict=True)):
                    del self.edges[relation][edge]

    @rule()
    def save_and_load(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.graph.save(Path(folder))
            self.graph = DynamicGraph.load(Path(folder))

    @invariant()
    def edges_are_those_of_the_dictionaries(self) -> None:
        for relation, edges in enumerate(self.edges):
            heads, tails, weights = self.graph.edges(relation)
            found = dict(
                zip(zip(heads.tolist(), tails.tolist(), strict=True), weights.tolist(), strict=True)
            )
            assert list(found) == sorted(edges)
            assert found == edges
        concepts = np.arange(self.graph.num_nodes("concept"))
        indptr, heads, _ = self.graph.neighbors(1, concepts, reverse=True)
        back = zip(heads.tolist(), np.repeat(concepts, np.diff(indptr)).tolist(), strict=True)
        assert set(back) == set(self.edges[1])


@pytest.mark.parametrize("index", ["sums16", "fstable", "cstable"])
def test_a_graph_holds_what_dictionaries_hold(index: str) -> None:
    """UPWELL_SOAK=1000 runs a thousand such stories for each index."""
    machine = type(f"Machine_{index}", (GraphMachine,), {"leaf_index": index})
    stories = int(os.environ.get("UPWELL_SOAK", "25"))
    machine.TestCase.settings = settings(
        max_examples=stories, stateful_step_count=25, deadline=None
    )
    machine.TestCase("runTest").runTest()
