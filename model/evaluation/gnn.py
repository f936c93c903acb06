"""The arms that are ours: the SemanticGNN frozen, on a fresh graph, followed, and trained anew.

    frozen               the vectors of the cut; a title that came later has none
    frozen_fresh_graph   the weights of the cut, all vectors anew from the graph of now
    incremental          micro-training: one cycle a window (model/micro_trainer.py)
    retrain              pretraining anew on all that came so far, to convergence, held near the
                         published vectors and turned into their space (model/align.py); every k-th
                         window, the graph always fresh

All four start from one pretrained model.

Shape suffixes: T titles of the stream, D width.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from model.align import drift
from model.evaluation.arms import dot_scorer
from model.evaluation.queries import Scorer
from model.evaluation.world import World
from model.inference import Embedder
from model.micro_trainer import MicroTrainer
from model.pretrain import Progress, pretrain
from model.semantic_gnn import SemanticGNN
from model.settings import MicroConfig, ModelConfig, PretrainConfig

Float32s = npt.NDArray[np.float32]


@dataclass(slots=True)
class Recipe:
    """How models are made; the arms that share a recipe share the model of the cut.

    Attributes:
        progress: told of the steps of each pretraining.
        made: the model of the cut, once one arm has asked for it.
        base: another recipe whose model of the cut is taken.
    """

    model: ModelConfig
    pretrain: PretrainConfig
    micro: MicroConfig
    seed: int
    progress: Progress | None = None
    made: SemanticGNN | None = None
    base: "Recipe | None" = None

    def at_cut(self, world: World) -> SemanticGNN:
        """The pretrained model; trained at the first call."""
        if self.base is not None:
            return self.base.at_cut(world)
        if self.made is None:
            self.made = self.train(world)
        return self.made.clone().eval()

    def train(self, world: World, near: Embedder | None = None) -> SemanticGNN:
        """A model trained on the world as it is, and near to what is published."""
        trained = pretrain(
            world.graph,
            world.positives,
            model=self.model,
            config=self.pretrain,
            seed=self.seed,
            progress=self.progress,
            published=None if near is None else near.bare.numpy(),
            unplayed=None if near is None else near.model.unplayed,
        )
        return trained.model


class Vectors:
    """What the arms here share: published vectors by dense id, and their drift.

    Attributes:
        drift: mean cosine to the vectors before the last `publish`; where there is training, these
            were made from the same graph by the weights before, so it is of the weights alone.
        drift_window: mean cosine to the vectors of the window before, by graph and weights.
        published: shape (N, D), zeros where a title has none.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.drift = self.drift_window = math.nan
        self.published: Float32s = np.zeros((0, recipe.model.dim), np.float32)

    def publish(self, vectors: Float32s) -> None:
        if len(self.published):
            self.drift = drift(vectors, self.published).mean_cosine
        self.published = vectors.copy()

    def embed(self, model: SemanticGNN, world: World) -> Embedder:
        """All vectors from the graph of now, published."""
        model.bind(world.graph)
        embedder = Embedder(model)
        embedder.full(world.graph)
        self.publish(embedder.published.numpy())
        return embedder

    def scorer(self, world: World) -> Scorer:
        return dot_scorer(world.by_title(self.published))


class Frozen(Vectors):
    """Nothing moves after the cut."""

    def start(self, world: World) -> None:
        self.embed(self.recipe.at_cut(world), world)

    def update(self, world: World) -> None:
        self.drift = self.drift_window = 1.0


class FrozenFreshGraph(Vectors):
    """The weights stay, the graph moves."""

    def start(self, world: World) -> None:
        self.model = self.recipe.at_cut(world)
        self.embed(self.model, world)

    def update(self, world: World) -> None:
        self.embed(self.model, world)
        self.drift_window = self.drift


class Incremental(Vectors):
    """Micro-training.

    Attributes:
        verdicts: of each window's cycle.
    """

    def start(self, world: World) -> None:
        recipe = self.recipe
        self.model = recipe.at_cut(world)
        self.embed(self.model, world)
        self.trainer = MicroTrainer(recipe.model, recipe.micro, recipe.seed)
        self.trainer.remember(world.positives)
        self.seen = len(world.positives)
        self.verdicts: list[str] = []

    def update(self, world: World) -> None:
        fresh = world.positives[self.seen :]
        self.seen += len(fresh)
        before = self.published
        # As the worker's refresh lane would have: training is held to vectors of today's graph.
        self.embed(self.model, world)
        if len(fresh):
            report = self.trainer.cycle(self.model, world.graph, world.lock, fresh, self.published)
            self.verdicts.append(report.verdict)
            self.drift = 1.0
            if report.model is not None and report.embedder is not None:
                self.model = report.model
                self.publish(report.embedder.published.numpy())
        self.drift_window = drift(self.published, before).mean_cosine


class Retrain(Vectors):
    """Full retraining.

    Args:
        every: windows from one retraining to the next.
        steps: of the GNN in each retraining; None: as in the recipe.
    """

    def __init__(self, recipe: Recipe, *, every: int, steps: int | None = None) -> None:
        super().__init__(recipe)
        self.every = every
        self.anew = recipe
        if steps is not None:
            self.anew = replace(recipe, pretrain=replace(recipe.pretrain, steps=steps))
        self.windows = 0
        self.trained = False  # whether the last update did train

    def start(self, world: World) -> None:
        self.model = self.recipe.at_cut(world)
        self.embed(self.model, world)
        self.seen = len(world.positives)

    def update(self, world: World) -> None:
        self.trained = self.windows > 0 and self.windows % self.every == 0
        self.windows += 1
        before = self.published
        near = self.embed(self.model, world)
        if not self.trained:
            self.drift_window, self.drift = self.drift, math.nan
            return
        self.model = self.anew.train(world, near)
        self.embed(self.model, world)
        self.drift_window = drift(self.published, before).mean_cosine
