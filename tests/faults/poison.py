"""Bad messages among good ones: each is set aside with its reason, and every good one acts.

A tenth of what comes is poison, of every kind below in turn; the worker is killed once in the
middle of it. Then some of it is mended, as an operator would: two settings are changed, and the
dead letters that they concern are sent again with `upwell dead-letters redrive`, twice. The second
time must send nothing, and the state must be the fold of the whole log, with what was sent again.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import confluent_kafka
import numpy as np

from streams.dead_letters import Dead, read_dead
from streams.events import CatalogEntry, CoPlay, encode
from tests.faults.feed import Progress
from tests.faults.kills import wait_read
from tests.faults.oracle import Fold, Log, compare, compare_published
from tests.faults.rig import DIRECTORS, GENRES, Fault, Rig, open_rig, title_of

TITLES = 100
SHARE = 10  # one message in so many is poison
AHEAD_MS = 5 * 86_400_000
FIX = {"UPWELL_KAFKA__MAX_SKEW_S": "864000", "UPWELL_GRAPH__UNKNOWN_RELATIONS": "accept"}

Headers = list[tuple[str, bytes]]
Made = tuple[bytes | None, bytes | None, Headers | None]


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to be bad.

    Attributes:
        make: from the time now to key, value and headers.
        reason: what the dead letter must say.
        mended: it is good under the changed settings.
    """

    name: str
    topic: str
    make: Callable[[int], Made]
    reason: str
    mended: bool = False


def _raw(value: bytes | None, headers: Headers | None = None) -> Callable[[int], Made]:
    return lambda now_ms: (b"m1", value, headers)


def _coplay(**fields: Any) -> Callable[[int], Made]:
    def make(now_ms: int) -> Made:
        event = {"a": "m1", "b": "m2", "time_ms": now_ms, "weight": 1.0, **fields}
        return b"m1", json.dumps({k: v for k, v in event.items() if v is not None}).encode(), None

    return make


def _ahead(now_ms: int) -> Made:
    return b"m1", encode(CoPlay("m1", "m2", now_ms + AHEAD_MS, 3.0)), None


def _entry(key: bytes | None = b"m3", **fields: Any) -> Callable[[int], Made]:
    def make(now_ms: int) -> Made:
        event = {"title": "m3", "time_ms": now_ms, "concepts": {"genre": ["g1"]}, **fields}
        return key, json.dumps(event).encode(), None

    return make


ARROW = [("content-type", b"application/vnd.apache.arrow.stream")]
WELL = b'{"a": "m1", "b": "m2", "time_ms": 1}'

KINDS = (
    Kind("cut short", "coplays", _raw(WELL[:-5]), "truncated"),
    Kind("not JSON", "coplays", _raw(b"<play a='m1' b='m2'/>"), "malformed"),
    Kind("empty", "coplays", _raw(b""), "empty value"),
    Kind("null value", "coplays", _raw(None), "no value"),
    Kind("a list", "coplays", _raw(b"[1, 2]"), "Expected `object`, got `array`"),
    Kind("a number as title", "coplays", _coplay(a=7), "Expected `str`, got `int` - at `$.a`"),
    Kind("a title missing", "coplays", _coplay(b=None), "missing required field `b`"),
    Kind("a huge title", "coplays", _coplay(a="x" * 100_000), "length <= 256 - at `$.a`"),
    Kind("an empty title", "coplays", _coplay(b=""), "length >= 1 - at `$.b`"),
    Kind("deep", "coplays", _raw(b'{"x": ' + b"[" * 50_000), "recursion"),
    Kind("NaN", "coplays", _raw(WELL.replace(b"1}", b'1, "weight": NaN}')), "malformed"),
    Kind("infinite", "coplays", _raw(WELL.replace(b"1}", b'1, "weight": 1e999}')), "out of range"),
    Kind("a weight below 0", "coplays", _coplay(weight=-2.0), ">= 1e-06 - at `$.weight`"),
    Kind("a weight beyond all", "coplays", _coplay(weight=1e30), "<= 1000000.0 - at `$.weight`"),
    Kind("UTF-16", "coplays", _raw(WELL.decode().encode("utf-16")), "malformed"),
    Kind("Latin-1", "coplays", _raw(WELL.replace(b"m2", b"caf\xe9")), "not UTF-8"),
    Kind("half a surrogate", "coplays", _raw(WELL.replace(b"m2", b"\\ud800")), "surrogate"),
    Kind("a control character", "coplays", _coplay(b="m\u0007"), "b has the control character"),
    Kind("with itself", "coplays", _coplay(b="m1"), "no pair"),
    Kind("before all times", "coplays", _coplay(time_ms=-1), ">= 0 - at `$.time_ms`"),
    Kind("from the future", "coplays", _ahead, "after the append", mended=True),
    Kind("beyond all times", "coplays", _coplay(time_ms=10**17), "<= 253402300799999"),
    Kind("no Arrow stream", "coplays", _raw(WELL, ARROW), "Arrow"),
    Kind("no key", "catalog", _entry(key=None), "no key"),
    Kind("neither key nor value", "catalog", lambda now_ms: (None, None, None), "no key"),
    Kind("a key of bytes", "catalog", _entry(key=b"\xff\xfe"), "not UTF-8"),
    Kind("under another key", "catalog", _entry(key=b"m4"), "is not the title"),
    Kind("concepts as a list", "catalog", _entry(concepts=["g1"]), "got `array` - at `$.concepts`"),
    Kind("a reserved relation", "catalog", _entry(concepts={"coplay": ["m1"]}), "reserved"),
    Kind("a relation's odd name", "catalog", _entry(concepts={"a b": ["x"]}), "regex"),
    Kind("too many concepts", "catalog", _entry(concepts={"genre": list("x" * 2000)}), "<= 1024"),
    Kind(
        "an unknown relation",
        "catalog",
        lambda now_ms: _entry(key=b"m5", title="m5", concepts={"mood": ["dark"]})(now_ms),
        "relation 'mood' is unknown",
        mended=True,
    ),
)


@dataclass(slots=True)
class Outcome:
    """`missed`: poison that is in no dead letter, or with a wrong reason, or not as it came."""

    kinds: int = 0
    good: int = 0
    poison: int = 0
    missed: int = 0
    good_set_aside: int = 0
    lost: float = 0.0
    doubled: float = 0.0
    redriven: int = 0
    redriven_twice: int = 0
    wrong: list[str] = field(default_factory=list)


class _Sender:
    """Sends good and bad, and knows where the bad ones came to stand."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.kafka = rig.settings.kafka
        self.poison: dict[tuple[str, int, int], tuple[Kind, Made]] = {}
        self.sent = 0
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": rig.bootstrap,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 2,
                "log_level": 0,
            }
        )

    def send(self, messages: int) -> None:
        """So many messages, every tenth of them poison, and wait for their delivery."""
        topics = {"coplays": self.kafka.coplays, "catalog": self.kafka.catalog}
        turn = 0
        for n in range(messages):
            now_ms = int(time.time() * 1000)
            if n % SHARE == SHARE - 1:
                kind = KINDS[turn % len(KINDS)]
                turn += 1
                made = kind.make(now_ms)
                self._produce(topics[kind.topic], made, kind)
            elif n % 50 == 0:
                self._produce(topics["catalog"], self._good_entry(now_ms), None)
            else:
                a = int(self.rng.integers(TITLES - 1))
                pair = CoPlay(title_of(a), title_of(a + 1), now_ms, float(self.rng.integers(1, 9)))
                self._produce(topics["coplays"], (pair.a.encode(), encode(pair), None), None)
            if n % 500 == 0:
                self._producer.flush()
        if self._producer.flush(60.0):
            raise Fault("the broker does not take what is sent")

    def _good_entry(self, now_ms: int) -> Made:
        title = title_of(int(self.rng.integers(TITLES)))
        concepts = {
            "genre": [f"g{self.rng.integers(GENRES)}"],
            "director": [f"d{self.rng.integers(DIRECTORS)}"],
        }
        return title.encode(), encode(CatalogEntry(title, now_ms, concepts)), None

    def _produce(self, topic: str, made: Made, kind: Kind | None) -> None:
        key, value, headers = made

        def delivered(error: Any, message: Any) -> None:
            if error is not None:
                raise Fault(f"not delivered: {error}")
            if kind is not None:
                self.poison[topic, message.partition(), message.offset()] = kind, made

        self._producer.produce(topic, value, key, headers=headers, on_delivery=delivered)
        self._producer.poll(0)
        self.sent += 1


def run(folder: Path, *, seed: int, messages: int, kafka: bool, progress: Progress) -> Outcome:
    """Send `messages`, a tenth of them poison, to a worker that is killed once."""
    outcome = Outcome(kinds=len(KINDS))
    sections = {"graph": {"unknown_relations": "refuse"}}
    with open_rig(folder, titles=TITLES, apache=kafka, **sections) as rig:
        topics = rig.settings.kafka
        log = Log(rig.bootstrap, [topics.coplays, topics.catalog], topics.partitions)
        fold = Fold(log, topics.coplays, TITLES)
        sender = _Sender(rig, seed)
        try:
            first = rig.worker()
            rig.wait_live(first)
            sender.send(messages // 2)
            first.kill()
            second = rig.worker()
            sender.send(messages - messages // 2)
            progress("poison", 1, 3, f"{sender.sent} sent, {len(sender.poison)} of them poison")
            log.read(sender.sent)
            wait_read(rig, log)
            second.stop()
            _check_dead(rig, sender, outcome)
            progress("poison", 2, 3, f"{outcome.missed} missed")

            again = _redrive(rig)
            outcome.redriven, outcome.redriven_twice = again, _redrive(rig)
            mended = sum(kind.mended for kind, _ in sender.poison.values())
            if again != mended:
                outcome.wrong.append(f"{again} dead letters were sent again, not {mended}")
            third = rig.worker(**FIX)
            log.read(sender.sent + again)
            wait_read(rig, log)
            rig.wait_settled(third, 0)
            third.stop()
            fold.poison = set(sender.poison)
            state = rig.load().state
            fold.advance(state.positions)
            found = compare(state, fold)
            outcome.lost, outcome.doubled = found.lost, found.doubled
            published = compare_published(rig.client, rig.settings.redis.space, fold, None)
            outcome.wrong += [*([str(found)] if found else []), *published[:5]]
            outcome.good, outcome.poison = fold.events - again, len(sender.poison)
            progress("poison", 3, 3, f"{again} sent again")
        finally:
            log.close()
    return outcome


def _check_dead(rig: Rig, sender: _Sender, outcome: Outcome) -> None:
    """Each bad message in a dead letter, as it came and with its reason; no good one."""
    kafka = rig.settings.kafka
    letters = {
        (topic, *map(int, one.source.split(":"))): one
        for topic in (kafka.coplays, kafka.catalog)
        for one in read_dead(rig.bootstrap, topic)
    }
    missed: Counter[str] = Counter()
    for where, (kind, made) in sender.poison.items():
        if why := _differs(letters.get(where), kind, made):
            outcome.missed += 1
            missed[f"{kind.name}: {why}"] += 1
    good = letters.keys() - sender.poison.keys()
    outcome.good_set_aside = len(good)
    outcome.wrong += [f"{why} ({count} times)" for why, count in missed.most_common(20)]
    outcome.wrong += [f"good, and set aside: {letters[one].reason}" for one in sorted(good)[:3]]


def _differs(letter: Dead | None, kind: Kind, made: Made) -> str:
    if letter is None:
        return "in no dead letter"
    if kind.reason not in letter.reason:
        return f"its reason is {letter.reason!r}, want {kind.reason!r}"
    if (letter.key, letter.value, letter.headers or None) != made:
        return "it is not as it came"
    return ""


def _redrive(rig: Rig) -> int:
    """Send again what the new settings mend, by the command that an operator has."""
    kafka, sent = rig.settings.kafka, 0
    for topic, reason in ((kafka.coplays, "after the append"), (kafka.catalog, "is unknown")):
        told = rig.command("dead-letters", "redrive", topic, "--reason", reason)
        sent += int(told.split()[0])
    return sent
