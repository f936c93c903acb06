"""Stock PyG models train on the live graph, through PyG's own loaders."""

import warnings

import numpy as np
import pytest
import torch

from model.pyg_sampler import GraphSampler, edge_types
from store.edges import EdgeBatch
from store.graph import DynamicGraph, Relation

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # as in model/pyg_sampler.py
    from torch_geometric.data import HeteroData
    from torch_geometric.loader import LinkLoader, NodeLoader
    from torch_geometric.nn import SAGEConv, to_hetero
    from torch_geometric.sampler import NegativeSampling

TITLES, CONCEPTS, CLASSES = 200, 4, 4


@pytest.fixture
def graph() -> DynamicGraph:
    """Titles of four kinds; a title is played with others of its kind, and has its concept."""
    graph = DynamicGraph(
        [
            Relation("coplay", "title", "title", symmetric=True),
            Relation("genre", "title", "concept"),
        ]
    )
    graph.ids["title"].intern([f"t{i}" for i in range(TITLES)])
    graph.ids["concept"].intern([f"genre:{i}" for i in range(CONCEPTS)])
    rng = np.random.default_rng(0)
    heads = rng.integers(0, TITLES, 1500)
    tails = (heads + CLASSES * rng.integers(1, TITLES // CLASSES, 1500)) % TITLES
    apply(graph, 0, heads, tails)
    apply(graph, 1, np.arange(TITLES), np.arange(TITLES) % CONCEPTS)
    return graph


def apply(graph: DynamicGraph, relation: int, heads, tails) -> None:
    count = len(heads)
    graph.apply(
        EdgeBatch(
            np.full(count, relation, np.int16),
            heads.astype(np.int32),
            tails.astype(np.int32),
            np.ones(count, np.float32),
            np.zeros(count, np.uint8),
            np.zeros(count, np.int64),
        )
    )


def data_of(graph: DynamicGraph) -> HeteroData:
    """What PyG must know besides: features, and that there are edges, but none of them."""
    data = HeteroData()
    torch.manual_seed(0)
    data["title"].x = torch.randn(TITLES, 8)
    data["title"].y = torch.arange(TITLES) % CLASSES
    data["concept"].x = torch.eye(CONCEPTS, 8)
    for key in edge_types(graph):
        data[key].edge_index = torch.empty(2, 0, dtype=torch.long)
    return data


class Encoder(torch.nn.Module):
    def __init__(self, out: int) -> None:
        super().__init__()
        self.one, self.two = SAGEConv((-1, -1), 16), SAGEConv((-1, -1), out)

    def forward(self, x, edge_index):
        return self.two(self.one(x, edge_index).relu(), edge_index)


def test_a_stock_model_learns_classes_through_a_node_loader(graph: DynamicGraph) -> None:
    torch.set_num_threads(1)
    data = data_of(graph)
    loader = NodeLoader(
        data,
        node_sampler=GraphSampler(graph, [5, 5], seed=1),
        input_nodes=("title", torch.arange(TITLES)),
        batch_size=50,
        shuffle=True,
    )
    model = to_hetero(Encoder(CLASSES), data.metadata())
    optimizer = torch.optim.Adam(model.parameters(), 0.02) if initialise(model, loader) else None

    for _ in range(12):
        right = 0
        for batch in loader:
            size = batch["title"].batch_size
            out = model(batch.x_dict, batch.edge_index_dict)["title"][:size]
            loss = torch.nn.functional.cross_entropy(out, batch["title"].y[:size])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right += int((out.argmax(dim=1) == batch["title"].y[:size]).sum())

    assert right / TITLES > 0.9


def initialise(model, loader) -> bool:
    """Lazy layers take their width from a first batch."""
    batch = next(iter(loader))
    with torch.no_grad():
        model(batch.x_dict, batch.edge_index_dict)
    return True


@pytest.mark.parametrize("mode", ["binary", "triplet"])
def test_a_stock_model_learns_links_through_a_link_loader(graph: DynamicGraph, mode: str) -> None:
    torch.set_num_threads(1)
    data = data_of(graph)
    heads, tails, _ = graph.edges(0)
    loader = LinkLoader(
        data,
        link_sampler=GraphSampler(graph, [4, 4], seed=1),
        edge_label_index=(
            ("title", "coplay", "title"),
            torch.from_numpy(np.stack([heads, tails]).astype(np.int64)),
        ),
        neg_sampling=NegativeSampling(mode, 1),
        batch_size=256,
        shuffle=True,
    )
    model = to_hetero(Encoder(16), data.metadata())
    initialise(model, loader)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)

    losses = []
    for _ in range(4):
        for batch in loader:
            z = model(batch.x_dict, batch.edge_index_dict)["title"]
            if mode == "binary":
                ends = batch["title", "coplay", "title"]
                score = (z[ends.edge_label_index[0]] * z[ends.edge_label_index[1]]).sum(dim=1)
                label = ends.edge_label
            else:
                title = batch["title"]
                source = z[title.src_index]
                good = (source * z[title.dst_pos_index]).sum(dim=1)
                bad = (source * z[title.dst_neg_index]).sum(dim=1)
                score = torch.cat([good, bad])
                label = torch.cat([torch.ones_like(good), torch.zeros_like(bad)])
            loss = torch.nn.functional.binary_cross_entropy_with_logits(score, label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))

    assert np.mean(losses[-5:]) < 0.55 < np.mean(losses[:2])


def test_a_batch_sees_an_edge_that_came_after_the_loader_was_made(graph: DynamicGraph) -> None:
    graph.ids["title"].intern(["new"])
    data = data_of(graph)
    data["title"].x = torch.randn(TITLES + 1, 8)
    loader = NodeLoader(
        data,
        node_sampler=GraphSampler(graph, [3]),
        input_nodes=("title", torch.tensor([TITLES])),
        batch_size=1,
    )

    before = next(iter(loader))["title"].n_id.tolist()
    apply(graph, 0, np.array([TITLES]), np.array([7]))
    after = next(iter(loader))["title"].n_id.tolist()

    assert before == [TITLES]
    assert after == [TITLES, 7]


def test_an_unknown_edge_type_is_named(graph: DynamicGraph) -> None:
    with pytest.raises(ValueError, match="no edge types"):
        GraphSampler(graph, {("title", "mood", "concept"): [2]})
