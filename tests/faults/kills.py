"""A worker that is killed again and again, at any moment and at each named point.

After each life the newest checkpoint must be whole; every so often, and at the end, the state is
held against the fold of the log, edge by edge and title by title. At the end a worker runs on in
peace: then Redis must hold each title that stands, with its newest event, and the vectors that a
full inference on the final graph gives.
"""

import json
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.inference import Embedder
from streams import checkpoint
from streams.dead_letters import read_dead
from tests.faults.feed import Feed, Progress
from tests.faults.oracle import (
    Difference,
    Fold,
    Log,
    Watch,
    compare,
    compare_published,
    published_matrix,
)
from tests.faults.rig import Fault, Process, Rig, open_rig, wait_until

AIMED_S = 12.0  # a point that is not passed for so long is given up: a kill at random then
COMPARE_EVERY = 20
TITLES = 400
POINTS = (
    "recovery.loaded",
    "recovery.replaying",
    "recovery.caught_up",
    "recovery.opened",
    "ingest.read",
    "ingest.folded",
    "refresh.taken",
    "publish.before",
    "publish.after",
    "retire.before",
    "retire.after",
    "checkpoint.before",
    "checkpoint.inside",
    "checkpoint.drafted",
    "checkpoint.placed",
    "checkpoint.after",
    "commit.before",
    "commit.after",
    "training.handover",
)
AFTER_MS = ("publish.before", "checkpoint.before", "retire.before")  # also: a moment inside
TRAINING = {
    "UPWELL_TRAINING__ENABLED": "true",
    "UPWELL_TRAINING__CYCLE_S": "0.3",
    "UPWELL_TRAINING__MIN_FRESH": "50",
    "UPWELL_TRAINING__STEPS": "1",
}


@dataclass(slots=True)
class Outcome:
    """What 200 deaths did: all but the first four must be 0."""

    kills: int = 0
    events: int = 0
    bad: int = 0
    compared: int = 0
    lost: float = 0.0
    doubled: float = 0.0
    catalog_wrong: int = 0
    published_wrong: int = 0
    dead_missed: int = 0
    seq_regressions: int = 0
    content_regressions: int = 0
    by_point: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, found: Difference, when: str) -> None:
        self.compared += 1
        self.lost += found.lost
        self.doubled += found.doubled
        self.catalog_wrong += len(found.catalog)
        if found:
            self.wrong.append(f"{when}: {found}")


def run(
    folder: Path,
    *,
    seed: int,
    kills: int,
    events: int,
    kafka: bool,
    progress: Progress,
    titles: int = TITLES,
) -> Outcome:
    """Kill a worker `kills` times while `events` co-plays and their catalog events come in.

    Raises:
        Fault: a worker did not come back, or ended by itself.
    """
    rng = np.random.default_rng(seed)
    outcome = Outcome()
    with open_rig(folder, titles=titles, apache=kafka) as rig:
        topics = rig.settings.kafka
        log = Log(rig.bootstrap, [topics.coplays, topics.catalog], topics.partitions)
        fold = Fold(log, topics.coplays, titles)
        feed = Feed(rig.bootstrap, topics, titles, seed)
        watch = Watch(rig.redis.url, rig.settings.redis.space, [*feed.fickle, *feed.doomed])
        try:
            share = -(-events // kills)
            for n in range(kills):
                feed.release(share if n < kills - 1 else events - share * (kills - 1))
                point = _one_life(rig, rng, n)
                outcome.kills += 1
                outcome.by_point[point] += 1
                if damaged := _damaged(rig):
                    outcome.wrong.append(f"after kill {n + 1} at {point}: {damaged}")
                if (n + 1) % COMPARE_EVERY == 0:
                    _compare(rig, log, fold, outcome, f"after kill {n + 1}")
                progress("kills", n + 1, kills, f"{point}, {feed.sent} sent")
            log.read(feed.drain())
            _run_in_peace(rig, log)
            _compare(rig, log, fold, outcome, "at the end")
            _run_in_peace(rig, log)  # once more: it publishes all, from a full inference
            watch.stop()
            _check_redis(rig, fold, watch, feed.doomed, outcome)
            _check_dead(rig, fold, outcome)
            outcome.events, outcome.bad = fold.events, len(fold.bad)
        finally:
            feed.close()
            watch.stop()
            log.close()
    outcome.seq_regressions = len(watch.regressions)
    outcome.content_regressions = len(watch.faded)
    outcome.wrong += watch.regressions[:3] + watch.faded[:3]
    return outcome


def _one_life(rig: Rig, rng: np.random.Generator, n: int) -> str:
    """Start a worker, and see it die; returns where."""
    turn = rng.random()
    if turn < 0.15:
        process = rig.worker()
        _passed(process, float(rng.uniform(0, 1.5)))
        return _killed(process, "random, from its start")
    if turn < 0.4:
        process = rig.worker()
        rig.wait_live(process)
        _passed(process, float(rng.uniform(0, 1.0)))
        return _killed(process, "random, live")
    point = POINTS[n % len(POINTS)]
    aim = f"{point}:kill:{1 if point.startswith('recovery') else rng.integers(1, 4)}"
    if point in AFTER_MS and rng.random() < 0.5:
        aim += f":{rng.uniform(0.1, 6.0):.2f}"
    process = rig.worker(aim, **(TRAINING if point.startswith("training") else {}))
    try:
        code = process.wait(AIMED_S)
    except Fault:
        return _killed(process, f"random, waiting for {point}")
    if code != -signal.SIGKILL:
        raise Fault(f"aimed at {aim}, the worker ended with {code}:\n{process.tail()}")
    return point


def _passed(process: Process, seconds: float) -> bool:
    """Let it live for so long."""
    try:
        process.wait(seconds)
    except Fault:
        return True
    raise Fault(f"a worker ended by itself with {process.poll()}:\n{process.tail()}")


def _killed(process: Process, point: str) -> str:
    if (code := process.kill()) != -signal.SIGKILL:
        raise Fault(f"the worker had ended by itself with {code}:\n{process.tail()}")
    return point


def _damaged(rig: Rig) -> str:
    return "; ".join(one.reason for one in checkpoint.newest(rig.checkpoints)[1])


def _compare(rig: Rig, log: Log, fold: Fold, outcome: Outcome, when: str) -> None:
    """Hold the newest checkpoint against the fold up to its offsets."""
    state = rig.load().state
    while any(at > log.ends().get(key, 0) for key, at in state.positions.items()):
        log.read(len(log) + 1)
    fold.advance(state.positions)
    outcome.note(compare(state, fold), when)


def _run_in_peace(rig: Rig, log: Log) -> None:
    """A worker that reads to the end, publishes, and is stopped."""
    process = rig.worker()
    rig.wait_live(process)
    wait_read(rig, log)
    rig.wait_settled(process, 0)
    process.stop()


def wait_read(rig: Rig, log: Log) -> None:
    """Wait until a checkpoint holds all that the log does."""
    ends = log.ends()

    def through() -> bool:
        at = positions_of(rig)
        return all(at.get(key, 0) >= end for key, end in ends.items())

    wait_until(through, "a checkpoint of the whole log")


def positions_of(rig: Rig) -> dict[tuple[str, int], int]:
    """Those of the newest checkpoint, by its manifest."""
    newest = max((one for one in rig.checkpoints.iterdir() if one.name.isdigit()), default=None)
    if newest is None:
        return {}
    try:
        state: dict[str, Any] = json.loads((newest / checkpoint.MANIFEST).read_text())["meta"]
    except OSError:  # it was just taken away
        return {}
    return {(topic, part): at for topic, part, at in state["state"]["positions"]}


def _check_redis(rig: Rig, fold: Fold, watch: Watch, doomed: list[str], outcome: Outcome) -> None:
    space = rig.settings.redis.space
    wrong = compare_published(rig.client, space, fold, watch, doomed)
    snapshot = rig.load()
    embedder = Embedder(snapshot.model)
    embedder.full(snapshot.state.graph)
    ids = snapshot.state.graph.ids["title"].live_ids()
    titles = snapshot.state.graph.ids["title"].names(ids)
    matrix, there = published_matrix(rig.client, space, titles)
    same = there & np.isclose(matrix, embedder.vectors(ids), rtol=1e-4, atol=1e-5).all(axis=1)
    wrong += [f"{titles[row]} has another vector than the model" for row in np.flatnonzero(~same)]
    outcome.published_wrong = len(wrong)
    outcome.wrong += wrong[:5]


def _check_dead(rig: Rig, fold: Fold, outcome: Outcome) -> None:
    """Each message that is not JSON is in the dead letters, however often it was read."""
    topic = rig.settings.kafka.coplays
    set_aside = {one.source for one in read_dead(rig.bootstrap, topic)}
    bad = {f"{part}:{offset}" for name, part, offset in fold.bad if name == topic}
    outcome.dead_missed = len(bad - set_aside)
    if odd := bad ^ set_aside:
        outcome.wrong.append(f"{len(odd)} dead letters differ, such as {min(odd)}")
