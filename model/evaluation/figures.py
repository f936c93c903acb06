"""From ranks to figures: means with intervals, strata, the cold pool, and differences of two arms.

Intervals draw whole users anew (model/quality.py): the plays of one user are not independent. The
same draws serve all arms, so a difference is paired. Where there is nothing to average, a figure is
None, and no NaN goes out.

Shape suffixes: Q questions of all windows, S seeds.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from model.evaluation.queries import COOL, Answers, Questions
from model.quality import Resampling, ndcg_at_k, recall_at_k, reciprocal_rank

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

TOP = 20
METRICS = {"recall20": recall_at_k, "ndcg20": ndcg_at_k, "mrr": reciprocal_rank}
TASKS = ("e1", "e2")
MANY = np.iinfo(np.int64).max
STRATA = {"all": (0, MANY), "warm": (COOL, MANY), "cool": (1, COOL), "cold": (0, 1)}  # by plays
Figure = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Asked:
    """The questions of all windows, which are the same for all arms.

    Attributes:
        user, plays, window: of each question, shape (Q,).
        cold_user, cold_window: of the questions for strict-cold titles, shape (Q0,).
    """

    user: Int64s
    plays: Int64s
    window: Int64s
    cold_user: Int64s
    cold_window: Int64s
    draws: dict[str, Resampling] = field(default_factory=dict)

    def over(self, stratum: str) -> Resampling:
        """Draws of users over the questions of a stratum, or over `all`, or the `pool`."""
        if stratum not in self.draws:
            user = self.cold_user if stratum == "pool" else self.user[self.inside(stratum)]
            self.draws[stratum] = Resampling(user, seed=0)
        return self.draws[stratum]

    def inside(self, stratum: str) -> npt.NDArray[np.bool_]:
        """Which questions are for a title that is `warm`, `cool` or `cold`, or for `all`."""
        low, high = STRATA[stratum]
        return (self.plays >= low) & (self.plays < high)

    @classmethod
    def of(cls, windows: list[Questions]) -> "Asked":
        none = np.zeros(0, np.int64)
        cold = [questions.plays == 0 for questions in windows]
        number = [np.full(len(one), at, np.int64) for at, one in enumerate(windows)]
        return cls(
            np.concatenate([none, *(one.user for one in windows)]),
            np.concatenate([none, *(one.plays for one in windows)]),
            np.concatenate([none, *number]),
            np.concatenate([none, *(q.user[c] for q, c in zip(windows, cold, strict=True))]),
            np.concatenate([none, *(n[c] for n, c in zip(number, cold, strict=True))]),
        )


@dataclass(frozen=True, slots=True)
class Worth:
    """What one arm got for each question, mean over seeds.

    Attributes:
        tasks: task -> metric -> shape (Q,).
        cold: "auc" or "recall20" -> shape (Q0,).
        chance: what a coin would get, Recall@20 in the cold pool, shape (Q0,).
    """

    tasks: dict[str, dict[str, Float64s]]
    cold: dict[str, Float64s]
    chance: Float64s

    @classmethod
    def of(cls, seeds: list[list[Answers]]) -> "Worth":
        """From the answers by seed and window."""
        none = np.zeros(0)

        def column(name: str) -> Float64s:
            """Shape (S, Q)."""
            return np.stack(
                [np.concatenate([none, *(getattr(one, name) for one in seed)]) for seed in seeds]
            )

        tasks = {
            task: {name: metric(column(task)).mean(0) for name, metric in METRICS.items()}
            for task in TASKS
        }
        rank, pool = column("cold_rank"), column("cold_pool")
        auc = 1.0 - (rank - 1.0) / np.maximum(pool - 1.0, 1.0)
        cold = {
            "auc": np.where(pool > 1, auc, 0.5).mean(0),
            "recall20": recall_at_k(rank, TOP).mean(0),
        }
        return cls(tasks, cold, np.minimum(1.0, TOP / np.maximum(pool[0], 1.0)))


def arm_figures(worth: Worth, asked: Asked, *, windows: int) -> dict[str, Any]:
    """All figures of one arm that come from its ranks."""
    found: dict[str, Any] = {}
    for task in TASKS:
        of_task = worth.tasks[task]
        found[task] = {name: figure(each, asked.over("all")) for name, each in of_task.items()}
        found[task]["strata"] = {}
        for stratum in ("warm", "cool", "cold"):
            values = of_task["recall20"][asked.inside(stratum)]
            found[task]["strata"][stratum] = {
                "questions": len(values),
                "recall20": figure(values, asked.over(stratum)),
            }
        found[task]["windows"] = [
            mean(of_task["recall20"][asked.window == window]) for window in range(windows)
        ]
    found["cold_pool"] = {
        **{name: figure(each, asked.over("pool")) for name, each in worth.cold.items()},
        "chance_recall20": mean(worth.chance),
        "questions": len(asked.cold_user),
    }
    return found


def differences(ours: Worth, theirs: Worth, asked: Asked) -> dict[str, Any]:
    """Ours less theirs, question by question."""
    found: dict[str, Any] = {}
    for task in TASKS:
        found[task] = {
            name: figure(ours.tasks[task][name] - theirs.tasks[task][name], asked.over("all"))
            for name in METRICS
        }
    found["cold_pool"] = {
        name: figure(ours.cold[name] - theirs.cold[name], asked.over("pool")) for name in ours.cold
    }
    return found


def figure(values: Float64s, draws: Resampling) -> Figure:
    """Mean and interval; None throughout where there is nothing."""
    if not len(values):
        return {"value": None, "low": None, "high": None}
    interval = draws.interval(values)
    return {"value": interval.mean, "low": interval.low, "high": interval.high}


def mean(values: npt.NDArray[np.floating] | list[float]) -> float | None:
    """Mean of those that are numbers; None where there are none."""
    some = np.asarray(values, np.float64)
    some = some[np.isfinite(some)]
    return float(some.mean()) if len(some) else None
