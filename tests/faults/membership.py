"""Workers of `upwell sessions` that join and leave, a hundred times, while plays come in.

At each step one joins, or one leaves: by SIGTERM, or by SIGKILL in half of the cases; at least one
runs at any time but for a moment. What must come out is what `streams/coplay.py` makes of each
user's plays in their order. Sessions promise each pair at least once: one that comes twice is told,
one that is missing is a loss. Pairs are told apart by their titles and time.
"""

import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from streams.coplay import Recent, add_play
from streams.events import CoPlay, Play, encode
from streams.producer import Producer
from streams.wiring import pairing_of
from tests.faults.feed import Progress
from tests.faults.oracle import Log
from tests.faults.rig import Fault, Process, Rig, open_rig

USERS, TITLES = 60, 300
AT_MOST = 4  # workers at a time: as many as there are partitions
QUIET_S = 60.0  # so long without a new pair: what is missing then is lost
STEP_S = (0.5, 3.0)

Pair = tuple[str, str, int]


@dataclass(slots=True)
class Outcome:
    """`plays_lost`: pairs that never came, of those that the plays must make."""

    joins_leaves: int = 0
    kills: int = 0
    plays: int = 0
    pairs: int = 0
    plays_lost: int = 0
    pairs_doubled: int = 0
    pairs_odd: int = 0
    wrong: list[str] = field(default_factory=list)


def run(
    folder: Path,
    *,
    seed: int,
    changes: int,
    plays: int,
    kafka: bool,
    progress: Progress,
    step_s: tuple[float, float] = STEP_S,
) -> Outcome:
    """Let workers come and go `changes` times, with `plays` plays spread over that time."""
    rng = np.random.default_rng(seed)
    outcome = Outcome()
    with open_rig(folder, titles=20, apache=kafka) as rig:
        topics = rig.settings.kafka
        log = Log(rig.bootstrap, [topics.coplays], topics.partitions)
        made: list[Play] = []
        workers: list[Process] = []
        try:
            with Producer(rig.bootstrap, timeout_s=120.0) as producer:
                for n in range(changes):
                    _change(rig, rng, workers, outcome)
                    share = plays * (n + 1) // changes - len(made)
                    _send(producer, topics.plays, rng, made, share)
                    time.sleep(float(rng.uniform(*step_s)))
                    _check_alive(workers)
                    progress("membership", n + 1, changes, f"{len(workers)} run, {len(made)} plays")
            while len(workers) < 2:
                workers.append(rig.sessions())
            expected = _expected(rig, made)
            _wait_for(log, expected, workers)
            found = _found(log)
            for process in workers:
                process.stop()
        finally:
            log.close()
    lost = expected.keys() - found.keys()
    odd = found.keys() - expected.keys()
    outcome.plays, outcome.pairs = len(made), len(expected)
    outcome.plays_lost, outcome.pairs_odd = len(lost), len(odd)
    outcome.pairs_doubled = sum((found - expected).values()) - sum(found[one] for one in odd)
    if lost:
        outcome.wrong.append(f"{len(lost)} pairs are missing, such as {min(lost)}")
    if odd:
        outcome.wrong.append(f"{len(odd)} pairs were not to be made, such as {min(odd)}")
    return outcome


def _change(rig: Rig, rng: np.random.Generator, workers: list[Process], outcome: Outcome) -> None:
    """One joins or one leaves."""
    outcome.joins_leaves += 1
    if len(workers) < 2 or (len(workers) < AT_MOST and rng.random() < 0.5):
        workers.append(rig.sessions())
        return
    leaver = workers.pop(int(rng.integers(len(workers))))
    if rng.random() < 0.5:
        leaver.signal(signal.SIGTERM)
    else:
        outcome.kills += 1
        leaver.kill()


def _check_alive(workers: list[Process]) -> None:
    for process in workers:
        if (code := process.poll()) is not None:
            raise Fault(f"a sessions worker ended by itself with {code}:\n{process.tail()}")


def _send(
    producer: Producer, topic: str, rng: np.random.Generator, made: list[Play], count: int
) -> None:
    """The next plays, each a second after the last one, so that each has a time of its own."""
    start_ms = int(time.time() * 1000) - 3_600_000 if not made else made[-1].time_ms
    for n in range(count):
        user, title = f"u{rng.integers(USERS)}", f"m{rng.integers(TITLES)}"
        play = Play(user, title, start_ms + (n + 1) * 100)
        made.append(play)
        producer.send(topic, key=user, value=encode(play))
    producer.flush()


def _expected(rig: Rig, made: list[Play]) -> Counter[Pair]:
    """A plain fold of the same plays."""
    rule, recent = pairing_of(rig.settings.sessions), dict[str, Recent]()
    return Counter(
        _key(pair)
        for play in made
        for pair in add_play(recent.setdefault(play.user, Recent(plays=[])), play, rule)
    )


def _found(log: Log) -> Counter[Pair]:
    decode = msgspec.json.Decoder(CoPlay).decode
    return Counter(_key(decode(one.value or b"")) for part in log.entries.values() for one in part)


def _key(pair: CoPlay) -> Pair:
    return pair.a, pair.b, pair.time_ms


def _wait_for(log: Log, expected: Counter[Pair], workers: list[Process]) -> None:
    """Until every pair is there, or none has come for long."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET_S:
        _check_alive(workers)
        log.poll()
        if len(log) != last:
            last, since = len(log), time.monotonic()
            if not expected.keys() - _found(log).keys():
                return
