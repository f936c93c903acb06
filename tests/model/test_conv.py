import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from model.conv import SemanticConv
from model.sparse import Adjacency, edge_dot, edge_softmax, edge_sum

TARGETS, SOURCES, RELATIONS, DIM, HEADS = 4, 6, 3, 8, 2

edge_lists = st.lists(
    st.tuples(
        st.integers(0, TARGETS - 1), st.integers(0, SOURCES - 1), st.integers(0, RELATIONS - 1)
    ),
    max_size=20,
).map(sorted)


def adjacency(edges, bias=None):
    dst, src, relation = (
        torch.tensor([edge[column] for edge in edges], dtype=torch.int64) for column in range(3)
    )
    bias = torch.zeros(len(edges)) if bias is None else bias
    return Adjacency.of(src, dst, relation, bias, num_sources=SOURCES, num_targets=TARGETS)


def conv():
    torch.manual_seed(0)
    layer = SemanticConv(DIM, HEADS, 5, RELATIONS)
    for parameter in layer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return layer


@given(edges=edge_lists)
def test_forward_equals_the_formula_edge_by_edge(edges):
    layer = conv()
    torch.manual_seed(1)
    x_ND, relation_RP = torch.randn(SOURCES, DIM), torch.randn(RELATIONS, 5)
    bias = torch.randn(len(edges))

    out_TD = layer(x_ND, relation_RP, adjacency(edges, bias))

    channels = DIM // HEADS
    normed = layer.norm(x_ND)
    for target in range(TARGETS):
        mine = [(e, *edge) for e, edge in enumerate(edges) if edge[0] == target]
        want = x_ND[target]
        if mine:
            messages, logits = [], []
            for e, _, source, r in mine:
                message = layer.message(normed[source]) + layer.relation_message(relation_RP[r])
                key = layer.key(message).view(HEADS, channels)
                query = layer.query(normed[target]).view(HEADS, channels)
                dot = (key * query).sum(1) / math.sqrt(channels)
                logits.append(layer.beta_R[r] * dot + layer.gamma_R[r] * bias[e] + layer.delta_R[r])
                messages.append(message.view(HEADS, channels))
            alpha = torch.softmax(torch.stack(logits), 0)
            got = (alpha.unsqueeze(2) * torch.stack(messages)).sum(0).flatten()
            want = want + F.gelu(got)
        torch.testing.assert_close(out_TD[target], want, atol=1e-5, rtol=1e-5)


@given(edges=edge_lists)
def test_the_sparse_products_and_their_gradients_equal_those_with_a_row_an_edge(edges):
    torch.manual_seed(2)
    block = adjacency(edges)
    q = torch.randn(HEADS, TARGETS, 4, requires_grad=True)
    k = torch.randn(HEADS, SOURCES, 4, requires_grad=True)

    weight = edge_softmax(edge_dot(q, k, block), block)
    out = edge_sum(weight, k, block)
    (out * torch.arange(4.0)).sum().backward()
    got = out.detach(), q.grad.clone(), k.grad.clone()

    q.grad = k.grad = None
    logit = (q[:, block.dst] * k[:, block.src]).sum(2)
    rows = [block.dst == target for target in range(TARGETS)]
    plain = torch.cat([torch.softmax(logit[:, row], 1) for row in rows], 1)
    want = torch.zeros(HEADS, TARGETS, 4).index_add(
        1, block.dst, plain.unsqueeze(2) * k[:, block.src]
    )
    (want * torch.arange(4.0)).sum().backward()
    for mine, theirs in zip(got, (want.detach(), q.grad, k.grad), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_attention_of_a_target_sums_to_one_over_relations():
    layer = conv()
    block = adjacency([(0, 0, 0), (0, 1, 1), (0, 5, 2), (2, 2, 1)])
    message, query = layer.project(torch.randn(SOURCES, DIM), torch.randn(TARGETS, DIM))

    weight = layer.attention(query, message, torch.randn(RELATIONS, DIM), block)
    mass = layer.mass(weight, block, RELATIONS)

    torch.testing.assert_close(
        mass.sum(2), torch.tensor([1.0, 0.0, 1.0, 0.0]).expand(HEADS, TARGETS)
    )


def test_a_relation_that_comes_later_starts_neutral():
    layer = conv()

    layer.grow(RELATIONS + 2)

    assert layer.beta_R[RELATIONS:].tolist() == pytest.approx([1.0, 1.0])
    assert layer.delta_R[RELATIONS:].tolist() == pytest.approx([0.0, 0.0])
