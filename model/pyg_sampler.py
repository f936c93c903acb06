"""PyG's sampler interface over the live graph: any NodeLoader or LinkLoader can train on it.

PyG's own neighbour sampler wants a static graph and compiled extensions; this one draws from the
store as it is at that moment. An edge type of PyG is (source type, name, target type), and messages
go from source to target: relation "genre" from title to concept is that edge type, drawn by
following it from tails to heads; "rev_genre" from concept to title is the other way.
"""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from store.graph import DynamicGraph
from store.sampling import Direction, Neighbourhood, sample_hops

with warnings.catch_warnings():
    # PyG scripts classes of its own when it is imported; torch calls that deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch_geometric.sampler import (
        BaseSampler,
        EdgeSamplerInput,
        HeteroSamplerOutput,
        NegativeSampling,
        NodeSamplerInput,
    )

EdgeType = tuple[str, str, str]


class GraphSampler(BaseSampler):  # type: ignore[misc]
    """Draws neighbourhoods of nodes, or of the ends of links, out of a `DynamicGraph`.

    Args:
        graph: sampled as it is when a batch is drawn.
        num_neighbors: draws a node at each hop, for all edge types or by edge type; -1: all.
        weighted: draw in proportion to weight; else each neighbour is as likely.
        replace: a neighbour may be drawn again.
        seed: of the first batch; each batch draws with the next.
        lock: held while a batch is drawn, where another thread writes to the graph.
    """

    def __init__(
        self,
        graph: DynamicGraph,
        num_neighbors: Sequence[int] | Mapping[EdgeType, Sequence[int]],
        *,
        weighted: bool = True,
        replace: bool = False,
        seed: int = 0,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self.graph = graph
        self.weighted = weighted
        self.replace = replace
        self._seed = seed
        self._lock = lock if lock is not None else nullcontext()
        known = edge_types(graph)
        if isinstance(num_neighbors, Mapping):
            unknown = set(num_neighbors) - set(known)
            if unknown:
                raise ValueError(f"no edge types {sorted(unknown)}: there are {sorted(known)}")
            self._fanouts = {known[key]: list(widths) for key, widths in num_neighbors.items()}
        else:
            self._fanouts = {direction: list(num_neighbors) for direction in known.values()}
        self._types = {direction: key for key, direction in known.items()}

    @property
    def edge_permutation(self) -> None:
        """Edges have no numbers: they come and go."""
        return None

    def sample_from_nodes(self, index: NodeSamplerInput, **_: object) -> HeteroSamplerOutput:
        """The surroundings of nodes of one type.

        Raises:
            ValueError: the nodes have no type, or one comes twice.
        """
        if index.input_type is None:
            raise ValueError("input_nodes names no node type: want (type, ids)")
        seeds = index.node.numpy()
        if len(np.unique(seeds)) < len(seeds):
            raise ValueError("a seed comes twice in a batch: want each node once")
        out = self._output(self._draw({index.input_type: seeds}))
        out.metadata = (index.input_id, index.time)
        return out

    def sample_from_edges(
        self, index: EdgeSamplerInput, neg_sampling: NegativeSampling | None = None
    ) -> HeteroSamplerOutput:
        """The surroundings of the ends of links, with binary or triplet negatives.

        Raises:
            ValueError: the links have no type.
        """
        if index.input_type is None:
            raise ValueError("edge_label_index names no edge type: want (type, index)")
        source_type, _, target_type = index.input_type
        row, col = index.row.numpy(), index.col.numpy()
        label, negatives = index.label, np.zeros(0, np.int64)
        sources = row
        if neg_sampling is not None:
            rng = np.random.default_rng(self._seed)
            count = int(np.ceil(len(row) * float(neg_sampling.amount)))
            live = self.graph.ids[target_type].live_ids()
            negatives = rng.choice(live, count).astype(np.int64)
            if neg_sampling.is_binary():
                more = rng.choice(self.graph.ids[source_type].live_ids(), count)
                sources = np.concatenate([row, more.astype(np.int64)])
                positive = torch.ones(len(row)) if label is None else label.float() + 1
                label = torch.cat([positive, torch.zeros(count)])
        targets = np.concatenate([col, negatives])

        if source_type == target_type:
            nodes, place = _unique(np.concatenate([sources, targets]))
            seeds = {source_type: nodes}
            from_place, to_place = place[: len(sources)], place[len(sources) :]
        else:
            from_nodes, from_place = _unique(sources)
            to_nodes, to_place = _unique(targets)
            seeds = {source_type: from_nodes, target_type: to_nodes}
        out = self._output(self._draw(seeds))
        if neg_sampling is not None and neg_sampling.is_triplet():
            negative = torch.from_numpy(to_place[len(col) :])
            out.metadata = (
                index.input_id,
                torch.from_numpy(from_place),
                torch.from_numpy(to_place[: len(col)]),
                negative if neg_sampling.amount == 1 else negative.view(len(row), -1),
                index.time,
            )
        else:
            pairs = torch.from_numpy(np.stack([from_place, to_place]))
            out.metadata = (index.input_id, pairs, label, index.time)
        return out

    def _draw(self, seeds: dict[str, np.ndarray]) -> Neighbourhood:
        with self._lock:
            self._seed += 1
            return sample_hops(
                self.graph,
                seeds,
                self._fanouts,
                seed=self._seed,
                weighted=self.weighted,
                replace=self.replace,
            )

    def _output(self, found: Neighbourhood) -> HeteroSamplerOutput:
        def by_type(parts: Mapping[Direction, np.ndarray]) -> dict[EdgeType, Tensor]:
            return {self._types[key]: torch.from_numpy(part) for key, part in parts.items()}

        return HeteroSamplerOutput(
            node={kind: torch.from_numpy(ids).long() for kind, ids in found.nodes.items()},
            row=by_type(found.row),
            col=by_type(found.col),
            edge=dict.fromkeys(self._types.values()),
            batch=None,
            num_sampled_nodes=found.nodes_by_hop,
            num_sampled_edges={self._types[key]: n for key, n in found.edges_by_hop.items()},
        )


def edge_types(graph: DynamicGraph) -> dict[EdgeType, Direction]:
    """PyG's edge types of a graph, and how each is drawn for its targets."""
    found: dict[EdgeType, Direction] = {}
    for number, relation in enumerate(graph.relations):
        if relation.symmetric:
            found[relation.head, relation.name, relation.tail] = (number, False)
        else:
            found[relation.head, relation.name, relation.tail] = (number, True)
            found[relation.tail, f"rev_{relation.name}", relation.head] = (number, False)
    return found


def _unique(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids without repeats in the order in which they come, and the place of each among them."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return ids[np.sort(first)], rank[inverse]
