"""How many parts, so that training on one fits a trainer's memory.

The bytes of a subgraph are estimated as so many a title, a node and an edge (`Cost`). The defaults
are for a process that trains SemanticGNN at width 64 with two layers, torch included, and were
fitted to the measured peaks of generated graphs; `benchmarks/bench_partition.py` shows both. The
first number of parts is taken whose largest subgraph fits after the cut, as it is: hubs and
concepts do not divide.
"""

from dataclasses import dataclass

from partition.external import NodeSampler
from partition.hasp import HaspSubgraph, hasp_subgraph
from partition.mincut import Cutter, Partition, coplay_edges, cut_edges
from partition.neighbourhood import vertices
from store.graph import DynamicGraph


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes that training on a subgraph takes.

    Attributes:
        fixed: whatever the size: the interpreter with torch, and what a step's sample holds.
        title: a title, beyond what it costs as a node: its id embedding with gradient and moments.
        node: states, and what the way back needs of them.
        edge: its numbers both ways round, and its logits and attention in each layer.
    """

    fixed: int = 780 * 2**20
    title: int = 2_500
    node: int = 7_000
    edge: int = 300

    def of(self, titles: int, concepts: int, edges: int) -> int:
        return (
            self.fixed + self.title * titles + self.node * (titles + concepts) + self.edge * edges
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """Parts that fit.

    Attributes:
        partition: the cut.
        parts: the subgraph of each part.
        bytes: what each takes by the cost.
        tried: numbers of parts that did not fit, with the bytes of their largest.
    """

    partition: Partition
    parts: list[HaspSubgraph]
    bytes: list[int]
    tried: list[tuple[int, int]]

    @property
    def num_parts(self) -> int:
        return self.partition.num_parts


def fit(
    graph: DynamicGraph,
    budget: int,
    *,
    max_coplay: int | None,
    multiple: int = 1,
    most: int = 1024,
    cost: Cost = Cost(),
    seed: int = 0,
    cutter: Cutter = "auto",
    threads: int = 1,
    sampler: NodeSampler | None = None,
) -> Fit:
    """So many parts, a multiple of `multiple`, that each subgraph fits `budget` bytes.

    Args:
        multiple: number of trainers.
        most: no more parts than this are tried.
        max_coplay, sampler: see `hasp_subgraph`.

    Raises:
        ValueError: no number of parts fits; the message says what one title needs.
    """
    concepts = len(vertices(graph, "concept").live_ids())
    least = cost.of(1, concepts, 0)
    if least > budget:
        raise ValueError(
            f"a budget of {budget:,} bytes holds no part: one title with all {concepts:,} concepts "
            f"takes {least:,}; give more memory, or drop relations with many concepts"
        )
    edges = coplay_edges(graph)
    tried: list[tuple[int, int]] = []
    num_parts = multiple
    while num_parts <= max(most, multiple):
        made = cut_edges(edges, num_parts, seed=seed, cutter=cutter, threads=threads)
        parts = [
            hasp_subgraph(graph, made, part, max_coplay=max_coplay, sampler=sampler, seed=seed)
            for part in range(num_parts)
        ]
        sizes = [bytes_of(part, cost) for part in parts]
        if max(sizes) <= budget:
            return Fit(made, parts, sizes, tried)
        tried.append((num_parts, max(sizes)))
        # What divides, divides: no fewer parts than that can do.
        shared = cost.of(0, concepts, 0)
        want = num_parts * (max(sizes) - shared) / (budget - shared)
        num_parts = max(num_parts + multiple, int(want * 0.9) // multiple * multiple)
    raise ValueError(
        f"{tried[-1][0]} parts still take {tried[-1][1]:,} bytes each, of a budget of {budget:,}: "
        "give more memory, a smaller max_coplay, or fewer external titles"
    )


def bytes_of(part: HaspSubgraph, cost: Cost) -> int:
    """What training on `part` takes."""
    return cost.of(len(part.titles), len(part.concepts), part.edge_index.shape[1])
