"""One cycle of micro-training: the weights follow the stream, and a gate stands behind them.

    1. copy   the weights are cloned, and bound to the catalogue as it is now
    2. sample under the lock, briefly: a subgraph of one part around fresh and replayed pairs
    3. first plays  how titles are read that nobody has played, from those that now were
    4. train  a bounded number of steps; distillation holds the vectors near the published ones
    5. embed  everything with the new weights
    6. gate   fresh pairs that were held back, drift, norms, NaN; what fails is dropped

Replay keeps what is rare of late from being forgotten: the reservoir, a fair sample over all time,
says which titles of the past come into the subgraph, and the graph, what was played with them; the
reservoir's own pairs are too few to be learnt from. Where the cut has several parts, a cycle trains
on one: of the titles drawn evenly, those of other parts come along as external ones, which stand
against the part's with vectors of now, and whose rows are trained at home. Distillation keeps the
space comparable: a consumer may hold vectors of several versions. What counts as fresh fades over a
few cycles (model/recent.py). The optimiser's moments stay warm between cycles, by row, and are
rolled back with the weights.

Sources: the micro-trainer is ours. Replay and distillation as in Y. Xu et al., "GraphSAIL: Graph
Structure Aware Incremental Learning for Recommender Systems", CIKM 2020.
"""

import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from model.crew import Crew
from model.first_plays import learn_first_plays
from model.gate import judge
from model.inference import Embedder
from model.lesson import Lesson, learn, take_learnt, write_lesson
from model.micro_crew import MicroCrew
from model.pairs import Anchor, Outside, Pairs
from model.positives import Positives
from model.reading import Reading
from model.recent import Recent
from model.reservoir import Reservoir
from model.semantic_gnn import SemanticGNN
from model.settings import MicroConfig, ModelConfig
from model.trainer_state import Moments, TrainerState
from model.trainer_work import home_of
from model.trainers import TrainerDied
from partition.hasp import HaspSubgraph
from partition.keeper import Keeper
from partition.mincut import Partition
from partition.neighbourhood import strength, vertices
from partition.sampler import sample_subgraph
from store.graph import DynamicGraph

Float32s = npt.NDArray[np.float32]
Lock = AbstractContextManager[object]

NONE = np.zeros(0, np.int32)

PASSED, REFUSED, SKIPPED = "passed", "refused", "skipped"


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
        drift_p1: its first percentile over the titles.
        recall_before, recall_after: Recall@20 of the held-back pairs by the published vectors and
            by the new ones; NaN without such pairs.
        titles: titles in the subgraph.
        seconds: by step of the cycle.
        refused: the weights that the gate refused, to be looked at.
    """

    verdict: str
    reason: str = ""
    model: SemanticGNN | None = None
    embedder: Embedder | None = None
    loss: float = float("nan")
    steps: int = 0
    drift_cosine: float = float("nan")
    drift_p1: float = float("nan")
    recall_before: float = float("nan")
    recall_after: float = float("nan")
    titles: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    refused: SemanticGNN | None = None


class MicroTrainer:
    """Runs cycles; keeps the reservoir, the cut and the optimiser's moments between them.

    One thread calls; `state` and `save` alone may be called by another meanwhile.

    Args:
        seed: of all its draws.
    """

    def __init__(self, model_config: ModelConfig, config: MicroConfig, seed: int) -> None:
        self.model_config = model_config
        self.config = config
        self.reservoir = Reservoir(config.reservoir, seed=seed)
        self.recent = Recent(config.fade, config.reservoir)
        self.generator = torch.Generator().manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.cycles = 0
        self._crew = None
        if config.trainers > 1:
            threads = max(torch.get_num_threads() // config.trainers, 1)
            self._crew = MicroCrew(config.trainers, threads=threads)
        self.keeper = Keeper(config.parts, cutter=config.cutter, recut_loss=config.recut_loss)
        self.moments = Moments.none()
        self._changing = threading.Lock()
        self._before: TrainerState | None = None  # what was, while a cycle runs

    def state(self) -> TrainerState:
        """All that the next cycle depends on; while one runs, what it began with."""
        with self._changing:
            return self._before or self._state()

    def save(self, folder: Path, *, gone: npt.NDArray[np.integer] = NONE) -> None:
        """Write `state` under `folder`, which is made.

        Args:
            gone: titles that were retired, but not yet given to `forget`.
        """
        self.state().without(gone).save(folder)

    @classmethod
    def load(
        cls, folder: Path, model_config: ModelConfig, config: MicroConfig, seed: int
    ) -> "MicroTrainer":
        """A trainer that goes on as the one that was saved; the settings may be others.

        Args:
            seed: of nothing that was saved: the draws go on where they were.

        Raises:
            ModelFolderError: nothing there, torn, or of a newer format.
        """
        saved = TrainerState.load(folder)
        trainer = cls(model_config, config, seed)
        trainer.reservoir.restore(saved.pairs, saved.seen, saved.reservoir_rng)
        trainer.recent.restore(saved.recent)
        trainer.generator.set_state(saved.generator)
        trainer.rng.bit_generator.state = saved.rng
        trainer.cycles, trainer.moments = saved.cycles, saved.moments
        if saved.parts is not None and saved.parts.partition.num_parts == config.parts:
            trainer.keeper.parts = saved.parts
        return trainer

    def remember(self, positives: Positives) -> None:
        """Put pairs of the past into the reservoir, as after pretraining."""
        with self._changing:
            self.reservoir.add(positives)

    def close(self) -> None:
        """End what runs beside the cycles."""
        self.keeper.close()
        if self._crew is not None:
            self._crew.close()

    def forget(self, titles: npt.NDArray[np.integer]) -> None:
        """Titles were retired; call before their dense ids can be used again."""
        with self._changing:
            self.reservoir.forget(titles)
            self.recent.forget(titles)

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
        with self._changing:
            self._before = self._state()
        moments = self.moments
        try:
            report, moments = self._cycle(model, graph, lock, fresh, published, stop)
            self.keeper.settle(graph, lock, seed=int(self.rng.integers(2**31)))
        finally:
            with self._changing:
                self.moments, self._before = moments, None
        return report

    def _state(self) -> TrainerState:
        return TrainerState(
            self.cycles,
            self.reservoir.pairs,
            self.recent.cycles,
            self.reservoir.seen,
            self.reservoir.rng.bit_generator.state,
            self.moments,
            self.keeper.parts,
            self.rng.bit_generator.state,
            self.generator.get_state(),
        )

    def _cycle(
        self,
        model: SemanticGNN,
        graph: DynamicGraph,
        lock: Lock,
        fresh: Positives,
        published: Float32s,
        stop: Callable[[], bool],
    ) -> tuple[CycleReport, Moments]:
        """The report, and the moments to go on with."""
        clock = _Clock()
        self.cycles += 1
        held_back = int(len(fresh) * self.config.held_back)
        train, gate = fresh[: len(fresh) - held_back], fresh[len(fresh) - held_back :]
        train = Positives.join([self.recent.faded(), train])
        student = model.clone()
        partition = self.keeper.prepare(
            graph, lock, np.union1d(fresh.a, fresh.b), seed=int(self.rng.integers(2**31))
        )
        clock("cut")
        first = self.cycles * self.config.trainers
        with lock:
            student.bind(graph)
            lessons = [
                self._lesson(graph, partition, part % self.config.parts, train, gate, published)
                for part in range(first, first + self.config.trainers)
            ]
            reading = Reading.of(graph, max_coplay=student.config.max_coplay)
        clock("sample")
        self.reservoir.add(fresh)
        self.recent.add(fresh)
        if not any(one.sources for one in lessons) or not self.config.steps:
            report = CycleReport(SKIPPED, "no co-plays inside the part", seconds=clock.seconds)
            return report, self.moments
        learn_first_plays(
            student, reading, fresh, self.rng, least_cosine=self.config.unplayed_cosine
        )
        clock("first plays")
        try:
            losses, moments = self._train(student, lessons, stop)
        except TrainerDied as error:
            return CycleReport(SKIPPED, str(error), seconds=clock.seconds), self.moments
        clock("train")
        if stop():  # nobody waits for the rest, which takes longer than the steps
            report = CycleReport(SKIPPED, "asked to stop", seconds=clock.seconds)
            return report, self.moments
        embedder = Embedder(student)
        if all(bool(torch.isfinite(one).all()) for one in student.parameters()):
            embedder.full_from(reading)
        else:
            embedder.published = torch.full((1, student.config.dim), float("nan"))
        clock("embed")
        verdict = judge(embedder.published.numpy(), published, gate, self.config)
        clock("gate")
        passed = not verdict.reason
        report = CycleReport(
            PASSED if passed else REFUSED,
            verdict.reason,
            student if passed else None,
            embedder if passed else None,
            float(np.mean(losses)) if losses else float("nan"),
            min(len(losses), self.config.steps),  # several trainers make a step together
            verdict.moved.mean_cosine,
            verdict.moved.p1_cosine,
            verdict.recall_before,
            verdict.recall_after,
            sum(len(one.subgraph.titles) for one in lessons),
            clock.seconds,
            None if passed else student,
        )
        return report, moments if passed else self.moments

    def _lesson(
        self,
        graph: DynamicGraph,
        partition: Partition,
        part: int,
        train: Positives,
        gate: Positives,
        published: Float32s,
    ) -> Lesson:
        """What is to be learnt of one part; the lock is held."""
        subgraph = self._sample(graph, partition, part, train)
        outside = None if subgraph.external.any() else _outside(graph, subgraph, published)
        fresh, old = Pairs.inside(subgraph, train), Pairs.of_graph(graph, subgraph, less=gate)
        return Lesson(
            subgraph,
            self._mix(fresh, old),
            Anchor.of(subgraph, published, self.config.distillation),
            outside,
            int(self.rng.integers(2**31)),
        )

    def _sample(
        self, graph: DynamicGraph, partition: Partition, part: int, train: Positives
    ) -> HaspSubgraph:
        past = self.reservoir.pairs
        replayed = past[self.rng.integers(len(past), size=min(len(past), 2 * len(train)))]
        seeds = np.unique(np.concatenate([train.a, train.b, replayed.a, replayed.b]))
        even = NONE
        if len(seeds):
            live = vertices(graph, "title").live_ids()
            even = self.rng.choice(live, min(self.config.even, len(live)), replace=False)
            seeds = np.union1d(seeds, even)
        return sample_subgraph(
            graph,
            partition,
            part,
            seeds[seeds < vertices(graph, "title").capacity],
            fanout=self.config.fanout,
            max_titles=self.config.max_titles,
            max_coplay=self.model_config.max_coplay,
            seed=int(self.rng.integers(2**31)),
            external=even,
        )

    def _mix(self, fresh: Pairs, old: Pairs) -> list[tuple[Pairs, int]]:
        """Fresh and replayed pairs in their ratio; where one kind is missing, all of the other."""
        sources = self.config.loss.sources
        replay = round(sources * self.config.replay)
        if not len(fresh):
            replay = sources
        elif not len(old):
            replay = 0
        fresh = fresh.over(old, self.config.of_late)
        mix = [(fresh, sources - replay), (old, replay)]
        return [(pairs, count) for pairs, count in mix if count and len(pairs)]

    def _train(
        self, student: SemanticGNN, lessons: list[Lesson], stop: Callable[[], bool]
    ) -> tuple[list[float], Moments]:
        """Learn the lessons: here, or each in a process of its own.

        Raises:
            TrainerDied: one of the processes ended early.
        """
        moments = self.moments.for_model(student)
        if self._crew is None:
            (lesson,) = lessons
            losses, moments = learn(
                student, lesson, self.config, moments, Crew.alone(), self.generator, stop=stop
            )
            return losses, Moments(moments, student.names())
        seeds = [int(self.rng.integers(2**31)) for _ in lessons]
        losses = []
        with tempfile.TemporaryDirectory(prefix="upwell-cycle-") as name:
            homes = [home_of(Path(name), rank) for rank in range(len(lessons))]
            for home, lesson, seed in zip(homes, lessons, seeds, strict=True):
                write_lesson(home, student, lesson, self.config, moments, seed)
            if self._crew.teach(homes, stop):
                losses = take_learnt(homes, lessons, student, moments)
        return losses, Moments(moments, student.names())


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
    live = vertices(graph, "title").live_ids()
    others = np.setdiff1d(live[live < len(published)], subgraph.titles).astype(np.int32)
    others = others[np.abs(published[others]).sum(1) > 0]
    if not len(others):
        return None
    return Outside(
        torch.from_numpy(published[others]),
        torch.log1p(torch.from_numpy(strength(graph, others))),
    )
