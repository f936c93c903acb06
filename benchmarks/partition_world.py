"""A generated catalogue with communities, as the partition's benchmarks cut it.

Titles stand in communities of lognormal sizes; 80 % of the co-plays are inside one, the others
anywhere; both ends are drawn by a popularity with a heavy tail, weights are counts. A title has
five concepts out of `CONCEPTS`, of which its community prefers some.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from store.edges import EdgeBatch, Op
from store.graph import DynamicGraph, Relation

INSIDE = 0.8
CONCEPTS = 5_000
OF_TITLE = 5

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class World:
    """Who is where, and how often played.

    Attributes:
        community: of each title, shape (T,), int64.
        popularity: shape (T,), float64.
    """

    community: Int64s
    popularity: npt.NDArray[np.float64]

    @classmethod
    def of(cls, titles: int, seed: int, *, size: int = 100) -> "World":
        """Args: `size`: mean titles in a community."""
        rng = np.random.default_rng(seed)
        share = rng.lognormal(0, 1, max(titles // size, 1))
        community = rng.choice(len(share), titles, p=share / share.sum())
        return cls(community, rng.zipf(2.2, titles).clip(max=200).astype(np.float64))

    def pairs(self, first: Int64s, rng: np.random.Generator) -> Int64s:
        """A title that each of `first` is co-played with, mostly of its community."""
        order = np.argsort(self.community, kind="stable")
        running = np.concatenate([[0.0], np.cumsum(self.popularity[order])])
        start = np.searchsorted(self.community[order], self.community[first])
        stop = np.searchsorted(self.community[order], self.community[first], side="right")
        inside = rng.random(len(first)) < INSIDE
        low = np.where(inside, running[start], 0.0)
        high = np.where(inside, running[stop], running[-1])
        at = np.searchsorted(running, low + rng.random(len(first)) * (high - low), side="right")
        return order[(at - 1).clip(0, len(order) - 1)]


def build(world: World, coplays: int, seed: int) -> DynamicGraph:
    """The graph: `coplays` co-plays, each counted once, and `OF_TITLE` concepts a title."""
    rng = np.random.default_rng(seed)
    titles = len(world.community)
    running = np.cumsum(world.popularity)
    found = np.zeros(0, np.int64)
    weight = np.zeros(0)
    while len(found) < coplays:
        drawn = rng.random(coplays) * running[-1]
        first = np.searchsorted(running, drawn, side="right").clip(max=titles - 1)
        second = world.pairs(first, rng)
        low, high = np.minimum(first, second), np.maximum(first, second)
        codes = np.concatenate([found, (low * titles + high)[low != high]])
        counts = np.concatenate([weight, np.ones(int((low != high).sum()))])
        found, back = np.unique(codes, return_inverse=True)
        weight = np.bincount(back, counts)
    chosen = np.sort(rng.permutation(len(found))[:coplays])
    graph = DynamicGraph(
        [
            Relation("coplay", "title", "title", symmetric=True),
            Relation("theme", "title", "concept"),
        ]
    )
    graph.ids["title"].intern([f"t{number}" for number in range(titles)])
    graph.ids["concept"].intern([f"theme:{number}" for number in range(CONCEPTS)])
    put(graph, 0, found[chosen] // titles, found[chosen] % titles, weight[chosen])
    title = np.repeat(np.arange(titles), OF_TITLE)
    likely = (world.community[title] * 37 + rng.integers(8, size=len(title))) % CONCEPTS
    themes = np.where(rng.random(len(title)) < 0.5, likely, rng.integers(CONCEPTS, size=len(title)))
    put(graph, 1, title, themes, np.ones(len(title)))
    return graph


def put(
    graph: DynamicGraph, relation: int, head: Int64s, tail: Int64s, weight: npt.NDArray[np.float64]
) -> None:
    """Set edges."""
    count = len(head)
    graph.apply(
        EdgeBatch(
            relation=np.full(count, relation, np.int16),
            head=head.astype(np.int32),
            tail=tail.astype(np.int32),
            weight=weight.astype(np.float32),
            op=np.full(count, Op.SET, np.uint8),
            time_ms=np.zeros(count, np.int64),
        )
    )


def change(graph: DynamicGraph, world: World, share: float, seed: int) -> tuple[World, Int64s]:
    """Change `share` of the titles: half are retired and as many arrive, half move elsewhere.

    A title that arrives or moves gets the co-plays of a random community: as many as the mean.

    Returns:
        The world as it is now, and the titles that changed.
    """
    rng = np.random.default_rng(seed)
    titles = len(world.community)
    mean = graph.num_edges(0) // titles
    gone, moved = np.split(rng.permutation(titles)[: int(titles * share) // 2 * 2], 2)
    graph.retire("title", gone.astype(np.int32))
    new = graph.ids["title"].intern([f"late-{seed}-{number}" for number in range(len(gone))])
    # What was played with a title that moves is forgotten: as if it had faded.
    indptr, others, _ = graph.neighbors(0, np.sort(moved).astype(np.int32))
    head = np.repeat(np.sort(moved), np.diff(indptr))
    graph.apply(
        EdgeBatch(
            relation=np.zeros(len(head), np.int16),
            head=head.astype(np.int32),
            tail=others,
            weight=np.zeros(len(head), np.float32),
            op=np.full(len(head), Op.DELETE, np.uint8),
            time_ms=np.zeros(len(head), np.int64),
        )
    )
    changed = np.concatenate([new.astype(np.int64), moved])
    community, popularity = world.community.copy(), world.popularity.copy()
    community[changed] = rng.choice(world.community, len(changed))
    popularity[changed] = np.mean(world.popularity)
    now = World(community, popularity)
    first = np.repeat(changed, max(mean, 1))
    second = now.pairs(first, rng)
    apart = first != second
    code, back = np.unique(first[apart] * titles + second[apart], return_inverse=True)
    put(graph, 0, code // titles, code % titles, np.bincount(back).astype(np.float64))
    return now, changed
