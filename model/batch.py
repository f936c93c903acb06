"""From numpy to torch: a subgraph as the model takes it.

Node order is the subgraph's: its titles, then its concepts.

Shape suffixes: T titles, C concepts, N = T + C nodes, E edges.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.sparse import Adjacency
from partition.hasp import HaspSubgraph


@dataclass(frozen=True, slots=True)
class GraphBatch:
    """A subgraph in tensors.

    Attributes:
        titles: rows of the title table, shape (T,), int64.
        concepts: rows of the concept table, shape (C,), int64.
        edges: among all nodes, sorted by target.
        strength: log(1 + summed co-play weight) of each title, shape (T,), float32.
        played: whether a title has co-plays, shape (T,), float32, 0 or 1.
    """

    titles: Tensor
    concepts: Tensor
    edges: Adjacency
    strength: Tensor
    played: Tensor

    @classmethod
    def of(cls, graph: HaspSubgraph, device: torch.device | str = "cpu") -> "GraphBatch":
        """Copy a subgraph over to `device`."""
        nodes = graph.num_nodes
        edges = Adjacency.of(
            torch.from_numpy(graph.edge_index[0]).to(device),
            torch.from_numpy(graph.edge_index[1]).to(device),
            torch.from_numpy(graph.relation).to(device),
            log_weight(graph.weight).to(device),
            num_sources=nodes,
            num_targets=nodes,
        )
        strength = torch.from_numpy(graph.strength).to(device)
        return cls(
            torch.from_numpy(graph.titles.astype(np.int64)).to(device),
            torch.from_numpy(graph.concepts.astype(np.int64)).to(device),
            edges,
            torch.log1p(strength),
            (strength > 0).float(),
        )

    def hide(
        self, share_of_titles: float, share_of_edges: float, generator: torch.Generator
    ) -> "GraphBatch":
        """The same graph with some titles as if unplayed, and some edges gone, for training.

        A hidden title loses the co-play edges into it, its id embedding and its strength; its
        neighbours still see it.
        """
        titles = len(self.titles)
        shown = torch.rand(titles, generator=generator) >= share_of_titles
        edges = self.edges
        coplay = (edges.src < titles) & (edges.dst < titles)
        keep = torch.rand(len(edges.src), generator=generator) >= share_of_edges
        keep &= ~coplay | shown[edges.dst.clamp(max=max(titles - 1, 0))] if titles else keep
        return GraphBatch(
            self.titles,
            self.concepts,
            edges.keep(keep),
            self.strength * shown,
            self.played * shown,
        )


def log_weight(weight: np.ndarray) -> Tensor:
    """Logarithm of edge weights, shape (E,), float32; -87 for a weight of 0."""
    floor = np.finfo(np.float32).tiny
    return torch.from_numpy(np.log(np.maximum(weight, floor)).astype(np.float32))
