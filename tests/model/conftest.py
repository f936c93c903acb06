"""Small graphs and models for the tests of this package."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from model.positives import Positives
from model.semantic_gnn import SemanticGNN
from model.settings import ModelConfig
from partition.named import dense_names
from store.edges import EdgeBatch, Op
from store.graph import DynamicGraph, Relation
from tests.model.cycles import published_in

Edge = tuple[int, int, float]


def put(graph: DynamicGraph, relation: int, edges: Sequence[Edge]) -> None:
    if not edges:
        return
    count = len(edges)
    graph.apply(
        EdgeBatch(
            relation=np.full(count, relation, np.int16),
            head=np.array([edge[0] for edge in edges], np.int32),
            tail=np.array([edge[1] for edge in edges], np.int32),
            weight=np.array([edge[2] for edge in edges], np.float32),
            op=np.full(count, Op.ADD, np.uint8),
            time_ms=np.zeros(count, np.int64),
        )
    )


def concepts(graph: DynamicGraph, relation: int, pairs: Sequence[tuple[int, int]]) -> None:
    """Tie titles to concepts, which are given by number."""
    name = graph.relations[relation].name
    ids = graph.ids["concept"].intern([f"{name}:{concept}" for _, concept in pairs])
    put(graph, relation, [(pair[0], int(at), 1.0) for pair, at in zip(pairs, ids, strict=True)])


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., DynamicGraph]:
    """make(titles, coplays, {relation: [(title, concept), ...]})."""

    def make(
        titles: int, coplays: Sequence[Edge], semantic: dict[str, list[tuple[int, int]]]
    ) -> DynamicGraph:
        graph = DynamicGraph(
            [Relation("coplay", "title", "title", symmetric=True)]
            + [Relation(name, "title", "concept") for name in semantic]
        )
        graph.ids["title"].intern([f"m{number}" for number in range(titles)])
        put(graph, 0, coplays)
        for number, pairs in enumerate(semantic.values(), start=1):
            if pairs:
                concepts(graph, number, pairs)
        return graph

    return make


@pytest.fixture(scope="session")
def make_model() -> Callable[..., SemanticGNN]:
    """make(graph): an untrained model of the graph's size, in evaluation mode."""

    def make(graph: DynamicGraph, **config: int) -> SemanticGNN:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = SemanticGNN(
                ModelConfig(**{"dim": 8, "max_coplay": 3, **config}),
                dense_names(graph, "title"),
                dense_names(graph, "concept"),
                [relation.name for relation in graph.relations],
            )
            for parameter in model.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def edit():
    """The two writers above, for tests that change a graph: edit.put, edit.concepts."""

    class Edit:
        pass

    Edit.put, Edit.concepts = staticmethod(put), staticmethod(concepts)
    return Edit


@pytest.fixture
def two_camps(make_graph):
    """Twenty titles: 0-9 are played together and share a genre, 10-19 likewise; with the pairs."""
    rng = np.random.default_rng(0)
    camp = rng.integers(2, size=600) * 10
    a, b = camp + rng.integers(10, size=600), camp + rng.integers(10, size=600)
    a, b = a[a != b], b[a != b]
    edges = [(int(i), int(j), 1.0) for i, j in zip(a, b, strict=True)]
    graph = make_graph(20, edges, {"genre": [(title, title // 10) for title in range(20)]})
    positives = Positives(
        a.astype(np.int32),
        b.astype(np.int32),
        np.ones(len(a), np.float32),
        np.arange(len(a), dtype=np.int64),
    )
    return graph, positives


@pytest.fixture
def scene(two_camps, make_model):
    return published_in(two_camps, make_model)
