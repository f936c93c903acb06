"""The prequential protocol: learn from history, then predict a window and ingest it, and so on.

All arms see the same world and the same questions. Arms that are trained run once a seed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from model.evaluation.arms import ARMS, Arm
from model.evaluation.counts import (
    PRIORS,
    CoCounts,
    ConceptCosine,
    Popularity,
    cocount_scorer,
)
from model.evaluation.figures import Asked, Worth, arm_figures, differences, mean
from model.evaluation.gnn import Frozen, FrozenFreshGraph, Incremental, Recipe, Retrain
from model.evaluation.meter import Meter
from model.evaluation.queries import Answers, Asker, Questions, answer
from model.evaluation.stream import Stream, Windows
from model.evaluation.vectors import LightGCNOnly, TransEOnly
from model.evaluation.world import World
from model.micro_trainer import REFUSED
from model.quality import recall_at_k
from model.settings import MicroConfig, ModelConfig, PretrainConfig

Report = Callable[[str, int, int, str], None]

TRAINED = ("transe", "lightgcn", "frozen", "frozen_fresh_graph", "incremental", "retrain")
# Of the incremental arm, each without one thing. Those in `FROM_CUT` share its model of the cut.
ABLATIONS = (
    "no_relation_factor",
    "no_residual_id",
    "no_transe",
    "no_replay",
    "no_recent",
    "no_distillation",
    "no_concepts",
)
FROM_CUT = ("no_replay", "no_recent", "no_distillation")
WHOLE = "frozen_fresh_graph"  # what models trained on parts are held against
AGAINST = (
    ("incremental", "frozen"),
    ("incremental", "frozen_fresh_graph"),
    ("incremental", "cocount_fresh"),
    ("incremental", "retrain"),
    ("incremental", "kg_cosine"),
    ("incremental", "transe"),
    ("incremental", "lightgcn"),
    ("cocount_fresh", "cocount_frozen"),
)


@dataclass(frozen=True, slots=True)
class Options:
    """How the protocol is run.

    Attributes:
        arms: names of those to run.
        seeds: of the trained arms; the stream and the questions do not depend on them.
        windows: of the second half.
        questions: at most so many a window, drawn evenly; all of those for strict-cold titles.
        retrain_every: windows between two full retrainings.
        retrain_steps: of the GNN in each of them; None: as many as at the cut. More show whether
            these were enough.
        ablations: whether the incremental arm is also run without one part each.
        parts: numbers of HASP parts; with each, `frozen_fresh_graph` is also run with a model that
            was trained on parts of a cut, and on as many random ones.
    """

    arms: Sequence[str] = ARMS
    seeds: Sequence[int] = (0,)
    windows: int = 20
    questions: int = 4000
    retrain_every: int = 4
    retrain_steps: int | None = None
    ablations: bool = False
    parts: Sequence[int] = ()
    model: ModelConfig = field(default_factory=ModelConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    micro: MicroConfig = field(default_factory=MicroConfig)

    def __post_init__(self) -> None:
        strange = [name for name in self.arms if name not in ARMS]
        if strange or not self.arms:
            raise ValueError(
                f"arm {strange[0] if strange else ''!r}: want some of {', '.join(ARMS)}"
            )
        for name in ("windows", "questions", "retrain_every", "retrain_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: want at least 1")
        if self.ablations and "incremental" not in self.arms:
            raise ValueError("ablations are of the arm 'incremental': add it to the arms")
        if self.parts and (WHOLE not in self.arms or min(self.parts) < 2):
            raise ValueError(
                f"parts {list(self.parts)}: want 2 or more each, and the arm {WHOLE!r}, to which "
                "they are compared"
            )
        if not self.seeds:
            raise ValueError("no seed: want at least one")


@dataclass(slots=True)
class _Track:
    """One arm on its way."""

    name: str
    seed: int
    arm: Arm
    world: World
    meter: Meter = field(default_factory=Meter)
    start_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    drift: list[float] = field(default_factory=list)
    drift_window: list[float] = field(default_factory=list)
    answers: list[Answers] = field(default_factory=list)


def evaluate(stream: Stream, options: Options, report: Report) -> dict[str, Any]:
    """Run the protocol.

    Args:
        report: told step, parts done, parts in all, and a remark.

    Returns:
        Figures that JSON can hold.

    Raises:
        ValueError: fewer plays than windows.
    """
    began = time.perf_counter()
    windows = Windows.of(stream, options.windows)
    prior = choose_prior(stream, windows, options)
    tracks, asked = _follow(stream, windows, options, prior, report)
    by_arm: dict[str, list[_Track]] = {}
    for track in tracks:
        by_arm.setdefault(track.name, []).append(track)
    all_asked = Asked.of(asked)
    worth = {name: Worth.of([one.answers for one in some]) for name, some in by_arm.items()}
    found: dict[str, Any] = {}
    for name, some in by_arm.items():
        report("intervals", len(found) + 1, len(by_arm), name)
        found[name] = {
            **arm_figures(worth[name], all_asked, windows=len(windows)),
            **_costs(some),
        }
    whole = worth.get("incremental")
    ablations = {
        name: {**found[name], "difference": differences(worth[name], whole, all_asked)}
        for name in ABLATIONS
        if name in found and whole is not None
    }
    parts: dict[str, Any] = {}
    for count in options.parts:
        cut, dealt = of_parts(count)
        for name in (cut, dealt):
            to_whole = differences(worth[name], worth[WHOLE], all_asked)
            parts[name] = {**found[name], "parts": count, "difference": to_whole}
        parts[cut]["against_random"] = differences(worth[cut], worth[dealt], all_asked)
    return {
        "protocol": {
            "plays": len(stream),
            "titles": len(stream.titles),
            "concepts": len(stream.concepts),
            "users": int(stream.users.max(initial=-1)) + 1,
            "coplays": len(stream.pair_row),
            "cut": windows.cut,
            "windows": len(windows),
            "seeds": list(options.seeds),
            "questions": len(all_asked.user),
            "cold_questions": len(all_asked.cold_user),
            "questions_a_window_at_most": options.questions,
            "retrain_every": options.retrain_every,
            "retrain_steps": options.retrain_steps or options.pretrain.steps,
            "cocount_prior": prior,
            "candidates": "titles of the catalogue less those that the user has played",
            "intervals": "95 %, bootstrap over users, 500 draws",
        },
        "arms": {name: found[name] for name in options.arms},
        "differences": {
            f"{ours}-{theirs}": differences(worth[ours], worth[theirs], all_asked)
            for ours, theirs in AGAINST
            if ours in worth and theirs in worth
        },
        "ablations": ablations,
        "parts": parts,
        "seconds": time.perf_counter() - began,
    }


def choose_prior(stream: Stream, windows: Windows, options: Options) -> float:
    """The co-counts' prior that does best on the newest tenth of history, the rest being known."""
    split = windows.cut - windows.cut // 10
    world = World(stream)
    asker = Asker(stream, most=options.questions, seed=0)
    world.arrive(int(stream.time_ms[windows.cut - 1]))
    world.ingest(slice(0, split))
    questions = asker.ask(slice(split, windows.cut), world)
    if not len(questions):
        return PRIORS[len(PRIORS) // 2]
    hits = []
    for prior in PRIORS:
        got = answer(questions, cocount_scorer(world, prior), world.known_T, world.plays_T)
        hits.append(float(recall_at_k(got.e1).mean() + recall_at_k(got.e2).mean()))
    return PRIORS[int(np.argmax(hits))]


def _follow(
    stream: Stream, windows: Windows, options: Options, prior: float, report: Report
) -> tuple[list[_Track], list[Questions]]:
    """Take every arm through all windows."""
    world = World(stream)
    worlds = [world]
    if options.ablations:
        worlds.append(World(stream, with_concepts=False))
    asker = Asker(stream, most=options.questions, seed=0)
    for one in worlds:
        one.arrive(int(stream.time_ms[windows.cut - 1]))
        one.ingest(slice(0, windows.cut))
    tracks = _tracks(options, prior, worlds, report)
    for number, track in enumerate(tracks):
        report("at the cut", number, len(tracks), track.name)
        with track.meter.measure():
            track.arm.start(track.world)
        track.start_seconds = track.meter.seconds
    report("at the cut", len(tracks), len(tracks), "")
    asked = []
    for window in range(len(windows)):
        rows = windows.rows(window)
        for one in worlds:
            one.arrive(int(stream.time_ms[rows.stop - 1]))
        asked.append(asker.ask(rows, world))
        for track in tracks:
            report("windows", window, len(windows), track.name)
            with track.meter.measure():
                track.arm.update(track.world)
            track.seconds.append(track.meter.seconds)
            track.drift.append(track.arm.drift)
            track.drift_window.append(getattr(track.arm, "drift_window", track.arm.drift))
            scorer = track.arm.scorer(track.world)
            track.answers.append(answer(asked[-1], scorer, world.known_T, world.plays_T))
        for one in worlds:
            one.ingest(rows)
    report("windows", len(windows), len(windows), "")
    return tracks, asked


def _tracks(options: Options, prior: float, worlds: list[World], report: Report) -> list[_Track]:
    def told(step: str, done: int, total: int, figures: dict[str, float]) -> None:
        report(step, done, total, " ".join(f"{key} {one:.3f}" for key, one in figures.items()))

    recipes = {
        seed: Recipe(options.model, options.pretrain, options.micro, seed, told)
        for seed in options.seeds
    }
    tracks = [
        _Track(name, seed, _make(name, recipes[seed], options, prior), worlds[0])
        for name in options.arms
        for seed in (options.seeds if name in TRAINED else options.seeds[:1])
    ]
    for name in ABLATIONS if options.ablations else ():
        world = worlds[name == "no_concepts"]
        tracks += [
            _Track(name, seed, Incremental(without(name, recipes[seed])), world)
            for seed in options.seeds
        ]
    for count in options.parts:
        for name, cutter in zip(of_parts(count), (options.pretrain.cutter, "random"), strict=True):
            config = replace(options.pretrain, parts=count, cutter=cutter)
            tracks += [
                _Track(name, seed, FrozenFreshGraph(replace(recipe, pretrain=config)), worlds[0])
                for seed, recipe in recipes.items()
            ]
    return tracks


def of_parts(count: int) -> tuple[str, str]:
    """Names of the models that were trained on so many parts: of a cut, and random ones."""
    return f"hasp_{count}", f"random_{count}"


def without(ablation: str, whole: Recipe) -> Recipe:
    """The recipe without one thing."""
    changes: dict[str, dict[str, Any]] = {
        "no_relation_factor": {"model": replace(whole.model, relation_factor=False)},
        "no_residual_id": {"model": replace(whole.model, residual_id=False)},
        "no_transe": {"pretrain": replace(whole.pretrain, transe_steps=0)},
        "no_replay": {"micro": replace(whole.micro, replay=0.0)},
        "no_recent": {"micro": replace(whole.micro, fade=0.0)},
        "no_distillation": {"micro": replace(whole.micro, distillation=0.0, min_cosine=-1.0)},
        "no_concepts": {},
    }
    return replace(
        whole, **changes[ablation], base=whole if ablation in FROM_CUT else None, made=None
    )


def _make(name: str, recipe: Recipe, options: Options, prior: float) -> Arm:
    made: dict[str, Callable[[], Arm]] = {
        "popularity_fresh": Popularity,
        "cocount_frozen": lambda: CoCounts(fresh=False, prior=prior),
        "cocount_fresh": lambda: CoCounts(fresh=True, prior=prior),
        "kg_cosine": ConceptCosine,
        "transe": lambda: TransEOnly(
            options.model.dim, options.pretrain, recipe.seed, recipe.progress
        ),
        "lightgcn": lambda: LightGCNOnly(
            options.model.dim, steps=options.pretrain.steps, seed=recipe.seed
        ),
        "frozen": lambda: Frozen(recipe),
        "frozen_fresh_graph": lambda: FrozenFreshGraph(recipe),
        "incremental": lambda: Incremental(recipe),
        "retrain": lambda: Retrain(
            recipe, every=options.retrain_every, steps=options.retrain_steps
        ),
    }
    return made[name]()


def _costs(some: list[_Track]) -> dict[str, Any]:
    """Seconds, memory and drift; of `retrain` only the windows count in which it did train."""
    seconds, drifts = [], []
    for track in some:
        every = track.arm.every if isinstance(track.arm, Retrain) else 1
        whole = [at for at in range(len(track.seconds)) if at % every == 0 and (at or every == 1)]
        # The first window's update has nothing new to learn from.
        seconds += [track.seconds[at] for at in whole if at] or track.seconds
        drifts += [track.drift[at] for at in whole if at]
    finite = [one for one in drifts if np.isfinite(one)]
    return {
        "drift_cosine": mean(drifts),
        "drift_cosine_least": min(finite, default=None),
        "drift_cosine_window": mean([one for track in some for one in track.drift_window[1:]]),
        "seconds_per_window": mean(seconds),
        "seconds_at_cut": mean([one.start_seconds for one in some]),
        "peak_mb": max(one.meter.peak_mb for one in some),
        "cycles_refused": sum(
            track.arm.verdicts.count(REFUSED)
            for track in some
            if isinstance(track.arm, Incremental)
        ),
        "seeds": len(some),
    }
