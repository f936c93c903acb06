"""The demo's driver: predicts each play, sends it, publishes new titles, and keeps the beat.

Every `CHUNK_S` a chunk of plays is due. For each chunk: new titles that are due go to the catalog
topic; the live vectors are read from Redis; the chunk is predicted under them; and only then it is
sent. A backlog at the worker slows the sending, so that a slow machine streams longer, not worse.
"""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from model.quality import recall_at_k
from serve.reader import EmbeddingReader
from streams.bootstrap import entry_of
from streams.demo.plan import previous_plays
from streams.demo.prepare import Prepared
from streams.demo.prequential import Prequential, Vectors
from streams.demo.reader import read_progress
from streams.demo.report import K, Neighbour, nearest
from streams.demo.screen import Frame, Screen
from streams.demo.stage import Stage
from streams.producer import Producer

Int64s = npt.NDArray[np.int64]

CHUNK_S = 0.5
MAX_LAG = 20_000  # co-plays that wait at the worker before the sending pauses
DRAIN_S = 60.0  # longest wait for the last events to become visible
_NONE = np.empty(0, np.bool_)
POISON = (b"not json", b'{"user": 7}', b"\xff\xfe", b"[]")


@dataclass(slots=True)
class Streamed:
    """What the driver saw.

    Attributes:
        started_ms: wall time of the first send, milliseconds since the Unix epoch.
        seconds: from the first send to the last event's end.
        before_play: neighbours of each new title, while nobody had played it, by title number.
        published_ms: wall time at which each new title was sent, by title number.
        live: the vectors, at the end all of them.
        heartbeat: the worker's last one, when all was through.
        cycles_at: cycle number -> seconds since the start at which it was first heard of.
        sent: messages by topic, poison included; of co-plays those that the sessions made.
        plays: what the sessions did with plays: in, applied, dead.
    """

    started_ms: float = 0.0
    seconds: float = 0.0
    before_play: dict[int, list[Neighbour]] = field(default_factory=dict)
    published_ms: dict[int, float] = field(default_factory=dict)
    live: Vectors = field(default_factory=lambda: Vectors(np.empty((0, 0), np.float32), _NONE))
    heartbeat: Mapping[str, Any] = field(default_factory=dict)
    cycles_at: dict[int, float] = field(default_factory=dict)
    cycles: dict[int, dict[str, Any]] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    plays: dict[str, int] = field(default_factory=dict)


class Driver:
    """Streams one plan through one stage."""

    def __init__(self, prepared: Prepared, stage: Stage, screen: Screen, *, rate: float) -> None:
        """Args: rate: plays a second at most."""
        self._prepared, self._stage, self._screen = prepared, stage, screen
        self._chunk = max(1, int(rate * CHUNK_S))
        data = prepared.data
        self._reader = EmbeddingReader(stage.redis)
        self._producer = Producer(stage.bootstrap)
        self._title_of = {title: number for number, title in enumerate(data.titles)}
        self.out = Streamed()
        self._sent_titles = np.zeros(len(data.titles), bool)
        gap_ms = int(stage.settings.sessions.gap_s * 1000)
        self.game = Prequential(
            data.play_users,
            data.play_titles,
            previous_plays(data.play_users, prepared.time_ms, gap_ms),
            prepared.plan.history,
            self.vectors(),
        )
        self._frame = Frame(
            phase="streaming",
            to_send=len(prepared.plan.stream),
            new_all=len(prepared.plan.new_titles),
        )

    def run(self) -> Streamed:
        """Stream everything, and wait until it is all visible.

        Raises:
            ServerFailed: a process of the stage ended.
            ProduceFailed: the broker did not take a message.
        """
        stream = self._prepared.plan.stream
        start = time.monotonic()
        self.out.started_ms = time.time() * 1000
        due, done, next_new = start, 0, 0
        while done < len(stream):
            rows = stream[done : done + self._chunk]
            next_new = self._publish_new(next_new, done + len(rows))
            live = self.vectors()
            self._look_at_new(live)
            self.game.predict(rows, live)
            self._send(rows)
            if done == 0:
                self._send_poison()
            done += len(rows)
            self._frame.sent = done
            due = max(due + CHUNK_S, time.monotonic() - CHUNK_S)
            self._wait(functools.partial(self._may_send, due))
        self._publish_new(next_new, len(stream) + 1)
        self._frame.phase = "waiting for the last ones"
        self._wait(self._through, limit_s=DRAIN_S)
        self.out.seconds = time.monotonic() - start
        self.out.live = self.vectors()
        return self.out

    def vectors(self) -> Vectors:
        """Every title's vector, as Redis has it now."""
        batch = self._reader.get_many(self._prepared.data.titles)
        return Vectors(batch.matrix, batch.found)

    def _publish_new(self, first: int, position: int) -> int:
        """Publish the new titles that are due before `position`; returns the next one's number."""
        plan, data = self._prepared.plan, self._prepared.data
        while first < len(plan.new_titles) and plan.publish_at[first] < position:
            title = int(plan.new_titles[first])
            row = plan.stream[min(int(plan.publish_at[first]), len(plan.stream) - 1)]
            entry = entry_of(data, title, time_ms=int(self._prepared.time_ms[row]))
            self._produce("catalog", data.titles[title], msgspec.json.encode(entry))
            self.out.published_ms[title] = time.time() * 1000
            first += 1
        self._producer.flush()
        self._frame.new_out = first
        return first

    def _look_at_new(self, live: Vectors) -> None:
        """Note the neighbours of new titles that are visible and that nobody has played."""
        data = self._prepared.data
        for title in self.out.published_ms:
            if title in self.out.before_play or self._sent_titles[title] or not live.known[title]:
                continue
            self.out.before_play[title] = nearest(
                title, live.rows_TD, live.known, data.names, data.concepts
            )

    def _send(self, rows: Int64s) -> None:
        data, time_ms = self._prepared.data, self._prepared.time_ms
        for row in rows.tolist():
            user, title = data.users[data.play_users[row]], data.titles[data.play_titles[row]]
            play = {"user": user, "title": title, "time_ms": int(time_ms[row])}
            self._produce("plays", user, msgspec.json.encode(play))
        self._sent_titles[data.play_titles[rows]] = True
        self._producer.poll()

    def _send_poison(self) -> None:
        """A few messages that nobody can read: they must end as dead letters, and harm nothing."""
        for topic in ("plays", "coplays", "catalog"):
            for value in POISON:
                self._produce(topic, "poison", value)

    def _produce(self, topic: str, key: str, value: bytes) -> None:
        name = getattr(self._stage.settings.kafka, topic)
        self._producer.send(name, key=key, value=value)
        self.out.sent[topic] = self.out.sent.get(topic, 0) + 1

    def _may_send(self, due: float) -> bool:
        return time.monotonic() >= due and int(self._frame.worker.get("lag", 0)) <= MAX_LAG

    def _through(self) -> bool:
        """All that was sent has been paired, applied, embedded and published.

        Counted along the way, since a lag of 0 may be a moment old: the plays sent, the pairs made
        of them, and the pairs read.
        """
        sessions = self._stage.sessions_heartbeat()
        self.out.plays = dict(sessions.get("events", {}).get(self._stage.settings.kafka.plays, {}))
        self.out.sent["coplays"] = len(POISON) + int(sessions.get("pairs", 0))
        found = {**self._frame.worker.get("events", {}), "plays": self.out.plays}
        all_in = all(
            found.get(topic, {}).get("in", 0) >= count for topic, count in self.out.sent.items()
        )
        return all_in and bool(self._frame.worker.get("settled"))

    def _wait(self, done: Callable[[], bool], *, limit_s: float = 300.0) -> None:
        """Show frames until `done`, or `limit_s` seconds have passed."""
        end = time.monotonic() + limit_s
        while True:
            self._observe()
            if done() or time.monotonic() > end:
                return
            time.sleep(0.05)

    def _observe(self) -> None:
        stage, frame = self._stage, self._frame
        stage.check()
        frame.worker = stage.heartbeat() or frame.worker
        frame.seconds = time.time() - self.out.started_ms / 1000
        for cycle in frame.worker.get("last_cycles", []):
            self.out.cycles_at.setdefault(cycle["cycle"], frame.seconds)
            self.out.cycles[cycle["cycle"]] = cycle
        progress = read_progress(stage.samples)
        if progress is not None:
            frame.seen = progress.freshness_s
        self.out.heartbeat = frame.worker
        *_, frozen, live = self.game.scored.columns()
        if len(live):
            frame.recall = {
                "frozen": float(recall_at_k(frozen, K).mean()),
                "live": float(recall_at_k(live, K).mean()),
            }
        self._screen.show(frame)
