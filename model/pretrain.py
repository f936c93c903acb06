"""Pretraining, in the paper's two steps: TransE on the semantic edges, then the GNN on co-plays.

Step 2 takes the HASP parts in turn, by one trainer or several (model/part_training.py). The newest
positives are held back to measure on: Recall@20 of the next title given the one before it, over all
titles (model/quality.py).

Source: Z. Huang et al., "Synergistic Signals: Exploiting Co-Engagement and Semantic Links via Graph
Neural Networks", WWW 2024.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from model import part_training
from model.align import align, drift, procrustes
from model.batch import GraphBatch
from model.crew import Crew, launched
from model.first_plays import learn_first_plays
from model.kg import train_kg
from model.pairs import Anchor
from model.positives import Positives
from model.quality import bootstrap, ndcg_at_k, ranks, recall_at_k, reciprocal_rank
from model.reading import Reading
from model.runtime import device_of
from model.semantic_gnn import SemanticGNN
from model.settings import ModelConfig, PretrainConfig
from model.trainer_work import Task
from model.trainers import train_apart, train_as_first
from model.transe import triples
from model.unplayed import Unplayed
from partition.external import Even, NodeSampler
from partition.hasp import HaspSubgraph, hasp_subgraph, whole_graph
from partition.mincut import Partition, cut
from partition.named import dense_names
from partition.neighbourhood import features, vertices
from store.graph import DynamicGraph

# Titles of other parts in a part's subgraph, where nobody says otherwise. What parts lose to the
# whole graph depends on this number, not on the share of the part: they stand for all others.
NOBODY = np.zeros(0, np.int32)
EXTERNAL = 2048
Float32s = npt.NDArray[np.float32]
Progress = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A trained model, in evaluation mode, with its figures.

    Attributes:
        metrics: `recall20`, `ndcg20`, `mrr` on the positives held back (NaN without any), losses,
            seconds, the cut's kept weight; `drift_cosine` and `drift_p1` to what was published.
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
    trainers: int = 1,
    work: Path | None = None,
    sampler: NodeSampler | None = None,
    partition: Partition | None = None,
    published: Float32s | None = None,
    unplayed: Unplayed | None = None,
) -> Pretrained:
    """Train a model on `graph`.

    Args:
        positives: co-plays in time order; the newest are held back to measure on.
        progress: called with ("transe" or "gnn", step, steps, figures).
        lock: held while the graph is read.
        trainers: processes of step 2; each has parts of its own. One is this process. Where
            torchrun started this process it is the first of theirs, and they are as many.
        work: folder that several trainers work in; a training that was cut short there goes on.
        sampler: titles of other parts that come along with a part; None: `EXTERNAL` of them,
            drawn evenly.
        partition: `config.parts` parts that were cut already.
        published: bare vectors (`Embedder.bare`) by the model in use, which consumers hold the
            vectors of, by dense id, zeros where a title has none, shape (N, D): the new ones stay
            near them (`config.anchor`), and are turned to them.
        unplayed: what that model has learnt from first plays, to be kept: a window at the end of
            history knows less.

    Raises:
        ValueError: the positives name a title that the graph does not have; several trainers have
            no folder, or not the same number of parts each; `config.device` is not there.
        TrainerDied: a trainer ended before its work; the same call goes on from its last state.
    """
    start = time.perf_counter()
    _check(graph, positives)
    device_of(config.device)  # refused now, not after step 1
    if trainers > 1 and (work is None or config.parts % trainers):
        raise ValueError(
            f"{trainers} trainers want a folder to work in and a multiple of {trainers} parts, "
            f"not {config.parts}"
        )
    with lock or nullcontext():
        known = triples(graph)
        model = replace(model, features=features(graph, NOBODY).shape[1])
        whole = whole_graph(graph, max_coplay=model.max_coplay)
        reading = Reading.of(graph, max_coplay=model.max_coplay)
        kept, parts = _parts(graph, model, config, seed, whole, sampler, partition)
        names = (
            dense_names(graph, "title"),
            dense_names(graph, "concept"),
            [relation.name for relation in graph.relations],
        )
    transe = train_kg(
        config.kg,
        known,
        dim=model.dim,
        steps=config.transe_steps,
        batch=config.transe_batch,
        lr=config.transe_lr,
        margin=config.margin,
        seed=seed,
        progress=progress,
    ).vectors
    transe_seconds = time.perf_counter() - start

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gnn = SemanticGNN(model, *names)
        gnn.concept_CD.data.copy_(transe.concept_CD)
        gnn.translation_RD.data[0::2] = transe.relation_RD
        if gnn.features is not None:
            gnn.features.fit(torch.from_numpy(whole.features))
        rows = min(int(len(positives) * config.validation), config.validation_rows)
        split = len(positives) - rows
        batch = GraphBatch.of(whole)
        task = Task(parts, positives[:split], config, seed, published)
        if trainers > 1:
            assert work is not None  # noqa: S101  (checked on entry)
            loss = _train_apart(gnn, task, progress, trainers, work)
        else:
            loss = _train(gnn, task, progress, batch, whole, positives[split:])
    gnn.eval().to("cpu")
    first = 0
    if unplayed is None:
        rng = np.random.default_rng(seed)
        first = learn_first_plays(gnn, reading, positives[split:], rng, same_mass=True)
    else:
        gnn.unplayed.load_state_dict(unplayed.state_dict())
    moved: dict[str, float] = {}
    if published is not None:
        gnn, moved = _turned(gnn, batch, whole, published)
    metrics = {
        "transe_loss": transe.loss,
        "transe_seconds": transe_seconds,
        "loss": loss,
        "first_plays": first,
        "kept_weight": kept,
        **moved,
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
        vectors = model(batch.to(model.title_TD.device)).cpu().numpy()
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
    sampler: NodeSampler | None,
    partition: Partition | None,
) -> tuple[float, list[HaspSubgraph]]:
    """The share of co-play weight that the cut keeps, and the parts' subgraphs."""
    if config.parts == 1:
        return 1.0, [whole]
    partition = partition or cut(graph, config.parts, seed=seed, cutter=config.cutter)
    if sampler is None:
        sampler = Even(EXTERNAL)
    return partition.kept_weight, [
        hasp_subgraph(
            graph, partition, part, max_coplay=model.max_coplay, sampler=sampler, seed=seed
        )
        for part in range(config.parts)
    ]


def _train(
    model: SemanticGNN,
    task: Task,
    progress: Progress | None,
    whole_batch: GraphBatch,
    whole: HaspSubgraph,
    held_back: Positives,
) -> float:
    """Step 2 by one trainer, here; the mean loss at the end, NaN where nothing trains."""
    config = task.config
    model.to(device_of(config.device))

    def after_step(state: part_training.Progress, steps: int) -> None:
        if progress is None:
            return
        figures = {"loss": state.losses[-1]}
        if config.validate_every and state.step % config.validate_every == 0:
            figures.update(validate(model, whole_batch, whole, held_back))
        if len(figures) > 1 or (state.step - 1) % 10 == 0 or state.step == steps:
            progress("gnn", state.step, steps, figures)

    table = np.arange(len(model.title_names))
    return part_training.train_parts(
        model,
        [
            part_training.Part.of(part, task.positives, table, task.anchor_of(part))
            for part in task.parts
        ],
        config,
        Crew.alone(),
        part_training.begin(model, config, task.seed),
        after_step=after_step,
    )


def _train_apart(
    model: SemanticGNN, task: Task, progress: Progress | None, trainers: int, folder: Path
) -> float:
    """Step 2 by several trainers, in processes of their own."""

    def told(step: int, steps: int, loss: float) -> None:
        if progress is not None:
            progress("gnn", step, steps, {"loss": loss})

    if launched() is not None:
        return train_as_first(model, task, trainers=trainers, folder=folder, told=told)
    threads = max(torch.get_num_threads() // trainers, 1)
    return train_apart(model, task, trainers=trainers, folder=folder, threads=threads, told=told)


def _turned(
    model: SemanticGNN, batch: GraphBatch, graph: HaspSubgraph, published: Float32s
) -> tuple[SemanticGNN, dict[str, float]]:
    """The model with its vectors in the published space, and how far they lie from those."""
    near = Anchor.of(graph, published, 1.0)
    with torch.no_grad():
        vectors = model(batch)[near.rows].numpy()
    rotation = procrustes(vectors, near.vectors.numpy())
    moved = drift(np.asarray(vectors @ rotation, np.float32), near.vectors.numpy())
    figures = {"drift_cosine": moved.mean_cosine, "drift_p1": moved.p1_cosine}
    return align(model, rotation).eval(), figures


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
