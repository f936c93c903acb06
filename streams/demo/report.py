"""The demo's figures: what it measured, and the JSON report that is made of it.

`DemoResult` is what the demo hands over, as plain values; `build_report` turns it into nested dicts
of numbers, and streams/demo/page.py both into a page. A figure that there is no sample for is None.
docs/demo.md says how each is measured.
"""

import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.quality import bootstrap, recall_at_k
from streams.demo.freshness import KINDS, Samples, percentiles
from streams.demo.reader import Progress

Floats = npt.NDArray[np.float32]
Ranks = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

K = 20
GOALS_S = {  # what the demo is held to
    ("catalog", "p50"): 0.5,
    ("catalog", "p99"): 1.5,
    ("coplay", "p99"): 5.0,
}


@dataclass(frozen=True, slots=True)
class Predictions:
    """Plays that were predicted before they were streamed, in stream order.

    Attributes:
        users: user number, shape (N,).
        titles: the title that was to be found, shape (N,).
        frozen, live: its rank from 1, infinite where it or the query has no vector, shape (N,).
    """

    users: Int64s
    titles: Int64s
    frozen: Ranks
    live: Ranks


@dataclass(frozen=True, slots=True)
class Titles:
    """The catalogue at the end, by title number.

    Attributes:
        names: length T.
        rows_TD: the live vectors, shape (T, D).
        known: whether there is one, shape (T,).
        new: whether it was held back, and came in mid-stream, shape (T,).
        plays: plays in all, shape (T,).
    """

    names: Sequence[str]
    rows_TD: Floats
    known: Bools
    new: Bools
    plays: Int64s


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A title near another: its name, the cosine, and the concepts that both have, by relation."""

    name: str
    cosine: float
    shared: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class NewTitle:
    """A held-back title as it stood in Redis before its first play.

    Attributes:
        visible_s: seconds from its catalog event to its vector in Redis.
        plays: streamed plays of it afterwards.
        concepts: relation -> its concepts.
        neighbours: the nearest titles, nearest first.
    """

    name: str
    visible_s: float | None
    plays: int
    concepts: Mapping[str, Sequence[str]]
    neighbours: Sequence[Neighbour]


@dataclass(frozen=True, slots=True)
class Cycle:
    """One training cycle.

    Attributes:
        at_s: when it began, seconds since the stream began.
        verdict: "passed" or "refused" by the gate, or "skipped" for want of pairs to train on.
        reason: in words, unless passed.
        fresh: co-plays that it had to learn from.
        drift_cosine: mean cosine of the new vectors to the published ones.
        recall_before, recall_after: of the gate's held-back co-plays, under old and new weights.
    """

    at_s: float
    verdict: str
    reason: str = ""
    fresh: int = 0
    steps: int = 0
    seconds: float = 0.0
    loss: float | None = None
    drift_cosine: float | None = None
    recall_before: float | None = None
    recall_after: float | None = None


@dataclass(frozen=True, slots=True)
class DemoResult:
    """All that the demo measured.

    Attributes:
        seconds: from the demo's start to its end; `steps`: the same by step.
        events: by topic: {"coplays": {"in": ..., "applied": ..., "dead": ...}}.
        coplays_per_s: co-plays applied a second, while the stream ran.
        samples: of the outside reader (streams/demo/freshness.py); `reader`: its last summary.
        stream_start_ms: wall time at which the stream began, milliseconds since the Unix epoch.
        titles_new: held-back titles that came in.
        new_titles: those of them that the page shows.
        histogram: mean and count of the worker's own freshness histogram, by kind, seconds.
        facts: what else the reader of the page should know, as label -> text.
    """

    seconds: float
    events: Mapping[str, Mapping[str, int]]
    coplays_per_s: float
    samples: Samples
    stream_start_ms: float
    reader: Progress
    predictions: Predictions
    titles: Titles
    titles_new: int
    new_titles: Sequence[NewTitle]
    cycles: Sequence[Cycle]
    steps: Mapping[str, float] = field(default_factory=dict)
    histogram: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


def build_report(result: DemoResult) -> dict[str, Any]:
    """The report, ready for JSON."""
    totals = {
        outcome: sum(counts.get(outcome, 0) for counts in result.events.values())
        for outcome in ("in", "applied", "dead")
    }
    reader = result.reader
    return {
        "events_in": totals["in"],
        "events_applied": totals["applied"],
        "events_dead": totals["dead"],
        "events_by_topic": {topic: dict(counts) for topic, counts in result.events.items()},
        "coplays_per_s": _number(result.coplays_per_s, 1),
        "freshness_s": {kind: freshness_of(result.samples, kind) for kind in KINDS},
        "histogram_s": {
            kind: _compared(result.histogram.get(kind), reader.by_title_s.get(kind))
            for kind in KINDS
        },
        "quality": quality(result.predictions, result.titles.new, result.seed),
        "titles_new": result.titles_new,
        "cycles": len(result.cycles),
        "cycles_by_verdict": _count(cycle.verdict for cycle in result.cycles),
        "seconds": _number(result.seconds, 1),
        "seconds_by_step": {step: _number(value, 1) for step, value in result.steps.items()},
        "reader": {
            "updates": reader.updates,
            "reads": reader.reads,
            "torn": reader.torn,
            "seq_regressions": reader.seq_regressions,
            "never_visible": dict(reader.waiting),
            "overtaken": reader.overtaken,
            "unreadable": reader.unreadable,
            "cpu_s": reader.cpu_s,
        },
        "machine": machine(),
        "seed": result.seed,
    }


def _compared(
    inside: Mapping[str, float] | None, outside: Mapping[str, float] | None
) -> dict[str, float | None]:
    """Mean freshness of the worker's histogram, and of the outside reader; their ratio."""
    if not inside or not outside:
        return {"worker": None, "reader": None, "ratio": None}
    ratio = inside["mean"] / outside["mean"] if outside["mean"] else math.nan
    return {
        "worker": _number(inside["mean"], 4),
        "reader": _number(outside["mean"], 4),
        "ratio": _number(ratio, 3),
    }


def write_report(report: Mapping[str, Any], file: Path) -> None:
    """Write the report as JSON, whole or not at all."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    part.replace(file)


def freshness_of(samples: Samples, kind: str) -> dict[str, float | int | None]:
    """Percentiles of one kind, seconds; None where it has no sample."""
    seconds = samples["seconds"][samples["kind"] == KINDS.index(kind)]
    found = percentiles(seconds)
    values = {name: found.get(name) for name in ("p50", "p90", "p99", "max")}
    return {**values, "count": len(seconds)}


def quality(predictions: Predictions, new: Bools, seed: int) -> dict[str, Any]:
    """Recall@20 of both arms and of their paired difference, with 95 % intervals by user.

    Args:
        new: titles that the frozen vectors cannot have, shape (T,): since those alone would make
            the live ones win, plays of the other titles are also told apart (`old_titles`).
    """
    old = ~new[predictions.titles] if len(predictions.titles) else np.empty(0, bool)
    everything = np.ones(len(old), bool)
    return {
        **_arms(predictions, everything, seed),
        "old_titles": _arms(predictions, old, seed),
        "new_titles": _arms(predictions, ~old, seed),
    }


def recall(
    hits: npt.NDArray[np.floating], users: Int64s, seed: int, *, name: str = f"recall{K}"
) -> dict[str, float | None]:
    """The mean of `hits` with its 95 % interval; users, not plays, are drawn anew."""
    found = bootstrap(hits, users, seed=seed)
    return {
        name: _number(found.mean, 5),
        "low": _number(found.low, 5),
        "high": _number(found.high, 5),
    }


def windows(predictions: Predictions, count: int, seed: int) -> list[dict[str, Any]]:
    """The stream in `count` windows of as many predictions each: both arms, and where it ends."""
    edges = np.linspace(0, len(predictions.users), count + 1).astype(int)
    found = []
    for start, end in pairwise(edges.tolist()):
        rows = np.zeros(len(predictions.users), bool)
        rows[start:end] = True
        found.append({**_arms(predictions, rows, seed), "start": start, "end": end})
    return found


def nearest(
    title: int,
    rows_TD: Floats,
    known: Bools,
    names: Sequence[str],
    concepts: Sequence[Mapping[str, Sequence[str]]],
    k: int = 5,
) -> list[Neighbour]:
    """The `k` titles whose vectors have the highest cosine with that of `title`.

    Args:
        title: title number; none is near where it has no vector.
        rows_TD: one vector a title, shape (T, D).
        known: which of them there are, shape (T,).
        names: of each title, length T.
        concepts: of each title, relation -> concepts, length T.
    """
    if not known[title]:
        return []
    length = np.linalg.norm(rows_TD, axis=1)
    cosine = rows_TD @ rows_TD[title] / np.maximum(length * length[title], 1e-12)
    cosine = np.where(known, cosine, -np.inf)
    cosine[title] = -np.inf
    first = np.argsort(-cosine, kind="stable")[:k]
    own = concepts[title]
    return [
        Neighbour(
            names[other],
            round(float(cosine[other]), 4),
            {
                relation: shared
                for relation, values in own.items()
                if (shared := sorted(set(values) & set(concepts[other].get(relation, ()))))
            },
        )
        for other in first.tolist()
        if np.isfinite(cosine[other])
    ]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _arms(predictions: Predictions, rows: Bools, seed: int) -> dict[str, Any]:
    users = predictions.users[rows]
    frozen = recall_at_k(predictions.frozen[rows], K)
    live = recall_at_k(predictions.live[rows], K)
    return {
        "frozen": recall(frozen, users, seed),
        "live": recall(live, users, seed),
        "difference": recall(live - frozen, users, seed),
        "plays": len(users),
        "users": len(np.unique(users)),
    }


def _number(value: float | None, digits: int) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), digits)


def _count(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts
