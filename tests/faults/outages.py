"""Servers that go away, stop, forget or refuse, under a worker that is not restarted.

Each outage begins in the midst of a stream of events, lasts for a while, and ends. From then on the
clock runs: until a title that is published to the catalogue at that moment can be read from Redis,
and with it every title that stands. Nobody tells the worker anything. Then the whole log must have
acted once, and Redis must show what it says.
"""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from serve import vectors
from serve.connection import RedisFailed, call, call_all
from streams.events import CatalogEntry
from streams.producer import Producer
from tests.faults.feed import Feed, Progress
from tests.faults.kills import positions_of
from tests.faults.oracle import Fold, Log, Watch, compare, compare_published
from tests.faults.rig import Fault, Process, Rig, entry_of, open_rig, wait_until
from tests.kafka.node import Kafka

TITLES = 300
RESUME_S = 30.0  # by the promise
GIVE_UP_S = 120.0  # so that a slow one has a figure, too
EVENTS = 6000  # co-plays an outage
LIMIT = "1mb"


@dataclass(slots=True)
class Outcome:
    """`resume_s`: outage -> seconds from its end until a new title, and all others, are there."""

    outages: int = 0
    survived: int = 0
    lost: float = 0.0
    doubled: float = 0.0
    seq_regressions: int = 0
    resume_s: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Scene:
    rig: Rig
    worker: Process
    feed: Feed
    log: Log
    fold: Fold
    watch: Watch
    extra: int = 0  # messages that we sent beside the feed

    def publish(self, entry: CatalogEntry) -> None:
        with Producer(self.rig.bootstrap, timeout_s=GIVE_UP_S) as producer:
            producer.publish_catalog(self.rig.settings.kafka.catalog, [entry])
        self.extra += 1

    def retire(self, title: str) -> None:
        with Producer(self.rig.bootstrap) as producer:
            producer.send(self.rig.settings.kafka.catalog, key=title, value=None)
        self.extra += 1


@dataclass(frozen=True, slots=True)
class Outage:
    """How it begins and how it ends; `for_s` as a share of the time that outages last."""

    name: str
    begin: Callable[[_Scene], None]
    end: Callable[[_Scene], None]
    length: float = 1.0
    needs_kafka: bool = False


def _redis(*command: str) -> Callable[[_Scene], None]:
    def do(scene: _Scene) -> None:
        call(scene.rig.client, *command)

    return do


def _kill_broker(scene: _Scene) -> None:
    assert isinstance(scene.rig.broker, Kafka)
    scene.rig.broker.kill()


def _start_broker(scene: _Scene) -> None:
    scene.rig.broker.start()


def _to(server: str, signum: signal.Signals) -> Callable[[_Scene], None]:
    def do(scene: _Scene) -> None:
        os.kill(getattr(scene.rig, server).child.pid, signum)

    return do


def _kill_redis(scene: _Scene) -> None:
    scene.rig.redis.child.kill()


def _start_redis(scene: _Scene) -> None:
    scene.rig.redis.start()


def _go_back_in_time(scene: _Scene) -> None:
    """Redis is saved; then a title is retired and others move; then it is killed."""
    call(scene.rig.client, "SAVE")
    victim = scene.feed.spare
    key = vectors.title_key(scene.rig.settings.redis.space, victim)
    scene.retire(victim)
    wait_until(lambda: not call(scene.rig.client, "HEXISTS", key, "vec"), "a title's retirement")
    scene.publish(entry_of(0, time_ms=int(time.time() * 1000)))
    scene.rig.redis.child.kill()


def _forget_the_save(scene: _Scene) -> None:
    scene.rig.redis.start()
    (scene.rig.redis.folder / "dump.rdb").unlink(missing_ok=True)


def _fill_disk(scene: _Scene) -> None:
    """No checkpoint can be made: where its draft would be, is a file that stands in the way."""
    root = scene.rig.checkpoints
    shutil.move(root, root.with_name("taken-away"))
    root.write_text("no folder")


def _empty_disk(scene: _Scene) -> None:
    root = scene.rig.checkpoints
    root.unlink()
    shutil.move(root.with_name("taken-away"), root)


def _stop_worker_and_redis(scene: _Scene) -> None:
    scene.worker.kill()
    scene.rig.redis.child.kill()
    scene.worker = scene.rig.worker()


OUTAGES = (
    Outage("broker killed, its data kept", _kill_broker, _start_broker, 4.0, needs_kafka=True),
    Outage("broker stopped", _to("broker", signal.SIGSTOP), _to("broker", signal.SIGCONT), 2.0),
    Outage("Redis killed, its data gone", _kill_redis, _start_redis),
    Outage("Redis flushed", _redis("FLUSHALL"), lambda scene: None, 0.0),
    Outage(
        "Redis out of memory",
        _redis("CONFIG", "SET", "maxmemory", LIMIT),
        _redis("CONFIG", "SET", "maxmemory", "0"),
    ),
    Outage(
        "Redis read-only, a replica",
        _redis("REPLICAOF", "127.0.0.1", "1"),
        _redis("REPLICAOF", "NO", "ONE"),
    ),
    Outage("Redis stopped", _to("redis", signal.SIGSTOP), _to("redis", signal.SIGCONT)),
    Outage("Redis back from an older copy", _go_back_in_time, _forget_the_save, 0.3),
    Outage("no place for checkpoints", _fill_disk, _empty_disk, 0.5),
    Outage("worker starts before Redis", _stop_worker_and_redis, _start_redis, 0.5),
)


def run(
    folder: Path,
    *,
    seed: int,
    length_s: float,
    kafka: bool,
    progress: Progress,
    only: frozenset[str] = frozenset(),
    events: int = EVENTS,
) -> Outcome:
    """One outage after the other; `length_s` is how long most of them last."""
    outcome = Outcome()
    chosen = [one for one in OUTAGES if (not only or one.name in only)]
    sections = {"redis": {"timeout_s": 1.0, "startup_timeout_s": 60.0}}
    with (
        open_rig(folder, titles=TITLES, apache=kafka, **sections) as rig,
        contextlib.ExitStack() as stack,
    ):
        topics = rig.settings.kafka
        log = Log(rig.bootstrap, [topics.coplays, topics.catalog], topics.partitions)
        stack.callback(log.close)
        feed = Feed(rig.bootstrap, topics, TITLES, seed, timeout_s=2 * GIVE_UP_S)
        stack.callback(feed.close)
        watch = Watch(
            rig.redis.url, rig.settings.redis.space, [*feed.fickle, *feed.doomed, feed.spare]
        )
        stack.callback(watch.stop)
        fold = Fold(log, topics.coplays, TITLES)
        scene = _Scene(rig, rig.worker(), feed, log, fold, watch)
        rig.wait_live(scene.worker)
        for n, outage in enumerate(chosen):
            if outage.needs_kafka and not kafka:
                outcome.left_out.append(outage.name)
                continue
            progress("outages", n, len(chosen), outage.name)
            outcome.outages += 1
            try:
                before = len(outcome.wrong)
                resume_s = _survive(scene, outage, n, length_s, events, outcome)
                outcome.resume_s[outage.name] = round(resume_s, 2)
                outcome.survived += resume_s <= RESUME_S and len(outcome.wrong) == before
            except Fault as error:
                outcome.wrong.append(f"{outage.name}: {error}")
                break  # what follows stands on nothing
        outcome.seq_regressions = len(watch.regressions)
        outcome.wrong += watch.regressions[:3]
        progress("outages", len(chosen), len(chosen), f"{outcome.survived} survived")
        if scene.worker.poll() is None:
            scene.worker.stop()
    return outcome


def _survive(
    scene: _Scene, outage: Outage, n: int, length_s: float, events: int, outcome: Outcome
) -> float:
    """Returns the seconds from the end of the outage to a new title's embedding, and all others."""
    scene.feed.release(events)
    time.sleep(0.3)
    outage.begin(scene)
    _last(scene, outage.length * length_s)
    outage.end(scene)
    start = time.monotonic()
    probe = f"probe{n}"
    scene.publish(CatalogEntry(probe, int(time.time() * 1000), {"genre": ["g1"]}))
    must = {*scene.feed.stable, probe}
    wait_until(
        lambda: _alive(scene) and _all_there(scene.rig, must),
        f"all after: {outage.name}",
        GIVE_UP_S,
    )
    resume_s = time.monotonic() - start
    _hold_against_the_log(scene, outage, outcome)
    return resume_s


def _last(scene: _Scene, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        _alive(scene)
        time.sleep(0.05)


def _alive(scene: _Scene) -> bool:
    if (code := scene.worker.poll()) is not None:
        raise Fault(f"the worker ended with {code}:\n{scene.worker.tail()}")
    return True


def _all_there(rig: Rig, titles: set[str]) -> bool:
    """Whether the space is live, with a vector for each of `titles`."""
    prefix = vectors.title_prefix(rig.settings.redis.space)
    try:
        live = call(rig.client, "GET", vectors.CURRENT)
        there = call_all(rig.client, [("HEXISTS", prefix + one, "vec") for one in sorted(titles)])
    except RedisFailed:
        return False
    return live is not None and all(there)


def _hold_against_the_log(scene: _Scene, outage: Outage, outcome: Outcome) -> None:
    rig, log = scene.rig, scene.log
    log.read(scene.feed.drain() + scene.extra)
    ends = log.ends()

    def through() -> bool:
        at = positions_of(rig)
        return _alive(scene) and all(at.get(key, 0) >= end for key, end in ends.items())

    wait_until(through, "a checkpoint of the whole log", GIVE_UP_S)
    rig.wait_settled(scene.worker, 0)
    state = rig.load().state
    scene.fold.advance(state.positions)
    found = compare(state, scene.fold)
    outcome.lost += found.lost
    outcome.doubled += found.doubled
    if found:
        outcome.wrong.append(f"{outage.name}: {found}")

    def same() -> list[str]:
        space, doomed = rig.settings.redis.space, scene.feed.doomed
        return compare_published(rig.client, space, scene.fold, scene.watch, doomed)

    with contextlib.suppress(Fault):  # the watch may be a moment behind
        wait_until(lambda: not same(), "what the log says", 10.0)
    outcome.wrong += [f"{outage.name}: {one}" for one in same()[:5]]
