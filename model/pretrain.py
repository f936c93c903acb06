"""Pretraining, in the paper's two steps: TransE on the semantic edges, then the GNN on co-plays.

Step 2 takes the HASP parts in turn. The newest positives are held back to measure on: Recall@20 of
the next title given the one before it, over all titles (model/quality.py).

Source: Z. Huang et al., "Synergistic Signals: Exploiting Co-Engagement and Semantic Links via Graph
Neural Networks", WWW 2024.
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.batch import GraphBatch
from model.pairs import Outside, Pairs, candidates_for, training_loss
from model.positives import Positives
from model.quality import bootstrap, ndcg_at_k, ranks, recall_at_k, reciprocal_rank
from model.semantic_gnn import SemanticGNN, dense_names
from model.settings import ModelConfig, PretrainConfig
from model.transe import train_transe, triples
from partition.hasp import HaspSubgraph, hasp_subgraph, whole_graph
from partition.mincut import cut
from partition.neighbourhood import vertices
from store.graph import DynamicGraph

OUTSIDE_EVERY = 5  # rounds over the parts between two looks at the vectors of the others
Progress = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A trained model, in evaluation mode, with its figures.

    Attributes:
        metrics: `recall20`, `ndcg20`, `mrr` on the positives held back (NaN without any), losses,
            seconds, the cut's kept weight.
    """

    model: SemanticGNN
    metrics: dict[str, float]


def pretrain(
    graph: DynamicGraph,
    positives: Positives,
    *,
    model: ModelConfig = ModelConfig(),  # noqa: B008  (frozen)
    config: PretrainConfig = PretrainConfig(),  # noqa: B008
    seed: int = 0,
    progress: Progress | None = None,
    lock: AbstractContextManager[object] | None = None,
) -> Pretrained:
    """Train a model on `graph`.

    Args:
        positives: co-plays in time order; the newest are held back to measure on.
        progress: called with ("transe" or "gnn", step, steps, figures).
        lock: held while the graph is read.

    Raises:
        ValueError: the positives name a title that the graph does not have.
    """
    start = time.perf_counter()
    _check(graph, positives)
    with lock or nullcontext():
        known = triples(graph)
        whole = whole_graph(graph, max_coplay=model.max_coplay)
        kept, parts = _parts(graph, model, config, seed, whole)
        names = (
            dense_names(graph, "title"),
            dense_names(graph, "concept"),
            [relation.name for relation in graph.relations],
        )
    transe = train_transe(
        known,
        dim=model.dim,
        steps=config.transe_steps,
        batch=config.transe_batch,
        lr=config.transe_lr,
        margin=config.margin,
        seed=seed,
        progress=progress,
    )
    transe_seconds = time.perf_counter() - start

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gnn = SemanticGNN(model, *names)
        gnn.concept_CD.data.copy_(transe.concept_CD)
        gnn.translation_RD.data[0::2] = transe.relation_RD
        rows = min(int(len(positives) * config.validation), config.validation_rows)
        split = len(positives) - rows
        batch = GraphBatch.of(whole)
        loss = _train(
            gnn, parts, positives[:split], config, seed, progress, batch, whole, positives[split:]
        )
    gnn.eval()
    metrics = {
        "transe_loss": transe.loss,
        "transe_seconds": transe_seconds,
        "loss": loss,
        "kept_weight": kept,
        **validate(gnn, batch, whole, positives[split:]),
        "seconds": time.perf_counter() - start,
    }
    return Pretrained(gnn, metrics)


def validate(
    model: SemanticGNN, batch: GraphBatch, graph: HaspSubgraph, positives: Positives
) -> dict[str, float]:
    """`recall20`, `ndcg20` and `mrr` of b given a, among the titles of `graph`."""
    was = model.training
    model.eval()
    with torch.no_grad():
        vectors = model(batch).numpy()
    model.train(was)
    a, b = graph.local(positives.a), graph.local(positives.b)
    inside = (a >= 0) & (b >= 0) & (a != b)
    rank = ranks(vectors, a[inside], b[inside])
    each = np.arange(len(rank))
    return {
        "recall20": bootstrap(recall_at_k(rank), each, seed=0, draws=1).mean,
        "ndcg20": bootstrap(ndcg_at_k(rank), each, seed=0, draws=1).mean,
        "mrr": bootstrap(reciprocal_rank(rank), each, seed=0, draws=1).mean,
    }


def _parts(
    graph: DynamicGraph,
    model: ModelConfig,
    config: PretrainConfig,
    seed: int,
    whole: HaspSubgraph,
) -> tuple[float, list[HaspSubgraph]]:
    """The share of co-play weight that the cut keeps, and the parts' subgraphs."""
    if config.parts == 1:
        return 1.0, [whole]
    partition = cut(graph, config.parts, seed=seed)
    return partition.kept_weight, [
        hasp_subgraph(graph, partition, part, max_coplay=model.max_coplay)
        for part in range(config.parts)
    ]


def _train(
    model: SemanticGNN,
    parts: list[HaspSubgraph],
    positives: Positives,
    config: PretrainConfig,
    seed: int,
    progress: Progress | None,
    whole_batch: GraphBatch,
    whole: HaspSubgraph,
    held_back: Positives,
) -> float:
    """Step 2; returns the mean loss of the last tenth of the steps, NaN where nothing trains."""
    generator = torch.Generator().manual_seed(seed)
    work = []
    for part in parts:
        pairs = Pairs.inside(part, positives)
        if len(pairs):
            batch = GraphBatch.of(part)
            work.append((batch, pairs))
    if not work or not config.steps:
        return math.nan
    others = [one for one in model.parameters() if one is not model.title_TD]
    optimizer = torch.optim.AdamW(
        [{"params": others}, {"params": [model.title_TD]}], weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [config.lr, config.lr * config.id_lr],
        total_steps=config.steps,
        pct_start=0.2,
    )
    model.train()
    losses: list[float] = []
    for step in range(config.steps):
        batch, pairs = work[step % len(work)]
        if len(work) > 1 and step % (OUTSIDE_EVERY * len(work)) == 0:
            last = _last_vectors(model, [one for one, _ in work])
        outside = last.others(batch.titles) if len(work) > 1 else None
        loss = training_loss(
            model,
            batch,
            [(pairs, config.loss.sources)],
            candidates_for(batch, config.loss, outside),
            config.loss,
            generator,
            outside=outside,
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if progress is None:
            continue
        figures = {"loss": losses[-1]}
        if config.validate_every and (step + 1) % config.validate_every == 0:
            figures.update(validate(model, whole_batch, whole, held_back))
        if len(figures) > 1 or step % 10 == 0 or step == config.steps - 1:
            progress("gnn", step + 1, config.steps, figures)
    return float(np.mean(losses[-max(len(losses) // 10, 1) :]))


@dataclass(frozen=True, slots=True)
class _LastVectors:
    """Vectors of all parts' titles, as they were a few rounds ago."""

    titles: Tensor
    outside: Outside

    def others(self, titles: Tensor) -> Outside:
        keep = ~torch.isin(self.titles, titles)
        return Outside(self.outside.vectors[keep], self.outside.strength[keep])


def _last_vectors(model: SemanticGNN, parts: list[GraphBatch]) -> _LastVectors:
    with torch.no_grad():
        model.eval()
        vectors = torch.cat([model(part) for part in parts])
        model.train()
    return _LastVectors(
        torch.cat([part.titles for part in parts]),
        Outside(vectors, torch.cat([part.strength for part in parts])),
    )


def _check(graph: DynamicGraph, positives: Positives) -> None:
    titles = vertices(graph, "title").capacity
    for name, column in (("a", positives.a), ("b", positives.b)):
        bad = np.flatnonzero((column < 0) | (column >= titles))
        if len(bad):
            row = int(bad[0])
            raise ValueError(
                f"positives.{name}[{row}] is {column[row]}, but the graph has {titles} titles: "
                "intern the titles before pretraining"
            )
