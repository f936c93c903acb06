"""From numpy to torch: a subgraph as the model takes it.

Node order is the subgraph's: its titles, then its concepts.

Shape suffixes: T titles, C concepts, N = T + C nodes, E edges.
"""

from dataclasses import dataclass, replace

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
        features: dense features of each title, shape (T, F), float32.
    """

    titles: Tensor
    concepts: Tensor
    edges: Adjacency
    strength: Tensor
    played: Tensor
    features: Tensor

    @classmethod
    def of(cls, graph: HaspSubgraph) -> "GraphBatch":
        """A subgraph in tensors, on the CPU."""
        nodes = graph.num_nodes
        edges = Adjacency.of(
            torch.from_numpy(graph.edge_index[0]),
            torch.from_numpy(graph.edge_index[1]),
            torch.from_numpy(graph.relation),
            log_weight(graph.weight),
            num_sources=nodes,
            num_targets=nodes,
        )
        strength = torch.from_numpy(graph.strength)
        return cls(
            torch.from_numpy(graph.titles.astype(np.int64)),
            torch.from_numpy(graph.concepts.astype(np.int64)),
            edges,
            torch.log1p(strength),
            (strength > 0).float(),
            torch.from_numpy(graph.features),
        )

    def to(self, device: torch.device) -> "GraphBatch":
        """All of it there."""
        if self.titles.device == device:
            return self
        return replace(
            self,
            titles=self.titles.to(device),
            concepts=self.concepts.to(device),
            edges=self.edges.to(device),
            strength=self.strength.to(device),
            played=self.played.to(device),
            features=self.features.to(device),
        )

    def hide(
        self, share_of_titles: float, share_of_edges: float, generator: torch.Generator
    ) -> "GraphBatch":
        """The same graph with some titles as if unplayed, and some edges gone, for training.

        A hidden title loses the co-play edges into it, its id embedding and its strength; its
        neighbours still see it. All draws are made on the CPU, so that a seed means the same on
        every device.
        """
        titles, device = len(self.titles), self.titles.device
        shown = (torch.rand(titles, generator=generator) >= share_of_titles).to(device)
        edges = self.edges
        coplay = (edges.src < titles) & (edges.dst < titles)
        keep = (torch.rand(len(edges.src), generator=generator) >= share_of_edges).to(device)
        keep &= ~coplay | shown[edges.dst.clamp(max=max(titles - 1, 0))] if titles else keep
        return replace(
            self,
            edges=edges.keep(keep),
            strength=self.strength * shown,
            played=self.played * shown,
        )


def log_weight(weight: np.ndarray) -> Tensor:
    """Logarithm of edge weights, shape (E,), float32; -87 for a weight of 0."""
    floor = np.finfo(np.float32).tiny
    return torch.from_numpy(np.log(np.maximum(weight, floor)).astype(np.float32))
