"""The demo's outside reader: a process of its own, which sees of Upwell only Kafka and Redis.

    python -m streams.demo.reader --redis URL --bootstrap HOST:PORT --out FILE

It follows the space's stream of updates, reads each title's hash back, and notes when it saw which
event time; and it reads the topics `coplays` and `catalog`, for when each event was appended. What
it makes of both stands in streams/demo/freshness.py. It begins with what comes after its start, so
start the traffic once FILE.json is there. SIGTERM ends it, after a last look.

    FILE       samples, for `read_samples`
    FILE.json  `Progress`, replaced about once a second, and at the end
"""

import argparse
import json
import logging
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from serve.connection import RedisFailed, call, call_all, connect
from serve.vectors import CURRENT, DTYPE, meta_key, title_key, updates_key
from streams.demo.freshness import KINDS, RECORD, Freshness, by_kind

log = logging.getLogger(__name__)

BLOCK_MS = 50  # longest wait for updates
PAUSE_S = 0.01  # between two looks: it makes samples later by so much at most, and the CPU idle
CHUNK = 1000  # titles read back in one round trip
SUMMARY_S = 1.0
_NEVER_READ = (KafkaException, RedisFailed)


class CoPlay(msgspec.Struct):
    """What the reader needs of a co-play."""

    a: str
    b: str
    time_ms: int


class CatalogEntry(msgspec.Struct):
    """What the reader needs of a catalog event."""

    title: str
    time_ms: int


_coplay = msgspec.json.Decoder(CoPlay)
_catalog = msgspec.json.Decoder(CatalogEntry)


@dataclass(slots=True)
class Progress:
    """What the reader has seen so far.

    Attributes:
        freshness_s: p50, p90, p99, max and count by kind, of all samples so far, seconds.
        recent_s: the same of the samples since the last summary.
        by_title_s: mean and count of the oldest event of each title and update, by kind, seconds:
            what the worker's histogram has, seen from outside.
        events: read from Kafka, by kind.
        waiting: of them not visible yet, by kind; at the end: never visible.
        overtaken: events whose title had seen as late an event time before (freshness.py).
        updates: entries of the updates stream.
        reads: hashes that were read back; a title that stands twice in one look is read once.
        torn: vectors of a wrong length, or not finite: must be 0.
        seq_regressions: hashes with an older `seq` than the one before: must be 0.
        gone: titles that were retired.
        unreadable: messages that the reader could not decode.
        cpu_s: CPU time of the reader, seconds.
        done: whether it has ended.
    """

    freshness_s: dict[str, dict[str, float]] = field(default_factory=dict)
    recent_s: dict[str, dict[str, float]] = field(default_factory=dict)
    by_title_s: dict[str, dict[str, float]] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    overtaken: int = 0
    updates: int = 0
    reads: int = 0
    torn: int = 0
    seq_regressions: int = 0
    gone: int = 0
    unreadable: int = 0
    cpu_s: float = 0.0
    done: bool = False


def read_progress(out: Path) -> Progress | None:
    """The last summary beside the samples' file, or None before the reader is ready."""
    try:
        return msgspec.json.decode(summary_file(out).read_bytes(), type=Progress)
    except FileNotFoundError:
        return None


def summary_file(out: Path) -> Path:
    return out.with_name(out.name + ".json")


class Embeddings:
    """The updates of one space, followed from now on."""

    def __init__(self, client: Any, space: str, progress: Progress) -> None:
        self._client, self._space, self._progress = client, space, progress
        self._stream = updates_key(space)
        newest = call(client, "XREVRANGE", self._stream, "+", "-", "COUNT", 1)
        self._last = newest[0][0] if newest else b"0-0"
        self._dim = int(call(client, "HGET", meta_key(space), "dim"))

    def look(self, freshness: Freshness, *, wait: bool) -> None:
        """Take what is new, waiting up to `BLOCK_MS` for it."""
        block = ("BLOCK", BLOCK_MS) if wait else ()
        streams = ("STREAMS", self._stream, self._last)
        found = call(self._client, "XREAD", "COUNT", 10 * CHUNK, *block, *streams)
        if not found:
            return
        entries = found[0][1]
        titles = list(dict.fromkeys(fields[b"title"].decode() for _, fields in entries))
        chunks = [titles[start : start + CHUNK] for start in range(0, len(titles), CHUNK)]
        read = [(chunk, self._read_back(chunk), time.time() * 1000) for chunk in chunks]
        # Not before all are here: after a failure, the next look begins at the same entry.
        self._last = entries[-1][0]
        self._progress.updates += len(entries)
        for chunk, rows, wall_ms in read:
            self._note(chunk, rows, wall_ms, freshness)

    def _read_back(self, names: list[str]) -> list[tuple[Any, ...]]:
        fields = ("vec", "seq", "time_ms")
        return call_all(
            self._client, [("HMGET", title_key(self._space, name), *fields) for name in names]
        )

    def _note(
        self, names: list[str], rows: list[tuple[Any, ...]], wall_ms: float, freshness: Freshness
    ) -> None:
        progress = self._progress
        progress.reads += len(rows)
        vectors = []
        for name, (vector, seq, time_ms) in zip(names, rows, strict=True):
            if vector is None:
                progress.gone += 1
                continue
            vectors.append(vector)
            if not freshness.update(name, int(time_ms), wall_ms, int(seq)):
                progress.seq_regressions += 1
        whole = [vector for vector in vectors if len(vector) == self._dim * DTYPE.itemsize]
        values = np.frombuffer(b"".join(whole), DTYPE).reshape(len(whole), self._dim)
        progress.torn += len(vectors) - int(np.isfinite(values).all(1).sum())


class Events:
    """The events of some topics, followed from now on; a topic that comes later, from its start."""

    def __init__(self, bootstrap: str, kinds: dict[str, int], timeout_s: float) -> None:
        """Begin at the end of each topic that is there.

        Args:
            kinds: index into `KINDS` by topic.
            timeout_s: then an unreachable broker is an error.
        """
        self._kinds = kinds
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "upwell-demo-reader",  # never joined: we assign
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.min.bytes": 100_000,
                "fetch.wait.max.ms": 100,
                "log_level": 3,
            }
        )
        self._assigned: dict[str, list[TopicPartition]] = {}
        self._look_again = time.monotonic()
        self._find_topics(timeout_s, at_end=True)

    def look(self, freshness: Freshness) -> int:
        """Take what is new, without waiting; returns how many messages could not be read."""
        if len(self._assigned) < len(self._kinds) and time.monotonic() > self._look_again:
            self._look_again = time.monotonic() + 1.0
            self._find_topics(2.0, at_end=False)
        return sum(
            not self._note(message, freshness)
            for message in self._consumer.consume(10_000, timeout=0)
        )

    def close(self) -> None:
        self._consumer.close()

    def _find_topics(self, timeout_s: float, *, at_end: bool) -> None:
        there = self._consumer.list_topics(timeout=timeout_s).topics
        for topic in self._kinds.keys() - self._assigned.keys():
            if topic not in there or there[topic].error is not None:
                continue
            self._assigned[topic] = [
                TopicPartition(
                    topic, number, self._start(topic, number, timeout_s) if at_end else 0
                )
                for number in there[topic].partitions
            ]
            self._consumer.incremental_assign(self._assigned[topic])

    def _start(self, topic: str, number: int, timeout_s: float) -> int:
        _, high = self._consumer.get_watermark_offsets(
            TopicPartition(topic, number), timeout=timeout_s
        )
        return int(high)

    def _note(self, message: Message, freshness: Freshness) -> bool:
        if message.error() is not None:
            raise KafkaException(message.error())
        value = message.value()
        if value is None:  # a retirement carries no event time
            return True
        kind = self._kinds[message.topic() or ""]
        titles: tuple[str, ...]
        try:
            if KINDS[kind] == "catalog":
                entry = _catalog.decode(value)
                titles, time_ms = (entry.title,), entry.time_ms
            else:
                pair = _coplay.decode(value)
                titles, time_ms = (pair.a, pair.b), pair.time_ms
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        freshness.event(kind, titles, time_ms, message.timestamp()[1])
        return True


class Journal:
    """What the reader writes: samples as they come, and a summary now and then."""

    def __init__(self, out: Path, freshness: Freshness, progress: Progress) -> None:
        self._out, self._freshness, self._progress = out, freshness, progress
        self._file: BinaryIO = out.open("wb")
        self._all = np.empty(1024, RECORD)  # grows by doubling
        self._count = self._told = 0

    def note(self) -> None:
        """Write the samples that are new."""
        new = self._freshness.take()
        if not len(new):
            return
        self._file.write(new.tobytes())
        self._file.flush()
        need = self._count + len(new)
        if need > len(self._all):
            self._all = np.resize(self._all, max(need, 2 * len(self._all)))
        self._all[self._count : need] = new
        self._count = need

    def summarise(self, *, done: bool = False) -> None:
        """Replace the summary."""
        progress, freshness = self._progress, self._freshness
        progress.freshness_s = by_kind(self._all[: self._count])
        progress.recent_s = by_kind(self._all[self._told : self._count])
        self._told = self._count
        progress.by_title_s = freshness.by_title(done=done)
        progress.events = dict(zip(KINDS, freshness.events, strict=True))
        progress.waiting = dict(zip(KINDS, freshness.waiting(), strict=True))
        progress.overtaken = freshness.overtaken
        progress.cpu_s = round(time.process_time(), 3)
        progress.done = done
        path = summary_file(self._out)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(progress)))
        part.replace(path)

    def close(self) -> None:
        self._file.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Follow until SIGTERM; exit code 1 where Kafka or Redis is not reached at the start."""
    parser = argparse.ArgumentParser(prog="python -m streams.demo.reader", description=__doc__)
    parser.add_argument("--redis", required=True, help="redis://HOST:PORT/DB")
    parser.add_argument("--bootstrap", required=True, help="HOST:PORT of the broker")
    parser.add_argument("--out", required=True, type=Path, help="file for the samples")
    parser.add_argument("--space", help="embedding space; default: the live one, once there is one")
    parser.add_argument("--coplays", default="coplays", help="topic of co-plays")
    parser.add_argument("--catalog", default="catalog", help="topic of catalog events")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait at the start")
    options = parser.parse_args(arguments)
    progress, freshness = Progress(), Freshness()
    try:
        client = connect(options.redis, startup_timeout_s=options.timeout)
        space = _space(client, options.space, options.timeout)
        embeddings = Embeddings(client, space, progress)
        topics = {options.catalog: KINDS.index("catalog"), options.coplays: KINDS.index("coplay")}
        events = Events(options.bootstrap, topics, options.timeout)
    except _NEVER_READ as error:
        sys.stderr.write(f"reader: {error} (Kafka: {options.bootstrap})\n")
        return 1
    journal = Journal(options.out, freshness, progress)
    try:
        _follow(embeddings, events, freshness, journal, progress, _Stop())
    finally:
        journal.note()
        journal.summarise(done=True)
        journal.close()
        events.close()
        client.close()
    return 0


def _follow(
    embeddings: Embeddings,
    events: Events,
    freshness: Freshness,
    journal: Journal,
    progress: Progress,
    stop: "_Stop",
) -> None:
    journal.summarise()  # its file says that we are ready
    due = time.monotonic() + SUMMARY_S
    while True:
        last = stop.asked  # asked for before this look: it is the last one
        try:
            embeddings.look(freshness, wait=not last)
            progress.unreadable += events.look(freshness)
        except _NEVER_READ as error:
            log.warning("%s; looking again", error)
            time.sleep(0.2)
        journal.note()
        if last:
            return
        if time.monotonic() > due:
            journal.summarise()
            due = time.monotonic() + SUMMARY_S
        time.sleep(PAUSE_S)


def _space(client: Any, named: str | None, timeout_s: float) -> str:
    """The space to follow, once it has a `meta`."""
    deadline = time.monotonic() + timeout_s
    while True:
        space: str = named or (call(client, "GET", CURRENT) or b"").decode()
        if space and call(client, "HEXISTS", meta_key(space), "dim"):
            return space
        if time.monotonic() > deadline:
            raise RedisFailed(
                f"no embeddings within {timeout_s:g} s: {CURRENT} names none; is a worker running?"
            )
        time.sleep(0.05)


class _Stop:
    """Whether SIGTERM or Ctrl-C came."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self.asked = True


if __name__ == "__main__":
    raise SystemExit(main())
