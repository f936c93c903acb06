"""Other embeddings of the semantic edges than TransE, and how well any of them completes them.

    rotate     Z. Sun et al., "RotatE: Knowledge Graph Embedding by Relational Rotation in Complex
               Space", ICLR 2019
    complex    T. Trouillon et al., "Complex Embeddings for Simple Link Prediction", ICML 2016
    distmult   B. Yang et al., "Embedding Entities and Relations for Learning and Inference in
               Knowledge Bases", ICLR 2015

Their scores are PyTorch Geometric's; the false triples are those of model/transe.py, and the loss
is logistic. The GNN takes their concept vectors at norm 1 (real, then imaginary part) and no
translation, which is TransE's alone.

Completion: of triples that were held out, the true concept is ranked among all concepts of its
relation, less the other true ones (*filtered*); a batch of triples is one matrix, not a loop.

Shape suffixes: N titles then concepts, C concepts, B a batch, D width.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from model.quality import reciprocal_rank
from model.settings import Kg
from model.transe import Corruption, Progress, TransE, Triples, train_transe

KINDS: tuple[Kg, ...] = get_args(Kg)

# Scores of heads and relations, each of shape (B,), with every concept: shape (B, C).
Score = Callable[[Tensor, Tensor], Tensor]

BATCH = 512  # triples ranked at once
TOP = 10


@dataclass(frozen=True, slots=True)
class Completion:
    """How well held-out triples are found again.

    Attributes:
        mrr: mean reciprocal rank of the true concept; NaN without triples.
        hits10: share of ranks up to 10.
        triples: how many were ranked.
    """

    mrr: float
    hits10: float
    triples: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """What was trained: vectors as the GNN takes them, and the scores of its own kind."""

    vectors: TransE
    score: Score


def train_kg(
    kind: Kg,
    known: Triples,
    *,
    dim: int,
    steps: int,
    batch: int,
    lr: float,
    margin: float,
    seed: int,
    progress: Progress | None = None,
) -> Embedded:
    """Train embeddings of one kind on `known`.

    Args:
        margin: of TransE's loss, and what RotatE takes its distance off.

    Raises:
        ValueError: there is no such kind, or its width cannot be halved.
    """
    if kind not in KINDS:
        raise ValueError(f"KG embedding {kind!r}: want one of {', '.join(KINDS)}")
    if kind == "transe":
        made = train_transe(
            known,
            dim=dim,
            steps=steps,
            batch=batch,
            lr=lr,
            margin=margin,
            seed=seed,
            progress=progress,
        )
        return Embedded(made, _transe_score(made))
    if kind in ("rotate", "complex") and dim % 2:
        raise ValueError(f"{kind} has a real and an imaginary half: want an even width, not {dim}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(kind, known, dim, margin)
    generator = torch.Generator().manual_seed(seed)
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    rows = len(known.title)
    corrupt = Corruption(known) if rows else None
    losses: list[float] = []
    for step in range(steps if rows else 0):
        assert corrupt is not None  # noqa: S101  (there are rows)
        pick = torch.randint(rows, (min(batch, 4 * rows),), generator=generator)
        h, r, t, false_h, false_t, fair = corrupt.batch(pick, generator)
        good_B = model(h, r, t + known.num_titles)
        bad_B = model(false_h, r, false_t + known.num_titles)
        loss = F.softplus(-good_B).mean() + (F.softplus(bad_B) * fair).mean()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        losses.append(float(loss.detach()))
        if progress is not None and (step % 20 == 0 or step == steps - 1):
            progress(kind, step + 1, steps, {"loss": losses[-1]})
    with torch.no_grad():
        node_ND = model.node_emb.weight.detach()
        if kind != "distmult":
            node_ND = torch.cat([node_ND, model.node_emb_im.weight.detach()], dim=1)
        node_ND = F.normalize(node_ND, dim=1)
    tail = losses[-max(len(losses) // 10, 1) :]
    vectors = TransE(
        node_ND[known.num_titles :],
        torch.zeros(known.num_relations, dim),
        node_ND[: known.num_titles],
        float(np.mean(tail)) if tail else float("nan"),
    )
    return Embedded(vectors, _model_score(kind, model, known))


def split(known: Triples, share: float, *, seed: int) -> tuple[Triples, Triples]:
    """Known triples without some, and those: none whose title or concept would be left with none.

    Args:
        share: of the triples, held out at most.
    """
    rng = np.random.default_rng(seed)
    rows = len(known.title)
    of_title = np.bincount(known.title, minlength=known.num_titles)
    of_concept = np.bincount(known.concept, minlength=known.num_concepts)
    out = np.zeros(rows, bool)
    wanted = int(rows * share)
    for row in rng.permutation(rows).tolist():
        if wanted <= 0:
            break
        title, concept = known.title[row], known.concept[row]
        if of_title[title] > 1 and of_concept[concept] > 1:
            out[row] = True
            of_title[title] -= 1
            of_concept[concept] -= 1
            wanted -= 1
    return _rows(known, ~out), _rows(known, out)


def complete(score: Score, known: Triples, held_out: Triples) -> Completion:
    """Rank the concept of each held-out triple.

    Args:
        known: the other true triples: no rivals.
    """
    if not len(held_out.title):
        return Completion(float("nan"), float("nan"), 0)
    truth = np.unique(
        np.concatenate([_pair_and_concept(known), _pair_and_concept(held_out)]), axis=0
    )
    relation_C = np.full(known.num_concepts, -1, np.int64)
    relation_C[truth[:, 1]] = truth[:, 0] % known.num_relations  # a concept has one relation
    kind_of = torch.from_numpy(relation_C)
    ranks = []
    for start in range(0, len(held_out.title), BATCH):
        rows = slice(start, start + BATCH)
        h, r = (torch.from_numpy(one[rows]) for one in (held_out.title, held_out.relation))
        concept = held_out.concept[rows]
        with torch.no_grad():
            score_BC = score(h, r)
        here = np.arange(len(concept))
        wanted_B1 = score_BC[here, concept].clone().unsqueeze(1)
        score_BC[kind_of.unsqueeze(0) != r.unsqueeze(1)] = -torch.inf
        pair = held_out.title[rows] * known.num_relations + held_out.relation[rows]
        low, high = (np.searchsorted(truth[:, 0], pair, side=one) for one in ("left", "right"))
        count = high - low
        at = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        score_BC[np.repeat(here, count), truth[np.repeat(low, count) + at, 1]] = -torch.inf
        above = (score_BC > wanted_B1).sum(1)
        level = (score_BC == wanted_B1).sum(1)
        ranks.append((1.0 + above + level / 2.0).numpy().astype(np.float64))
    rank = np.concatenate(ranks)
    return Completion(float(reciprocal_rank(rank).mean()), float(np.mean(rank <= TOP)), len(rank))


def _pair_and_concept(triples: Triples) -> npt.NDArray[np.int64]:
    """(title, relation) as one number, and the concept, shape (E, 2)."""
    return np.stack([triples.title * triples.num_relations + triples.relation, triples.concept], 1)


def _rows(known: Triples, chosen: npt.NDArray[np.bool_]) -> Triples:
    return replace(
        known,
        title=known.title[chosen],
        relation=known.relation[chosen],
        concept=known.concept[chosen],
    )


def _transe_score(made: TransE) -> Score:
    def score(h: Tensor, r: Tensor) -> Tensor:
        return -torch.cdist(made.title_TD[h] + made.relation_RD[r], made.concept_CD)

    return score


def _model_score(kind: Kg, model: Any, known: Triples) -> Score:
    """Every concept for every head: the model's form with all of the head's side in one vector."""
    concepts = slice(known.num_titles, None)
    node_ND, relation_RD = model.node_emb.weight, model.rel_emb.weight
    if kind == "distmult":
        return lambda h, r: (node_ND[h] * relation_RD[r]) @ node_ND[concepts].T
    imaginary_ND = model.node_emb_im.weight
    tail_CD = torch.cat([node_ND[concepts], imaginary_ND[concepts]], dim=1)

    def score(h: Tensor, r: Tensor) -> Tensor:
        if kind == "complex":
            real_BD, imaginary_BD = relation_RD[r], model.rel_emb_im.weight[r]
        else:
            real_BD, imaginary_BD = torch.cos(relation_RD[r]), torch.sin(relation_RD[r])
        turned_BD = torch.cat(
            [
                node_ND[h] * real_BD - imaginary_ND[h] * imaginary_BD,
                imaginary_ND[h] * real_BD + node_ND[h] * imaginary_BD,
            ],
            dim=1,
        )
        if kind == "complex":
            dots_BC: Tensor = turned_BD @ tail_CD.T
            return dots_BC
        near_BC: Tensor = model.margin - torch.cdist(turned_BD, tail_CD)
        return near_BC

    return score


def _model(kind: Kg, known: Triples, dim: int, margin: float) -> Any:
    with warnings.catch_warnings():
        # PyTorch Geometric calls what PyTorch deprecates, as it is imported, and takes its time.
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch_geometric.nn import ComplEx, DistMult, RotatE
    nodes, relations = known.num_titles + known.num_concepts, max(known.num_relations, 1)
    if kind == "rotate":
        return RotatE(nodes, relations, dim // 2, margin=margin)
    if kind == "complex":
        return ComplEx(nodes, relations, dim // 2)
    return DistMult(nodes, relations, dim)
