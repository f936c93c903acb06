"""Choosing among sorted edges, without sorting them anew."""

from dataclasses import fields

import torch
from hypothesis import given
from hypothesis import strategies as st

from model.sparse import Adjacency

TARGETS, SOURCES = 5, 7

edge_lists = st.lists(
    st.tuples(st.integers(0, TARGETS - 1), st.integers(0, SOURCES - 1), st.integers(0, 2)),
    max_size=30,
).map(sorted)


def adjacency(edges, num_targets=TARGETS):
    dst, src, relation = (
        torch.tensor([edge[column] for edge in edges], dtype=torch.int64) for column in range(3)
    )
    bias = torch.tensor([edge[1] / 8 for edge in edges])
    return Adjacency.of(src, dst, relation, bias, num_sources=SOURCES, num_targets=num_targets)


def same(got, want):
    for field in fields(Adjacency):
        mine, theirs = getattr(got, field.name), getattr(want, field.name)
        assert torch.equal(mine, theirs) if torch.is_tensor(mine) else mine == theirs, field.name


@given(edges=edge_lists, data=st.data())
def test_the_edges_kept_are_those_that_were_made_anew(edges, data):
    chosen = data.draw(st.lists(st.booleans(), min_size=len(edges), max_size=len(edges)))

    got = adjacency(edges).keep(torch.tensor(chosen, dtype=torch.bool))

    same(got, adjacency([edge for edge, keep in zip(edges, chosen, strict=True) if keep]))


@given(edges=edge_lists, first=st.integers(0, TARGETS))
def test_the_edges_to_the_first_targets_are_those_that_were_made_anew(edges, first):
    got = adjacency(edges).to_first(first)

    same(got, adjacency([edge for edge in edges if edge[0] < first], num_targets=first))
