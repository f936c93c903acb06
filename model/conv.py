"""One round of relation-aware attention over typed, weighted edges.

    m_jr   = W_m [x_j || e_r] = W_h x_j + W_e e_r
    a_ijr  = beta_r <W_K m_jr, W_Q x_i> / sqrt(K) + gamma_r log w_ij + delta_r
    alpha  = softmax of a over all edges into i, across relations
    x'_i   = x_i + GELU(sum alpha_ijr m_jr)

The map of a concatenation is split, so that W_h x_j is computed once a node and W_e e_r once a
relation: no matrix product an edge. A node that no edge enters keeps its state.

Source: Z. Huang et al., "Synergistic Signals: Exploiting Co-Engagement and Semantic Links via
Graph Neural Networks", WWW 2024 (message, attention, the factor beta_r, residual). Ours: the bias
of a weighted edge (gamma, delta), heads, and layer normalisation in front of the message.

Shape suffixes: N nodes, T targets (the first T of the nodes), R message relations, E edges,
H heads, K channels of a head, D = H * K, P width of a relation embedding.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.sparse import Adjacency, edge_dot, edge_softmax, edge_sum


class SemanticConv(nn.Module):
    """The layer above; the relation embeddings e_r are the model's, shared by its layers.

    Args:
        dim: D.
        heads: H, divides D.
        relation_dim: P.
        num_relations: R; grows by `grow`.
    """

    def __init__(self, dim: int, heads: int, relation_dim: int, num_relations: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.message = nn.Linear(dim, dim, bias=False)
        self.relation_message = nn.Linear(relation_dim, dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.beta_R = nn.Parameter(torch.ones(num_relations))
        self.gamma_R = nn.Parameter(torch.ones(num_relations))
        self.delta_R = nn.Parameter(torch.zeros(num_relations))

    def forward(self, x_ND: Tensor, relation_RP: Tensor, edges: Adjacency) -> Tensor:
        """New states of the targets, shape (T, D).

        Args:
            x_ND: states of all sources; the targets are the first of them.
            relation_RP: embedding of each message relation.
            edges: from nodes to targets.
        """
        x_TD = x_ND[: edges.num_targets]
        message_ND, query_TD = self.project(x_ND, x_TD)
        return self.attend(x_TD, query_TD, message_ND, relation_RP, edges)

    def project(self, x_ND: Tensor, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """W_h x of the sources, shape (N, D), and W_Q x of the targets, shape (T, D)."""
        message_ND: Tensor = self.message(self.norm(x_ND))
        query_TD: Tensor = self.query(self.norm(x_TD))
        return message_ND, query_TD

    def attend(
        self,
        x_TD: Tensor,
        query_TD: Tensor,
        message_ND: Tensor,
        relation_RP: Tensor,
        edges: Adjacency,
    ) -> Tensor:
        """As `forward`, from what `project` gave; the sources may be any rows."""
        relation_RD: Tensor = self.relation_message(relation_RP)
        weight_HE = self.attention(query_TD, message_ND, relation_RD, edges)
        got_HTK = edge_sum(weight_HE, self._split(message_ND), edges)
        mass_HTR = self.mass(weight_HE, edges, relation_RP.shape[0])
        got_HTK = got_HTK + mass_HTR @ self._split(relation_RD)
        return x_TD + F.gelu(got_HTK.transpose(0, 1).flatten(1))

    def attention(
        self, query_TD: Tensor, message_ND: Tensor, relation_RD: Tensor, edges: Adjacency
    ) -> Tensor:
        """alpha of each edge, shape (H, E)."""
        query_HTK = self._split(query_TD)
        key_HNK = self._split(self.key(message_ND))
        key_HRK = self._split(self.key(relation_RD))
        by_relation_HTR = query_HTK @ key_HRK.transpose(1, 2)
        pair_E = edges.dst * relation_RD.shape[0] + edges.relation
        dot_HE = edge_dot(query_HTK, key_HNK, edges)
        dot_HE = dot_HE + by_relation_HTR.flatten(1).index_select(1, pair_E)
        factor_E = self.beta_R.index_select(0, edges.relation) / math.sqrt(query_HTK.shape[2])
        bias_E = self.gamma_R.index_select(0, edges.relation) * edges.bias
        bias_E = bias_E + self.delta_R.index_select(0, edges.relation)
        return edge_softmax(dot_HE * factor_E + bias_E, edges)

    @staticmethod
    def mass(weight_HE: Tensor, edges: Adjacency, num_relations: int) -> Tensor:
        """Attention that each target pays to each relation, shape (H, T, R)."""
        heads, targets = weight_HE.shape[0], edges.num_targets
        pair_E = edges.dst * num_relations + edges.relation
        mass = weight_HE.new_zeros(heads, targets * num_relations).index_add(1, pair_E, weight_HE)
        return mass.view(heads, targets, num_relations)

    def grow(self, num_relations: int) -> None:
        """Make room for relations that came later; they start neutral."""
        more = num_relations - self.beta_R.shape[0]
        if more <= 0:
            return
        self.beta_R = nn.Parameter(torch.cat([self.beta_R.data, torch.ones(more)]))
        self.gamma_R = nn.Parameter(torch.cat([self.gamma_R.data, torch.ones(more)]))
        self.delta_R = nn.Parameter(torch.cat([self.delta_R.data, torch.zeros(more)]))

    def _split(self, x_ND: Tensor) -> Tensor:
        """(N, D) to (H, N, K)."""
        return x_ND.view(len(x_ND), self.heads, x_ND.shape[1] // self.heads).transpose(0, 1)
