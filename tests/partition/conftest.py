"""Small graphs for the tests of this package."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from store.edges import EdgeBatch, Op
from store.graph import DynamicGraph, Relation

Edge = tuple[int, int, float]


def batch(relation: int, edges: Sequence[Edge]) -> EdgeBatch:
    count = len(edges)
    return EdgeBatch(
        relation=np.full(count, relation, np.int16),
        head=np.array([edge[0] for edge in edges], np.int32),
        tail=np.array([edge[1] for edge in edges], np.int32),
        weight=np.array([edge[2] for edge in edges], np.float32),
        op=np.full(count, Op.SET, np.uint8),
        time_ms=np.zeros(count, np.int64),
    )


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., DynamicGraph]:
    """make(titles, coplays, {relation: [(title, concept), ...]}) with concepts by number."""

    def make(
        titles: int, coplays: Sequence[Edge], concepts: dict[str, list[tuple[int, int]]]
    ) -> DynamicGraph:
        graph = DynamicGraph(
            [Relation("coplay", "title", "title", symmetric=True)]
            + [Relation(name, "title", "concept") for name in concepts]
        )
        graph.ids["title"].intern([f"m{number}" for number in range(titles)])
        if coplays:
            graph.apply(batch(0, coplays))
        for number, (name, pairs) in enumerate(concepts.items(), start=1):
            ids = graph.ids["concept"].intern([f"{name}:{concept}" for _, concept in pairs])
            if pairs:
                rows = [(pair[0], int(at), 1.0) for pair, at in zip(pairs, ids, strict=True)]
                graph.apply(batch(number, rows))
        return graph

    return make
