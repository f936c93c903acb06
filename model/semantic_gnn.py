"""SemanticGNN: vectors of titles from their concepts and from what is watched together.

Inputs. A concept enters with its TransE vector (fine-tuned). A title enters with the place where
TransE would put it, the mean of x_c - e_r over its concepts, which needs no row of its own, plus a
residual id embedding that counts only where the title has co-plays, plus a map of its dense
features, where the catalogue gives any (model/features.py). So a title that nobody has played is
placed by its concepts and features alone. Output. A linear map of the last state, plus one of the
id embedding itself, past all layers: what is true of this title alone would get lost among what its
neighbours send. Plus a direction scaled by how popular the title is: a score is the dot product of
two published vectors, so that must stand in the vector. Popularity is log(1 + w), w the summed
co-play weight, as far as it is known, else what the state lets expect:
k log(1 + w) + (1 - k) <v, x>, with k = w / (w + prior). A title of today is no flop. Scores are
logits; vectors are published as is, but for titles that nobody has played (model/unplayed.py).

Rows of the tables are found by name. `bind` moves them to the dense ids of a graph: the catalogue
grows, shrinks and reuses slots, and a checkpointed graph may number titles anew.

Source: Z. Huang et al., "Synergistic Signals: Exploiting Co-Engagement and Semantic Links via Graph
Neural Networks", WWW 2024. Ours: the input of a title, the mask, the way past the layers, and the
popularity direction.

Shape suffixes: N nodes, T titles, C concepts, R message relations, D = config.dim, E edges.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.batch import GraphBatch
from model.conv import SemanticConv
from model.features import FeatureMap
from model.settings import ModelConfig
from model.sparse import Adjacency, edge_sum
from model.unplayed import Unplayed
from partition.named import dense_names, rows_of
from store.graph import DynamicGraph

RELATION_DIM = 32
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Names:
    """What the rows of the tables stand for; "" where a row is free.

    Attributes:
        title, concept: name of each row.
        relation: relations of the store; message relations are twice as many.
    """

    title: list[str]
    concept: list[str]
    relation: list[str]

    @classmethod
    def of(cls, graph: DynamicGraph) -> "Names":
        """Those that `graph` has now, by dense id."""
        return cls(
            dense_names(graph, "title"),
            dense_names(graph, "concept"),
            [relation.name for relation in graph.relations],
        )

    def moved_to(self, new: "Names") -> "Moved | None":
        """Where the rows of `new` are found here; None where both are the same."""
        if self == new:
            return None
        relation = rows_of(self.relation, new.relation)
        directions = np.where(relation[:, None] < 0, -1, 2 * relation[:, None] + [0, 1])
        return Moved(
            {
                "title": rows_of(self.title, new.title),
                "concept": rows_of(self.concept, new.concept),
                "message_relation": directions.ravel(),
            }
        )


@dataclass(frozen=True, slots=True)
class Moved:
    """Where each row came from: -1 for a new one.

    Attributes:
        rows: old row of each new row, by kind (`title`, `concept`, `message_relation`), int64.
    """

    rows: dict[str, Int64s]


class SemanticGNN(nn.Module):
    """The model, without any graph.

    Attributes:
        title_names: name of each row of the title table; "" where the row is free.
        concept_names: likewise.
        relation_names: relations of the store; message relations are twice as many.
    """

    def __init__(
        self,
        config: ModelConfig,
        title_names: Sequence[str],
        concept_names: Sequence[str],
        relation_names: Sequence[str],
    ) -> None:
        super().__init__()
        self.config = config
        self.title_names = list(title_names)
        self.concept_names = list(concept_names)
        self.relation_names = list(relation_names)
        dim, relations = config.dim, 2 * len(self.relation_names)
        self.title_TD = nn.Parameter(torch.randn(len(self.title_names), dim) * 0.1)
        self.concept_CD = nn.Parameter(torch.randn(len(self.concept_names), dim) / dim**0.5)
        self.translation_RD = nn.Parameter(torch.zeros(relations, dim))
        self.relation_RP = nn.Parameter(torch.randn(relations, RELATION_DIM))
        self.input = nn.Linear(dim, dim)
        self.features = FeatureMap(config.features, dim) if config.features else None
        self.layers = nn.ModuleList(
            SemanticConv(dim, config.heads, RELATION_DIM, relations) for _ in range(config.layers)
        )
        self.output = nn.Linear(dim, dim)
        self.past_layers = nn.Linear(dim, dim, bias=False)
        self.popularity = nn.Linear(1, dim, bias=False)
        self.expected = nn.Linear(dim, 1)
        self.unplayed = Unplayed()
        with torch.no_grad():
            self.output.weight.mul_(0.25)
            self.past_layers.weight.copy_(torch.eye(dim))
            self.popularity.weight.mul_(0.1)
        if not config.residual_id:
            self.title_TD.data.zero_()
            self.title_TD.requires_grad_(False)
            self.past_layers.weight.requires_grad_(False)
        if not config.relation_factor:
            for number in range(config.layers):
                self.layer(number).beta_R.requires_grad_(False)
                self.layer(number).delta_R.requires_grad_(False)

    def forward(self, batch: GraphBatch) -> Tensor:
        """Vectors of the batch's titles, shape (T, D)."""
        to_titles = batch.edges.to_first(len(batch.titles))
        x_ND = self.drop(self.inputs(batch, to_titles))
        for number in range(self.config.layers):
            edges = to_titles if number == self.config.layers - 1 else batch.edges
            x_ND = self.drop(self.layer(number)(x_ND, self.relation_RP, edges))
        return self.vectors(x_ND, self.own(batch), batch.strength)

    def inputs(self, batch: GraphBatch, to_titles: Adjacency) -> Tensor:
        """States in front of the first layer, shape (N, D).

        Args:
            to_titles: the batch's edges, those into titles.
        """
        concept_CD = self.concept_CD.index_select(0, batch.concepts)
        from_concept_E = to_titles.src >= len(batch.titles)
        place_TD = self.place(concept_CD, to_titles, from_concept_E, len(batch.titles))
        own_TD = self.own(batch) + self.featured(batch.features)
        return torch.cat([self.input(place_TD) + own_TD, self.input(concept_CD)])

    def own(self, batch: GraphBatch) -> Tensor:
        """The titles' id embeddings, 0 for one without co-plays, shape (T, D)."""
        return self.title_TD.index_select(0, batch.titles) * batch.played.unsqueeze(1)

    def featured(self, given_TF: Tensor) -> Tensor | float:
        """What dense features add to the titles' inputs, shape (T, D); 0 for a model without."""
        return 0.0 if self.features is None else self.features(given_TF)

    def place(
        self, concept_CD: Tensor, edges: Adjacency, from_concept_E: Tensor, first_concept: int
    ) -> Tensor:
        """Mean of x_c - e_r over the concepts of each target, shape (T, D); 0 where it has none.

        Args:
            concept_CD: rows of the edges' sources from `first_concept` on.
            from_concept_E: which edges come from a concept.
        """
        one_E = from_concept_E.to(concept_CD.dtype)
        count_T = one_E.new_zeros(edges.num_targets).index_add(0, edges.dst, one_E)
        weight_E = one_E / count_T.clamp(min=1.0).index_select(0, edges.dst)
        source_SD = torch.cat([concept_CD.new_zeros(first_concept, self.config.dim), concept_CD])
        sum_TD = edge_sum(weight_E.unsqueeze(0), source_SD.unsqueeze(0), edges)[0]
        mass_TR = SemanticConv.mass(weight_E.unsqueeze(0), edges, len(self.translation_RD))[0]
        return sum_TD - mass_TR @ self.translation_RD

    def vectors(self, x_TD: Tensor, own_TD: Tensor, strength_T: Tensor) -> Tensor:
        """What is published of a title that was played, and else its bare vector, shape (T, D).

        Args:
            x_TD: last states of titles.
            own_TD: their id embeddings, 0 for one without co-plays.
            strength_T: log(1 + summed co-play weight).
        """
        weight_T1 = torch.expm1(strength_T).unsqueeze(1)
        known_T1 = weight_T1 / (weight_T1 + self.config.prior)
        popular_T1 = known_T1 * strength_T.unsqueeze(1) + (1 - known_T1) * self.expected(x_TD)
        out_TD: Tensor = self.output(x_TD) + self.past_layers(own_TD) + self.popularity(popular_T1)
        return out_TD

    def layer(self, number: int) -> SemanticConv:
        layer = self.layers[number]
        assert isinstance(layer, SemanticConv)  # noqa: S101  (nn.ModuleList knows no type)
        return layer

    def drop(self, x_ND: Tensor) -> Tensor:
        return F.dropout(x_ND, self.config.dropout, self.training)

    def row_parameters(self) -> dict[str, str]:
        """Which parameters have a row for each title, concept or message relation."""
        kinds = {
            "title_TD": "title",
            "concept_CD": "concept",
            "translation_RD": "message_relation",
            "relation_RP": "message_relation",
        }
        for number in range(self.config.layers):
            for name in ("beta_R", "gamma_R", "delta_R"):
                kinds[f"layers.{number}.{name}"] = "message_relation"
        return kinds

    def bind(self, graph: DynamicGraph) -> Moved | None:
        """Move the tables' rows to the dense ids that `graph` has now.

        A new title starts with a zero id embedding, a new concept at the mean of its relation's,
        a new relation neutral. A name that is gone loses its row.

        Returns:
            What moved; None where nothing did.
        """
        new = Names.of(graph)
        moved = self.names().moved_to(new)
        if moved is None:
            return None
        fills = {"beta_R": 1.0, "gamma_R": 1.0}
        for name, kind in self.row_parameters().items():
            owner_name, _, leaf = name.rpartition(".")
            owner = self.get_submodule(owner_name)
            old: nn.Parameter = getattr(owner, leaf)
            rows = take_rows(old.data, moved.rows[kind], fill=fills.get(leaf, 0.0))
            setattr(owner, leaf, nn.Parameter(rows, requires_grad=old.requires_grad))
        _fill_concepts(self.concept_CD.data, moved.rows["concept"], new.concept)
        self.title_names, self.concept_names = new.title, new.concept
        self.relation_names = new.relation
        return moved

    def forget_titles(self, titles: npt.NDArray[np.integer]) -> None:
        """Empty the rows of retired titles, so that a slot's next title does not inherit them."""
        known = [int(row) for row in titles if 0 <= row < len(self.title_names)]
        with torch.no_grad():
            self.title_TD[known] = 0.0
        for row in known:
            self.title_names[row] = ""

    def names(self) -> Names:
        """What the rows stand for, a copy."""
        return Names(list(self.title_names), list(self.concept_names), list(self.relation_names))

    def clone(self) -> "SemanticGNN":
        return copy.deepcopy(self)


def take_rows(old: Tensor, rows: Int64s, *, fill: float = 0.0) -> Tensor:
    """`old[rows]`, with `fill` where a row is -1."""
    new = old.new_full((len(rows), *old.shape[1:]), fill)
    known = torch.from_numpy(np.flatnonzero(rows >= 0))
    new[known] = old[torch.from_numpy(rows[rows >= 0])]
    return new


def _fill_concepts(concept_CD: Tensor, rows: Int64s, names: list[str]) -> None:
    """A new concept starts at the mean of the known concepts of its relation, else at 0."""
    new = np.flatnonzero(rows < 0)
    wanted = {names[row].partition(":")[0] for row in new.tolist()} - {""}
    if not wanted:
        return
    known: dict[str, list[int]] = {relation: [] for relation in wanted}
    for row in np.flatnonzero(rows >= 0).tolist():
        relation = names[row].partition(":")[0]
        if relation in known:
            known[relation].append(row)
    mean = {relation: concept_CD[at].mean(0) for relation, at in known.items() if at}
    for row in new.tolist():
        relation = names[row].partition(":")[0]
        if relation in mean:
            concept_CD[row] = mean[relation]
