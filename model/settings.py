"""What can be set about the model: plain dataclasses, each with the reason of its defaults.

The defaults were tuned on plays before any evaluation cut, and are for no data set in particular.
"""

from dataclasses import dataclass
from typing import Literal

from model.runtime import Device, Precision
from partition.mincut import Cutter

Kg = Literal["transe", "rotate", "complex", "distmult"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a SemanticGNN; a model folder carries it.

    Attributes:
        dim: width of all states and of the published vector.
        layers: message-passing layers, >= 1.
        heads: attention heads; divides `dim`.
        dropout: share of a state's entries dropped in training.
        prior: summed co-play weight at which a title's popularity is half known.
        max_coplay: co-play neighbours of a title that enter its attention: the closest ones.
        relation_factor: whether relations weigh differently in attention (beta and delta are
            learnt); off only to see what that is worth.
        residual_id: whether titles have an id embedding; likewise.
        features: width of the titles' dense features; pretraining sets it to the graph's.
    """

    dim: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.0
    prior: float = 20.0
    max_coplay: int = 16
    relation_factor: bool = True
    residual_id: bool = True
    features: int = 0

    def __post_init__(self) -> None:
        if self.features < 0:
            raise ValueError(f"features={self.features}: want >= 0")
        if self.layers < 1 or self.heads < 1 or self.dim < 1 or self.dim % self.heads:
            raise ValueError(
                f"dim={self.dim}, layers={self.layers}, heads={self.heads}: want all >= 1, "
                "and dim a multiple of heads"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: want 0 <= dropout < 1")
        if self.max_coplay < 1 or self.prior <= 0:
            raise ValueError(f"max_coplay={self.max_coplay}, prior={self.prior}: want >= 1 and > 0")


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Sampled softmax over co-plays, and what is hidden from the model in training.

    Attributes:
        sources: titles in a step that others are predicted from.
        targets: co-plays drawn for each of them, where the softmax is not exact.
        uniform_candidates: titles drawn evenly to stand for all, shared by the step.
        popular_candidates: likewise, by how often they are co-played.
        exact_titles: up to so many titles the softmax is exact, and takes all co-plays of a source:
            a step then makes `sources` * titles scores, a few megabytes of them at a time.
        hide_title: share of titles that a step shows as if nobody had played them, so that the
            model learns to place a title by its concepts.
        drop_edges: share of all edges left out of a step.
    """

    sources: int = 1024
    targets: int = 16
    uniform_candidates: int = 2048
    popular_candidates: int = 2048
    exact_titles: int = 16_384
    hide_title: float = 0.3
    drop_edges: float = 0.3


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    """Both steps of pretraining.

    Attributes:
        kg: embedding of step 1 (model/kg.py); the settings of step 1 are those of all.
        transe_steps: gradient steps of step 1.
        transe_batch: triples in such a step.
        transe_lr: learning rate of step 1 (Adam).
        margin: the margin of the TransE loss.
        steps: gradient steps of step 2, over all parts in turn.
        lr: peak learning rate of step 2 (AdamW, one cycle).
        id_lr: that of the titles' id embeddings over `lr`: a row has its own few gradients only.
        weight_decay: of step 2.
        parts: HASP parts; a step sees one, with some titles of the others.
        cutter: what cuts them: `metis`, `kaminpar`, `auto`, or `random` to see what a cut is worth.
        validation: share of the newest positives held back to measure on, at most
            `validation_rows` of them.
        validation_rows: see above.
        validate_every: steps between two measurements; 0: only at the end.
        device: where step 2 is done: `cpu`, `cuda`, or `auto`, a GPU where there is one; step 1,
            a twentieth of the work, is done on the CPU.
        precision: of step 2's matrix products: `float32`, `bf16`, or `auto`, bfloat16 where the
            machine has instructions for it.
        anchor: where vectors are published already, weight of the pull to them: a model that is
            trained anew turns out another one each time, by draws alone (mean cosine .66 after
            Procrustes on a small catalogue, .92 with the pull; .81 and .99 on a denser one), and no
            better one.
    """

    kg: Kg = "transe"
    transe_steps: int = 200
    transe_batch: int = 8192
    transe_lr: float = 0.02
    margin: float = 1.0
    steps: int = 200
    lr: float = 1e-2
    id_lr: float = 15.0
    weight_decay: float = 1e-3
    parts: int = 1
    cutter: Cutter = "auto"
    validation: float = 0.02
    validation_rows: int = 4000
    validate_every: int = 0
    device: Device = "cpu"
    precision: Precision = "float32"
    anchor: float = 1.0
    loss: LossConfig = LossConfig()


@dataclass(frozen=True, slots=True)
class MicroConfig:
    """One cycle of micro-training, and the gate behind it.

    Attributes:
        steps: gradient steps of a cycle.
        lr: learning rate (AdamW; its state stays warm between cycles).
        id_lr: that of the titles' id embeddings over `lr`, as in pretraining: at 1, a title of
            today does not get its own place in a day. What all titles share learns slowly, or
            titles that nobody has played drift off.
        weight_decay: see AdamW.
        clip: largest norm of the gradient.
        replay: share of a step's pairs that is drawn from the past.
        of_late: share of what a fresh source is to predict that is what was played with it of
            late; the rest is all that was ever counted of it. A few plays are no distribution.
        fade: what the pairs of the cycle before still count for as played of late, over those since
            then, and so on back (model/recent.py); 0: they do not.
        reservoir: pairs of the past that are kept for replay; and at most so many of late.
        distillation: weight of the pull to the last published vectors: their directions and their
            lengths.
        unplayed_cosine: titles that nobody has played are read by weights that are learnt in big
            steps (model/first_plays.py): in a cycle, these move their vectors no further than this
            mean cosine.
        parts: HASP parts; a cycle trains on one, or on one each of several trainers. As with
            pretraining, no more than memory needs.
        trainers: processes that train in a cycle, each on a part of its own; `parts` is a multiple
            of it. One is the micro-trainer's own process.
        cutter: `metis`, `kaminpar`, or `auto`: see partition/mincut.py.
        recut_loss: share of the co-play weight that the parts kept when they were cut, whose loss
            has them cut anew.
        fanout: weighted draws of co-play neighbours a seed, by hop.
        even: titles drawn evenly into a cycle's subgraph. What nobody plays is in no pair, and
            would else be moved by whatever a step does to its concepts, with nothing to hold it.
        max_titles: titles in a cycle's subgraph.
        device: where a cycle's steps are made: `cpu`, `cuda`, or `auto`, a GPU where there is one.
            The refresh and the gate stay on the CPU.
        precision: of the steps' matrix products: `float32`, `bf16`, or `auto`, bfloat16 where the
            machine has instructions for it.
        held_back: share of the fresh pairs kept for the gate.
        gate_rows: at most so many of them are scored.
        max_loss_of_recall: the gate refuses a model whose recall on them falls by a larger share.
        min_cosine: the gate refuses a mean cosine to the published vectors below this.
        max_norm_ratio: the gate refuses vectors whose mean norm grew or shrank by more.
    """

    steps: int = 16
    lr: float = 7.5e-4
    id_lr: float = 50.0
    weight_decay: float = 1e-3
    clip: float = 1.0
    replay: float = 0.3
    of_late: float = 0.65
    fade: float = 0.6
    reservoir: int = 200_000
    distillation: float = 15.0
    unplayed_cosine: float = 0.97
    parts: int = 1
    trainers: int = 1
    cutter: Cutter = "auto"
    recut_loss: float = 0.1
    fanout: tuple[int, ...] = (10,)
    even: int = 2048
    max_titles: int = 20_000
    device: Device = "cpu"
    precision: Precision = "float32"
    held_back: float = 0.15
    gate_rows: int = 2000
    max_loss_of_recall: float = 0.1
    min_cosine: float = 0.9
    max_norm_ratio: float = 1.5
    loss: LossConfig = LossConfig(sources=512)

    def __post_init__(self) -> None:
        if self.trainers < 1 or self.parts < 1 or self.parts % self.trainers:
            raise ValueError(
                f"trainers={self.trainers}, parts={self.parts}: want both >= 1, and parts a "
                "multiple of trainers"
            )
        if not 0 <= self.fade < 1:
            raise ValueError(f"fade={self.fade}: want 0 <= fade < 1")
