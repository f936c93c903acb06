"""Changes of a graph, and graphs whose titles stand in groups."""

import numpy as np

from store.edges import EdgeBatch, Op


def put(graph, edges, op=Op.ADD):
    count = len(edges)
    columns = [np.array([edge[at] for edge in edges]) for at in range(3)]
    graph.apply(
        EdgeBatch(
            relation=np.zeros(count, np.int16),
            head=columns[0].astype(np.int32),
            tail=columns[1].astype(np.int32),
            weight=columns[2].astype(np.float32),
            op=np.full(count, op, np.uint8),
            time_ms=np.zeros(count, np.int64),
        )
    )


def camps(rng, titles, number, edges):
    """Titles t with the same t % number are played together."""
    first = rng.integers(titles, size=edges)
    second = (first + number * rng.integers(1, titles // number, size=edges)) % titles
    return [(int(a), int(b), 1.0) for a, b in zip(first, second, strict=True) if a != b]
