"""From events and updates to freshness: when did a reader first see what an event had said?

An *event* names one title (catalog) or two (co-play), its event time, and when it was appended to
Kafka. An *update* is what the reader saw in Redis: a title, the newest event time that its
embedding has seen, and the wall time of the look. An event is visible at a title with the first
update from its append on that has seen an event time as late as its own; a co-play is visible once
it is at both. Freshness is that wall time less the append time.

The worker's own histogram has a sample a title and update: of the *oldest* event that it showed
there. `by_title` is the same, seen from outside, so that the two can be compared.

Event times need not come in order. Where a title had seen this event time or a later one before the
event was even appended, its next update counts, and the event is counted as `overtaken`.

Samples are kept in a file of 16-byte little-endian records, so that half a record at its end, which
a kill may leave, is all that is ever lost. Wall and append times are milliseconds since the Unix
epoch, of one machine's clock.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

KINDS = ("catalog", "coplay")
RECORD = np.dtype([("append_ms", "<f8"), ("seconds", "<f4"), ("kind", "<u4")])
_SETTLED_MS = 30_000.0
_REMEMBERED = 32  # updates a title: Kafka's message may come to the reader after the update

Samples = npt.NDArray[np.void]  # of RECORD, shape (N,)


@dataclass(slots=True, eq=False)
class _Event:
    kind: int
    append_ms: float
    missing: int  # titles at which it is not visible yet
    visible_ms: float = 0.0


@dataclass(slots=True)
class _Title:
    updates: deque[tuple[float, int]]  # wall time, event time seen; oldest first
    pending: list[tuple[int, _Event]] = field(default_factory=list)  # event time, event
    last_ms: float = 0.0  # wall time of its last update
    seen_ms: int = -1  # latest event time seen
    seq: int = -1


class Freshness:
    """Matches events with updates, in whichever order they come to the reader."""

    def __init__(self) -> None:
        self.events = [0] * len(KINDS)
        self.overtaken = 0
        self._done: list[tuple[float, float, int]] = []
        self._titles: dict[str, _Title] = {}
        # (title, wall time of the update, kind) -> append time of the oldest event it showed
        self._oldest: dict[tuple[str, float, int], float] = {}
        self._sums = [[0.0, 0] for _ in KINDS]  # seconds and count of what is settled
        self._last_ms = 0.0

    def event(self, kind: int, titles: Sequence[str], time_ms: int, append_ms: float) -> None:
        """An event of `KINDS[kind]` was appended to Kafka."""
        names = set(titles)
        event = _Event(kind, append_ms, len(names))
        overtaken = False
        for name in names:
            title = self._title(name)
            if title.last_ms < append_ms:  # the usual case: nothing to look up
                overtaken |= title.seen_ms >= time_ms
                title.pending.append((time_ms, event))
                continue
            for wall_ms, seen_ms in title.updates:
                if seen_ms < time_ms:
                    continue
                if wall_ms >= append_ms:
                    self._note(name, event, wall_ms)
                    self._visible(event, wall_ms)
                    break
                overtaken = True
            else:
                title.pending.append((time_ms, event))
        self.events[kind] += 1
        self.overtaken += overtaken

    def update(self, name: str, seen_ms: int, wall_ms: float, seq: int = 0) -> bool:
        """A title was seen in Redis; returns whether its `seq` had not gone back."""
        self._last_ms = max(wall_ms, self._last_ms)
        title = self._title(name)
        title.updates.append((wall_ms, seen_ms))
        title.last_ms = wall_ms
        title.seen_ms = max(seen_ms, title.seen_ms)
        if title.pending:
            still = []
            for time_ms, event in title.pending:
                if time_ms <= seen_ms and event.append_ms <= wall_ms:
                    self._note(name, event, wall_ms)
                    self._visible(event, wall_ms)
                else:
                    still.append((time_ms, event))
            title.pending = still
        in_order = seq >= title.seq
        title.seq = max(seq, title.seq)
        return in_order

    def take(self) -> Samples:
        """The samples that are complete, and were not taken before."""
        done, self._done = self._done, []
        return np.array(done, RECORD)

    def by_title(self, *, done: bool = True) -> dict[str, dict[str, float]]:
        """Mean seconds and count of the oldest event of each title and update, by kind.

        Args:
            done: count every update; else only those so old that no event of theirs is to come.
        """
        for key in list(self._oldest):
            if done or key[1] < self._last_ms - _SETTLED_MS:
                _, wall_ms, kind = key
                self._sums[kind][0] += (wall_ms - self._oldest.pop(key)) / 1000
                self._sums[kind][1] += 1
        return {
            kind: {"mean": seconds / count, "count": count}
            for kind, (seconds, count) in zip(KINDS, self._sums, strict=True)
            if count
        }

    def waiting(self) -> list[int]:
        """Events that are not visible yet, by kind."""
        open_events = {
            event for title in self._titles.values() for _, event in title.pending
        }  # a co-play may wait at two titles
        counts = [0] * len(KINDS)
        for event in open_events:
            counts[event.kind] += 1
        return counts

    def _title(self, name: str) -> _Title:
        title = self._titles.get(name)
        if title is None:
            title = self._titles[name] = _Title(deque(maxlen=_REMEMBERED))
        return title

    def _note(self, name: str, event: _Event, wall_ms: float) -> None:
        key = name, wall_ms, event.kind
        self._oldest[key] = min(event.append_ms, self._oldest.get(key, event.append_ms))

    def _visible(self, event: _Event, wall_ms: float) -> None:
        event.missing -= 1
        event.visible_ms = max(event.visible_ms, wall_ms)
        if not event.missing:
            seconds = (event.visible_ms - event.append_ms) / 1000
            self._done.append((event.append_ms, seconds, event.kind))


def read_samples(file: Path) -> Samples:
    """The samples of a file, in the order in which they were complete, shape (N,); see `RECORD`."""
    if not file.exists():
        return np.empty(0, RECORD)
    raw = file.read_bytes()
    return np.frombuffer(raw[: len(raw) // RECORD.itemsize * RECORD.itemsize], RECORD)


def percentiles(seconds: npt.NDArray[np.floating]) -> dict[str, float]:
    """p50, p90, p99 and the worst of some samples; empty where there is none."""
    if not len(seconds):
        return {}
    found = np.percentile(seconds, (50, 90, 99, 100))
    return {
        name: round(float(value), 4)
        for name, value in zip(("p50", "p90", "p99", "max"), found, strict=True)
    }


def by_kind(samples: Samples) -> dict[str, dict[str, float]]:
    """`percentiles` and `count` of each kind that has samples, seconds."""
    summary = {}
    for number, kind in enumerate(KINDS):
        seconds = samples["seconds"][samples["kind"] == number]
        if len(seconds):
            summary[kind] = {**percentiles(seconds), "count": len(seconds)}
    return summary
