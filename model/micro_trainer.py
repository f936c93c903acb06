"""One cycle of micro-training: the weights follow the stream, and a gate stands behind them.

    1. copy   the weights are cloned, and bound to the catalogue as it is now
    2. sample under the lock, briefly: a subgraph of one part around fresh and replayed pairs
    3. train  a bounded number of steps; distillation holds the vectors near the published ones
    4. embed  everything with the new weights
    5. gate   fresh pairs that were held back, drift, norms, NaN; what fails is dropped

Replay keeps what is rare of late from being forgotten. Distillation keeps the space comparable: a
consumer may hold vectors of several versions. The optimiser's moments stay warm between cycles, by
row, and are rolled back with the weights.

Sources: the micro-trainer is ours. Replay and distillation as in Y. Xu et al., "GraphSAIL: Graph
Structure Aware Incremental Learning for Recommender Systems", CIKM 2020.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.batch import GraphBatch
from model.inference import Embedder
from model.pairs import Anchor, Outside, Pairs, candidates_for, training_loss
from model.positives import Positives
from model.quality import ranks, recall_at_k, reciprocal_rank
from model.reservoir import Reservoir
from model.semantic_gnn import Moved, SemanticGNN, take_rows
from model.settings import MicroConfig, ModelConfig
from partition.hasp import HaspSubgraph
from partition.mincut import Partition, coplay_edges, cut_edges
from partition.neighbourhood import strength
from partition.sampler import sample_subgraph
from store.graph import DynamicGraph

Float32s = npt.NDArray[np.float32]
Lock = AbstractContextManager[object]

PASSED, REFUSED, SKIPPED = "passed", "refused", "skipped"
GATE_DEVIATIONS = 2.0  # a loss of quality within so many standard errors is chance


@dataclass(frozen=True, slots=True)
class CycleReport:
    """What a cycle did.

    Attributes:
        verdict: `passed`, `refused` by the gate, or `skipped` for want of pairs to train on.
        reason: in words, unless passed.
        model, embedder: the new weights, and all vectors by them; None unless passed.
        loss: mean over the steps; NaN where none was made.
        steps: gradient steps made.
        drift_cosine: mean cosine of new to published vectors; NaN without published ones.
        recall_before, recall_after: Recall@20 of the held-back pairs by the published vectors and
            by the new ones; NaN without such pairs.
        titles: titles in the subgraph.
        seconds: by step of the cycle.
    """

    verdict: str
    reason: str = ""
    model: SemanticGNN | None = None
    embedder: Embedder | None = None
    loss: float = float("nan")
    steps: int = 0
    drift_cosine: float = float("nan")
    recall_before: float = float("nan")
    recall_after: float = float("nan")
    titles: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Judgement:
    reason: str  # empty: passed
    drift_cosine: float
    recall_before: float
    recall_after: float


class MicroTrainer:
    """Runs cycles; keeps the reservoir, the cut and the optimiser's moments between them.

    Args:
        seed: of all its draws.
    """

    def __init__(self, model_config: ModelConfig, config: MicroConfig, seed: int) -> None:
        self.model_config = model_config
        self.config = config
        self.reservoir = Reservoir(config.reservoir, seed=seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.cycles = 0
        self.partition: Partition | None = None
        self.moments: dict[str, dict[str, Tensor]] = {}

    def remember(self, positives: Positives) -> None:
        """Put pairs of the past into the reservoir, as after pretraining."""
        self.reservoir.add(positives)

    def forget(self, titles: npt.NDArray[np.integer]) -> None:
        """Titles were retired; call before their dense ids can be used again."""
        self.reservoir.forget(titles)

    def cycle(
        self,
        model: SemanticGNN,
        graph: DynamicGraph,
        lock: Lock,
        fresh: Positives,
        published: Float32s,
        *,
        stop: Callable[[], bool] = lambda: False,
    ) -> CycleReport:
        """Run one cycle; `model` itself is left as it is.

        Args:
            lock: taken only while the graph is read.
            fresh: pairs since the last cycle, in time order; in the graph already.
            published: last published vector of each title by dense id, zeros where there is none,
                shape (T, D).
            stop: asked between steps; true ends the training early.
        """
        clock = _Clock()
        self.cycles += 1
        held_back = int(len(fresh) * self.config.held_back)
        train, gate = fresh[: len(fresh) - held_back], fresh[len(fresh) - held_back :]
        student = model.clone()
        self._recut(graph, lock)
        clock("cut")
        with lock:
            moved = student.bind(graph)
            subgraph = self._sample(graph, train)
            outside = _outside(graph, subgraph, published)
        clock("sample")
        fresh_pairs = Pairs.inside(subgraph, train)
        old_pairs = Pairs.inside(subgraph, self.reservoir.pairs)
        self.reservoir.add(fresh)
        sources = self._mix(fresh_pairs, old_pairs)
        if not sources or not self.config.steps:
            return CycleReport(SKIPPED, "no co-plays inside the part", seconds=clock.seconds)
        moments = _move(self.moments, student, moved)
        losses, moments = self._train(student, subgraph, sources, published, outside, moments, stop)
        clock("train")
        embedder = Embedder(student)
        if all(bool(torch.isfinite(one).all()) for one in student.parameters()):
            embedder.full(graph, lock=lock)
        else:
            embedder.published = torch.full((1, student.config.dim), float("nan"))
        clock("embed")
        verdict = self._judge(embedder, published, gate)
        clock("gate")
        if not verdict.reason:
            self.moments = moments
        return CycleReport(
            REFUSED if verdict.reason else PASSED,
            verdict.reason,
            None if verdict.reason else student,
            None if verdict.reason else embedder,
            float(np.mean(losses)) if losses else float("nan"),
            len(losses),
            verdict.drift_cosine,
            verdict.recall_before,
            verdict.recall_after,
            len(subgraph.titles),
            clock.seconds,
        )

    def _recut(self, graph: DynamicGraph, lock: Lock) -> None:
        if self.partition is not None and (self.cycles - 1) % self.config.recut_every:
            return
        with lock:
            edges = coplay_edges(graph)
        self.partition = cut_edges(edges, self.config.parts, seed=int(self.rng.integers(2**31)))

    def _sample(self, graph: DynamicGraph, train: Positives) -> HaspSubgraph:
        assert self.partition is not None  # noqa: S101  (`_recut` came before)
        part = self.cycles % self.config.parts
        past = self.reservoir.pairs
        replayed = past[self.rng.integers(len(past), size=min(len(past), 2 * len(train)))]
        seeds = np.unique(np.concatenate([train.a, train.b, replayed.a, replayed.b]))
        return sample_subgraph(
            graph,
            self.partition,
            part,
            seeds[seeds < graph.num_nodes("title")],
            fanout=self.config.fanout,
            max_titles=self.config.max_titles,
            max_coplay=self.model_config.max_coplay,
            seed=int(self.rng.integers(2**31)),
        )

    def _mix(self, fresh: Pairs, old: Pairs) -> list[tuple[Pairs, int]]:
        """Fresh and replayed pairs in their ratio; where one kind is missing, all of the other."""
        sources = self.config.loss.sources
        replay = round(sources * self.config.replay)
        if not len(fresh):
            replay = sources
        elif not len(old):
            replay = 0
        mix = [(fresh, sources - replay), (old, replay)]
        return [(pairs, count) for pairs, count in mix if count and len(pairs)]

    def _train(
        self,
        student: SemanticGNN,
        subgraph: HaspSubgraph,
        sources: list[tuple[Pairs, int]],
        published: Float32s,
        outside: Outside | None,
        moments: dict[str, dict[str, Tensor]],
        stop: Callable[[], bool],
    ) -> tuple[list[float], dict[str, dict[str, Tensor]]]:
        config = self.config
        batch = GraphBatch.of(subgraph)
        candidates = candidates_for(batch, config.loss, outside)
        anchor = _anchor(subgraph, published, config.distillation)
        named = dict(student.named_parameters())
        rows = student.row_parameters()
        # Rows outside the subgraph have no gradient; decay must not wear them away.
        groups: list[dict[str, Any]] = [
            {"params": [one for name, one in named.items() if name not in rows]},
            {"params": [named[name] for name in rows], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
        for name, state in moments.items():
            optimizer.state[named[name]] = {key: one.clone() for key, one in state.items()}
        student.train()
        losses: list[float] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self.rng.integers(2**31)))  # of the dropout
            for _ in range(config.steps):
                if stop():
                    break
                loss = training_loss(
                    student,
                    batch,
                    sources,
                    candidates,
                    config.loss,
                    self.generator,
                    anchor=anchor,
                    outside=outside,
                )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(student.parameters(), config.clip)
                optimizer.step()
                losses.append(float(loss.detach()))
        student.eval()
        return losses, {name: dict(optimizer.state[one]) for name, one in named.items()}

    def _judge(self, embedder: Embedder, published: Float32s, gate: Positives) -> _Judgement:
        """The gate."""
        new = embedder.published.numpy()
        titles = min(len(new), len(published))
        new, old = new[:titles], published[:titles]
        nan = float("nan")
        if not np.isfinite(new).all():
            return _Judgement("the vectors are not finite", nan, nan, nan)
        new_norm, old_norm = np.linalg.norm(new, axis=1), np.linalg.norm(old, axis=1)
        both = (new_norm > 0) & (old_norm > 0)
        drift = ratio = nan
        if both.any():
            cosine = (new[both] * old[both]).sum(1) / (new_norm[both] * old_norm[both])
            drift = float(cosine.mean())
            ratio = float(new_norm[both].mean() / old_norm[both].mean())
        before, after, worse = self._compare(old, new, both, gate)
        reason = ""
        if drift < self.config.min_cosine:
            reason = f"mean cosine to the published vectors {drift:.3f} < {self.config.min_cosine}"
        elif both.any() and max(ratio, 1 / ratio) > self.config.max_norm_ratio:
            reason = f"mean norm changed by a factor {ratio:.2f}"
        elif worse:
            reason = f"recall on held-back pairs fell from {before:.4f} to {after:.4f}"
        return _Judgement(reason, drift, before, after)

    def _compare(
        self, old: Float32s, new: Float32s, both: npt.NDArray[np.bool_], gate: Positives
    ) -> tuple[float, float, bool]:
        """Recall by old and new vectors, and whether the loss is more than chance."""
        inside = (gate.a < len(both)) & (gate.b < len(both))
        a, b = gate.a[inside], gate.b[inside]
        rows = np.flatnonzero(both[a] & both[b] & (a != b))[-self.config.gate_rows :]
        if not len(rows):
            return float("nan"), float("nan"), False
        rank_old = ranks(old, a[rows], b[rows], candidates=both)
        rank_new = ranks(new, a[rows], b[rows], candidates=both)
        before, after = reciprocal_rank(rank_old), reciprocal_rank(rank_new)
        error = float(np.std(after - before)) / len(rows) ** 0.5
        lost = float(np.mean(before - after))
        worse = (
            lost > self.config.max_loss_of_recall * float(np.mean(before))
            and lost > GATE_DEVIATIONS * error
        )
        return float(recall_at_k(rank_old).mean()), float(recall_at_k(rank_new).mean()), worse


class _Clock:
    """Seconds between calls, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.at = time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self.at
        self.at = now


def _outside(graph: DynamicGraph, subgraph: HaspSubgraph, published: Float32s) -> Outside | None:
    """Titles that have a published vector and are not in the subgraph."""
    live = graph.ids["title"].live_ids()
    others = np.setdiff1d(live[live < len(published)], subgraph.titles).astype(np.int32)
    others = others[np.abs(published[others]).sum(1) > 0]
    if not len(others):
        return None
    return Outside(
        torch.from_numpy(published[others]),
        torch.log1p(torch.from_numpy(strength(graph, others))),
    )


def _anchor(subgraph: HaspSubgraph, published: Float32s, weight: float) -> Anchor:
    """The subgraph's titles that have a published vector."""
    titles = subgraph.titles[subgraph.titles < len(published)]
    vectors = published[titles]
    rows = np.flatnonzero(np.abs(vectors).sum(1) > 0) if weight > 0 else np.zeros(0, np.int64)
    return Anchor(torch.from_numpy(rows), torch.from_numpy(vectors[rows]), weight)


def _move(
    moments: dict[str, dict[str, Tensor]], student: SemanticGNN, moved: Moved | None
) -> dict[str, dict[str, Tensor]]:
    """The optimiser's moments with their rows where the student's are."""
    if moved is None:
        return moments
    kinds = student.row_parameters()
    return {
        name: {
            key: take_rows(one, moved.rows[kinds[name]]) if name in kinds and one.ndim else one
            for key, one in state.items()
        }
        for name, state in moments.items()
    }
