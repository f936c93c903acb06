"""The layers that the model's layer is measured against, in its place in the same model.

All take and give the same states along the same edges; around them stand the same residual and
nonlinearity. `Naive` computes our own formula with a row an edge, as it is written.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import HGTConv, RGATConv
from torch_geometric.utils import softmax

from model.conv import SemanticConv
from model.semantic_gnn import RELATION_DIM, SemanticGNN
from model.sparse import Adjacency


class Naive(SemanticConv):
    """W_m [x_j || e_r] and W_K m_jr once an edge; gather, softmax and scatter of PyG's kind."""

    def forward(self, x_ND: Tensor, relation_RP: Tensor, edges: Adjacency) -> Tensor:
        targets, heads = edges.num_targets, self.heads
        both_EX = torch.cat([self.norm(x_ND)[edges.src], relation_RP[edges.relation]], 1)
        weight_DX = torch.cat([self.message.weight, self.relation_message.weight], 1)
        message_ED = F.linear(both_EX, weight_DX, self.relation_message.bias)
        key_EHK = self.key(message_ED).view(len(edges.src), heads, -1)
        query_TD = self.query(self.norm(x_ND[:targets]))
        query_EHK = query_TD.view(targets, heads, -1)[edges.dst]
        dot_EH = (query_EHK * key_EHK).sum(2) / math.sqrt(key_EHK.shape[2])
        bias_E = self.gamma_R[edges.relation] * edges.bias + self.delta_R[edges.relation]
        logit_EH = self.beta_R[edges.relation].unsqueeze(1) * dot_EH + bias_E.unsqueeze(1)
        weight_EH = softmax(logit_EH, edges.dst, num_nodes=targets)
        weighed_ED = (weight_EH.unsqueeze(2) * message_ED.view_as(key_EHK)).flatten(1)
        got_TD = weighed_ED.new_zeros(targets, x_ND.shape[1])
        got_TD = got_TD.index_add(0, edges.dst, weighed_ED)
        return x_ND[:targets] + F.gelu(got_TD)


class Rgat(nn.Module):
    """PyG's RGATConv with its defaults: a matrix a relation, and so a product an edge."""

    def __init__(self, dim: int, heads: int, relations: int) -> None:
        super().__init__()
        self.conv = RGATConv(dim, dim // heads, relations, heads=heads)

    def forward(self, x_ND: Tensor, relation_RP: Tensor, edges: Adjacency) -> Tensor:
        index_2E = torch.stack([edges.src, edges.dst])
        got_ND = self.conv(x_ND, index_2E, edges.relation)
        return x_ND[: edges.num_targets] + F.gelu(got_ND[: edges.num_targets])


class Hgt(nn.Module):
    """PyG's HGTConv: nodes and edges split by type. The split of the edges is not timed."""

    def __init__(self, dim: int, heads: int, relations: int, num_titles: int) -> None:
        super().__init__()
        self.titles = num_titles
        self.kinds = [
            ("concept" if number % 2 == 0 and number else "title", str(number), kind)
            for number in range(relations)
            for kind in ["concept" if number % 2 else "title"]
        ]
        self.conv = HGTConv(dim, dim, (["title", "concept"], self.kinds), heads=heads)
        self.split: dict[int, dict[tuple[str, str, str], Tensor]] = {}

    def forward(self, x_ND: Tensor, relation_RP: Tensor, edges: Adjacency) -> Tensor:
        if len(edges.src) not in self.split:
            index_2E = torch.stack([edges.src, edges.dst])
            self.split[len(edges.src)] = {
                kind: index_2E[:, edges.relation == int(kind[1])]
                - torch.tensor([[self.titles * (end == "concept")] for end in (kind[0], kind[2])])
                for kind in self.kinds
            }
        states = {"title": x_ND[: self.titles], "concept": x_ND[self.titles :]}
        got = self.conv(states, self.split[len(edges.src)])
        got_ND = torch.cat([got["title"], got["concept"]])
        return x_ND[: edges.num_targets] + F.gelu(got_ND[: edges.num_targets])


def with_layers(model: SemanticGNN, layer: str, num_titles: int) -> SemanticGNN:
    """A copy of the model with other layers: "ours", "naive", "rgat" or "hgt"."""
    copy, config = model.clone(), model.config
    relations = 2 * len(model.relation_names)
    for number in range(config.layers):
        if layer == "naive":
            other: nn.Module = Naive(config.dim, config.heads, RELATION_DIM, relations)
            other.load_state_dict(model.layer(number).state_dict())
        elif layer == "rgat":
            other = Rgat(config.dim, config.heads, relations)
        elif layer == "hgt":
            other = Hgt(config.dim, config.heads, relations, num_titles)
        else:
            continue
        copy.layers[number] = other
    copy.layer = lambda number: copy.layers[number]  # type: ignore[method-assign,return-value,assignment]
    return copy
