"""Why a title's vector is what it is, in the model's own terms: where its attention goes.

Each layer of the model mixes a title's neighbours by attention: weights that sum to 1 over all of
them, across relations. Their mean over layers and heads is what we call a neighbour's *share*. It
says what the model looks at, not what would happen without it.

Past all layers goes what was learnt of this title alone, its id embedding; a title that nobody has
played has none. Of such a title the shares are those of its bare vector, which is only one part of
what is published (model/unplayed.py).
"""

from dataclasses import dataclass

import numpy as np
import torch

from model.inference import Embedder
from partition.neighbourhood import strength, vertices
from store.graph import DynamicGraph


@dataclass(frozen=True, slots=True)
class RelationShare:
    """What a relation has of a title's attention.

    Attributes:
        share: 0..1.
        by_layer: the same in each layer.
        neighbours: that the title has by this relation, as far as the model looks at them.
    """

    relation: str
    share: float
    by_layer: list[float]
    neighbours: int


@dataclass(frozen=True, slots=True)
class NeighbourShare:
    """What one neighbour has of a title's attention.

    Attributes:
        id: of a title, or of a concept ("relation:value").
        share: 0..1.
        weight: of the edge, as the model sees it: a co-play's closeness relative to the mean of the
            neighbours', else the edge's own.
    """

    relation: str
    id: str
    is_title: bool
    share: float
    weight: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a title is where it is.

    Attributes:
        title: id.
        strength: its summed co-play weight.
        relations: all that the title has neighbours by, the largest share first.
        neighbours: the strongest ones, the largest share first.
        own: what went past the layers, of the vector's length: |o| / (|o| + |v - o|), 0..1.
    """

    title: str
    strength: float
    relations: list[RelationShare]
    neighbours: list[NeighbourShare]
    own: float = 0.0


def explain(embedder: Embedder, graph: DynamicGraph, title: str, *, k: int = 10) -> Explanation:
    """Explain one title.

    Args:
        embedder: complete for `graph`.
        title: id.
        k: neighbours to name, at most.

    Raises:
        ValueError: there is no such title.
    """
    row = int(vertices(graph, "title").find([title])[0])
    if row < 0:
        raise ValueError(f"title {title!r} is not in the graph: send it through the catalogue")
    edges, attention_LHE = embedder.attention(graph, row)
    share_LE = attention_LHE.mean(1)
    share_E = share_LE.mean(0)
    relations = []
    for number in np.unique(edges.relation).tolist():
        chosen = edges.relation == number
        relations.append(
            RelationShare(
                graph.relations[number // 2].name,
                float(share_E[chosen].sum()),
                [float(one) for one in share_LE[:, chosen].sum(1)],
                int(chosen.sum()),
            )
        )
    relations.sort(key=lambda one: -one.share)
    neighbours = []
    for edge in np.lexsort((edges.source, -share_E))[:k].tolist():
        kind = "concept" if edges.from_concept[edge] else "title"
        neighbours.append(
            NeighbourShare(
                graph.relations[int(edges.relation[edge]) // 2].name,
                vertices(graph, kind).names(edges.source[edge : edge + 1])[0],
                kind == "title",
                float(share_E[edge]),
                float(edges.weight[edge]),
            )
        )
    strong = float(strength(graph, np.array([row], np.int32))[0])
    return Explanation(title, strong, relations, neighbours, _own_share(embedder, row, strong))


def _own_share(embedder: Embedder, row: int, strong: float) -> float:
    """See `Explanation.own`."""
    model = embedder.model
    if strong <= 0 or row >= len(model.title_TD):
        return 0.0
    with torch.no_grad():
        own_D = model.past_layers(model.title_TD[row]).numpy()
    rest_D = embedder.vectors(np.array([row]))[0] - own_D
    own, rest = float(np.linalg.norm(own_D)), float(np.linalg.norm(rest_D))
    return own / (own + rest) if own > 0 else 0.0
