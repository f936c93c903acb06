import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.batch import GraphBatch
from model.inference import Embedder
from model.pairs import Anchor, Pairs, inclusion
from model.positives import Positives
from partition.hasp import whole_graph


def dense(pairs, titles):
    """Weight of each pair, from the compressed rows."""
    out = np.zeros((titles, titles))
    for row, source in enumerate(pairs.source.tolist()):
        at = slice(int(pairs.ptr[row]), int(pairs.ptr[row + 1]))
        out[source, pairs.target[at].numpy()] += pairs.weight[at].numpy()
    return out


def positives(rows):
    a, b, weight = (np.array(column) for column in zip(*rows, strict=True))
    return Positives(
        a.astype(np.int32),
        b.astype(np.int32),
        weight.astype(np.float32),
        np.arange(len(rows), dtype=np.int64),
    )


ROWS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(1, 5)), min_size=1)


@given(rows=ROWS)
def test_pairs_count_both_ways_and_the_graph_holds_the_same(make_graph, rows):
    graph = make_graph(8, [row for row in rows if row[0] != row[1]], {})
    subgraph = whole_graph(graph, max_coplay=None)
    want = np.zeros((8, 8))
    for a, b, weight in rows:
        if a != b:
            want[a, b] += weight
            want[b, a] += weight

    counted = Pairs.inside(subgraph, positives(rows))
    held = Pairs.of_graph(graph, subgraph, less=Positives.empty())

    np.testing.assert_allclose(dense(counted, 8), want)
    np.testing.assert_allclose(dense(held, 8), want)
    assert len(counted) == len(held) == np.count_nonzero(want)


@given(rows=ROWS, later=ROWS)
def test_pairs_that_are_held_back_are_not_in_it(make_graph, rows, later):
    both = [row for row in rows + later if row[0] != row[1]]
    subgraph = whole_graph(make_graph(8, both, {}), max_coplay=None)

    left = Pairs.of_graph(make_graph(8, both, {}), subgraph, less=positives(later))

    want = dense(Pairs.inside(subgraph, positives(rows)), 8)
    np.testing.assert_allclose(dense(left, 8), want, atol=1e-5)


@given(
    share=st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=30),
    draws=st.integers(1, 40),
)
def test_chances_follow_the_shares_up_to_one(share, draws):
    share = torch.tensor(share, dtype=torch.float64)
    share = share / share.sum()

    chance = inclusion(share, draws)

    assert float(chance.sum()) == pytest.approx(min(draws, len(share)))
    assert float(chance.max()) <= 1
    ratio = (chance / share)[chance < 1 - 1e-9]
    if len(ratio):
        assert float(ratio.min()) == pytest.approx(float(ratio.max()))


def test_a_mean_over_drawn_sources_is_right_on_average(make_graph):
    rng = np.random.default_rng(0)
    rows = [(int(a), int(b), float(w)) for a, b, w in rng.integers(1, 30, size=(200, 3))]
    subgraph = whole_graph(make_graph(31, [], {}), max_coplay=None)
    pairs = Pairs.inside(subgraph, positives(rows))
    generator = torch.Generator().manual_seed(0)
    value = torch.arange(31, dtype=torch.float32)

    means = []
    for _ in range(300):
        row, weight = pairs.spread(8, generator)
        assert len(row.unique()) == len(row) <= 8
        means.append(float((value[pairs.source[row]] * weight).sum()))

    total = dense(pairs, 31).sum(1)
    assert np.mean(means) == pytest.approx(float(value.numpy() @ total / total.sum()), rel=0.05)


def test_shares_are_what_was_counted(make_graph):
    subgraph = whole_graph(make_graph(4, [], {}), max_coplay=None)
    pairs = Pairs.inside(subgraph, positives([(0, 1, 3), (0, 2, 1), (1, 0, 1)]))

    shares = pairs.shares(torch.tensor([1, 0]))

    assert shares.ptr.tolist() == [0, 1, 3]
    assert shares.target.tolist() == [0, 1, 2]
    torch.testing.assert_close(shares.share, torch.tensor([1.0, 0.8, 0.2]))


@given(fresh=ROWS, past=ROWS, share=st.sampled_from([0.0, 0.25, 1.0]))
def test_fresh_sources_keep_their_weight_and_share_their_targets_with_the_past(
    make_graph, fresh, past, share
):
    subgraph = whole_graph(make_graph(8, [], {}), max_coplay=None)
    new, old = (Pairs.inside(subgraph, positives(rows)) for rows in (fresh, past))

    mixed = dense(new.over(old, share), 8)

    late, ever = dense(new, 8), dense(old, 8)
    for source in range(8):
        weight = late[source].sum()
        want = late[source]
        if weight and ever[source].sum():
            want = weight * (share * late[source] / weight)
            want += weight * (1 - share) * ever[source] / ever[source].sum()
        np.testing.assert_allclose(mixed[source], want, atol=1e-5)


def test_what_nobody_has_played_is_held_to_what_is_trained_of_it(make_graph, make_model):
    graph = make_graph(4, [(0, 1, 1.0)], {"genre": [(0, 0), (2, 0), (3, 1)]})
    model = make_model(graph)
    model.unplayed.theta += 1.0
    embedder = Embedder(model)
    embedder.full(graph)
    published = embedder.vectors(np.arange(4))
    subgraph = whole_graph(graph, max_coplay=3)
    batch = GraphBatch.of(subgraph)

    anchor = Anchor.of(subgraph, published, 1.0).with_bare(model, batch)

    assert anchor.rows.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(anchor.vectors[:2], published[:2])
    with torch.no_grad():
        torch.testing.assert_close(anchor.vectors[2:], model(batch)[2:])
    assert not np.allclose(anchor.vectors[2:], published[2:])
