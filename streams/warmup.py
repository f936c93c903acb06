"""Compiles the store's kernels before the first event waits for them.

A first call compiles, which takes seconds; from then on the compiled code is on disk (store/jit.py)
and a start takes milliseconds. So a worker makes every call once, on a graph of its own.
"""

import numpy as np

from partition.mincut import cut
from store.edges import EdgeBatch, Op
from store.graph import DynamicGraph, Relation
from streams.settings import GraphSettings

TITLES = 8


def warm_up(settings: GraphSettings) -> None:
    """Make each call of the graph that a worker makes."""
    graph = DynamicGraph(
        [
            Relation("coplay", "title", "title", symmetric=True),
            Relation("genre", "title", "concept"),
        ],
        leaf_index=settings.leaf_index,
        leaf_capacity=settings.leaf_capacity,
        half_life_s=settings.half_life_s,
    )
    titles = graph.ids["title"].intern([str(n) for n in range(TITLES)])
    concept = graph.ids["concept"].intern(["genre:Drama"])
    others = np.roll(titles, 1)
    graph.apply(_edges(0, titles, others, Op.ADD))
    graph.apply(_edges(1, titles, np.repeat(concept, TITLES), Op.SET))
    graph.apply(_edges(1, titles[:1], concept, Op.DELETE))
    for relation, reverse in ((0, False), (1, False), (1, True)):
        rows = concept if reverse else titles
        graph.neighbors(relation, rows, reverse=reverse)
        graph.top_k(relation, rows, 2, reverse=reverse)
        graph.degree(relation, rows, reverse=reverse)
        graph.weight_sum(relation, rows, reverse=reverse)
    graph.edges(0)
    graph.weight(0, titles, others)
    graph.sample(0, titles, 2, seed=0)
    cut(graph, 2, seed=0)
    graph.retire("title", titles[:1])


def _edges(relation: int, heads: np.ndarray, tails: np.ndarray, op: Op) -> EdgeBatch:
    count = len(heads)
    return EdgeBatch(
        relation=np.full(count, relation, np.int16),
        head=heads,
        tail=tails,
        weight=np.ones(count, np.float32),
        op=np.full(count, op, np.uint8),
        time_ms=np.zeros(count, np.int64),
    )
