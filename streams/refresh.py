"""The refresh lane: dirty titles are re-embedded with today's weights and published; no training.

A tick comes every `interval_s`, and at once for a catalog event. New weights, which the training
lane hands over, are taken between two ticks; all their vectors then follow behind those of dirty
titles, a slice a tick, so that they never make a new title wait. The same slices fill a Redis that
is new, was flushed, or lost its last writes. Behind them, what stands in Redis is looked through, a
lot a tick: a title that is none of the graph was retired, and an older copy brought it back.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.inference import Embedder
from serve.connection import RedisFailed, SpaceLost
from serve.publisher import Publisher
from streams import failpoints
from streams.dirty import CLEAN, Taken
from streams.metrics import KINDS, STAGES, Metrics
from streams.settings import RefreshSettings
from streams.state import State
from streams.traces import Step, Traces

log = logging.getLogger(__name__)

Int32s = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

SLICE = 2048  # vectors of a full refresh that follow in one tick
CHECK_S = 2.0  # how often an idle lane asks whether Redis still holds what we wrote
BACKOFF_S = (0.1, 5.0)  # first and longest pause after Redis failed


@dataclass(frozen=True, slots=True)
class _Parcel:
    """T titles as they stand at one moment, to be published: a title may be retired right after.

    `vectors_TD` is shape (T, D); `seen_ms`, the newest event time of each, shape (T,).
    """

    keys: list[str]
    vectors_TD: Floats
    names: list[str | None]
    seen_ms: npt.NDArray[np.int64]
    seq: int


class RefreshLane:
    """Owns the embedder in force and the publisher; one thread runs `run`."""

    def __init__(
        self,
        state: State,
        embedder: Embedder,
        publisher: Publisher,
        metrics: Metrics,
        settings: RefreshSettings,
        *,
        step: int,
        index: bool = False,
        on_switch: Callable[[], None] = lambda: None,
    ) -> None:
        """Start with an embedder that is complete for the graph as it is.

        Args:
            step: of its weights.
            index: keep a search index beside the space, where the server has one.
            on_switch: called once the space is filled and live.
        """
        self._state, self._publisher = state, publisher
        self._metrics, self._settings = metrics, settings
        self._index, self._on_switch = index, on_switch
        self.embedder, self.step = embedder, step
        self._handover: tuple[Embedder, int] | None = None
        self._backlog = np.empty(0, np.int32)  # titles of a full refresh not yet published
        self._in_flight, self._in_flight_ms = False, CLEAN
        self._filling = False  # the backlog fills the space: note it when it is through
        self._standing: Iterator[list[str]] | None = None  # what Redis holds, to be looked through
        self._moved: list[tuple[Int32s, Int32s]] | None = None
        self._freed: list[Int32s] = []
        self._wake, self._stop = threading.Event(), threading.Event()
        self._lost, self._checked = False, time.monotonic()
        self.last_error: str | None = None
        self.turned_s = time.monotonic()  # when its thread last took a turn
        self.traces: Traces | None = None
        self.full_refreshes = 0

    def wake(self) -> None:
        """A catalog event came in: tick now."""
        self._wake.set()

    def begin_handover(self) -> Floats:
        """Before new weights embed a copy of the graph: note what moves from now on.

        Returns:
            The last vector of each title by dense id, zeros where there is none, shape (T, D).
        """
        with self._state.lock:
            self._moved = []
            every = np.arange(self._state.graph.num_nodes("title"), dtype=np.int32)
            return self.embedder.vectors(every)

    def hand_over(self, embedder: Embedder, step: int) -> None:
        """Take new weights from the next tick on.

        Args:
            embedder: complete for the graph as it was after `begin_handover`.
            step: gradient steps that made its weights.
        """
        with self._state.lock:
            self._handover = embedder, step
        self._wake.set()

    def abandon_handover(self) -> None:
        """The new weights were refused."""
        with self._state.lock:
            self._moved, self._freed = None, []

    @property
    def settled(self) -> bool:
        """Whether nothing waits to be published."""
        with self._state.lock:
            waiting = len(self._state.dirty) or len(self._backlog) or self._state.retired
            ours = self._handover or self._filling or self._lost or self._in_flight
            return not (waiting or ours or self.last_error)

    def oldest_ms(self) -> int:
        """Append time of the oldest event that readers cannot see yet; `CLEAN` if none."""
        with self._state.lock:
            return min(self._state.dirty.oldest_ms(), self._in_flight_ms)

    @property
    def filled(self) -> bool:
        """Whether the space holds every title, and is live."""
        return not (self._filling or self._lost)

    def open_space(self) -> None:
        """Make the space in Redis, or take up the one that stands, and publish every title."""
        relations = [relation.name for relation in self._state.graph.relations]
        dim = self.embedder.model.config.dim
        self._publisher.create_space(dim, self.step, relations, index=self._index)
        with self._state.lock:
            self._state.seq = max(self._state.seq, self._publisher.last_seq())
            self._backlog = self._state.graph.ids["title"].live_ids()
            self._filling = True

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Tick until stopped. While Redis fails, titles stay dirty and are tried again."""
        pause, due = BACKOFF_S[0], time.monotonic()
        while not self._stop.is_set():
            self.turned_s = time.monotonic()
            self._wake.wait(max(0.0, due - time.monotonic()))
            self._wake.clear()
            due = time.monotonic() + self._settings.interval_s
            try:
                self._reopen_if_lost()
                self.tick()
            except RedisFailed as error:
                self._failed(error)
                self._lost = self._lost or isinstance(error, SpaceLost)
                self._stop.wait(pause)
                pause = min(2 * pause, BACKOFF_S[1])
            else:
                if self.last_error is not None:
                    log.warning("publishing again")
                self.last_error, pause = None, BACKOFF_S[0]

    def tick(self) -> int:
        """Publish what is dirty and one slice of the backlog; return how many vectors.

        Raises:
            RedisFailed: titles that were not published are as dirty as before.
        """
        start, begun_s = time.perf_counter(), time.time()
        state = self._state
        with state.lock:
            self._adopt()
            self._forget(state.take_freed("embedder"))
            taken = state.dirty.take(self._settings.max_titles)
            concepts = state.take_concepts()
            self._refresh(taken.titles, concepts)
            parcel = self._pack(taken.titles) if len(taken) else None
            embedded_ms = int(time.time() * 1000)
            retired = dict(state.retired)  # they stay there until Redis has it: see a checkpoint
            self._in_flight = True
            self._in_flight_ms = taken.oldest_ms()
        failpoints.reach("refresh.taken")
        written = stale = 0
        try:
            if parcel is not None:
                written, stale = self._publish(parcel)
            self._retire(retired)
        except BaseException:
            with state.lock:
                state.dirty.put_back(taken.keep(state.graph.ids["title"].is_live(taken.titles)))
            raise
        finally:
            self._in_flight, self._in_flight_ms = False, CLEAN
        self._observe(taken, embedded_ms)
        if self.traces is not None and len(taken):
            embedded_s = embedded_ms / 1000
            steps = Step("embed", begun_s, embedded_s), Step("publish", embedded_s, time.time())
            self.traces.refresh(len(taken), steps)
        self._metrics.dirty(len(state.dirty))
        more = self._publish_slice()
        self._sweep()
        if written or more:
            self._metrics.published(written + more, stale, time.perf_counter() - start)
        return written + more

    def _adopt(self) -> None:
        """Swap in the weights that were handed over, and bring them up to the graph as it is."""
        if self._handover is None:
            return
        (self.embedder, self.step), self._handover = self._handover, None
        moved, self._moved = self._moved or [], None
        self.embedder.forget(np.concatenate([np.empty(0, np.int32), *self._freed]))
        self._freed = []
        live = self._state.graph.ids["title"].live_ids()
        if moved:
            titles, concepts = (
                np.unique(np.concatenate(part)) for part in zip(*moved, strict=True)
            )
            titles = np.intersect1d(titles, live).astype(np.int32)
            self.embedder.refresh(self._state.graph, titles, concepts)
        self._backlog = live
        self.full_refreshes += 1
        self._metrics.refreshed_all()

    def _forget(self, freed: Int32s) -> None:
        """Retired titles' slots are empty, also under the weights that may come."""
        self.embedder.forget(freed)
        if self._moved is not None:
            self._freed.append(freed)

    def _refresh(self, titles: Int32s, concepts: Int32s) -> None:
        if not (len(titles) or len(concepts)):
            return
        self.embedder.refresh(self._state.graph, titles, concepts)
        if self._moved is not None:
            self._moved.append((titles, concepts))

    def _pack(self, titles: Int32s) -> _Parcel:
        """All that is published of live `titles`; to be called under the lock that found them."""
        state = self._state
        keys = state.graph.ids["title"].names(titles)
        return _Parcel(
            keys,
            self.embedder.vectors(titles),
            state.catalog.names_of(keys),
            state.dirty.seen_ms(titles),
            state.next_seq(),
        )

    def _publish(self, parcel: _Parcel, *, everything: bool = False) -> tuple[int, int]:
        failpoints.reach("publish.before")
        report = self._publisher.publish(
            parcel.keys,
            parcel.vectors_TD,
            seq=parcel.seq,
            step=self.step,
            time_ms=parcel.seen_ms,
            names=parcel.names,
            everything=everything,
        )
        failpoints.reach("publish.after")
        return report.written, report.stale

    def _publish_slice(self) -> int:
        with self._state.lock:
            live = self._state.graph.ids["title"].live_ids()
            batch = np.intersect1d(self._backlog[:SLICE], live)  # some may be retired by now
            parcel = self._pack(batch) if len(batch) else None
            rest = self._backlog[SLICE:]
        written = 0 if parcel is None else self._publish(parcel, everything=True)[0]
        self._backlog = rest  # only now: what failed is tried again
        if self._filling and not len(rest):
            self._publisher.switch()
            self._filling = False
            self._standing = self._publisher.standing()
            self._on_switch()
        return written

    def _retire(self, retired: dict[str, int]) -> None:
        """Take titles out of Redis, and off the list of those to be taken out."""
        if not retired:
            return
        with self._state.lock:
            seq = self._state.next_seq()
        failpoints.reach("retire.before")
        self._publisher.retire(list(retired), seq=seq, time_ms=max(retired.values()))
        failpoints.reach("retire.after")
        with self._state.lock:
            for title, time_ms in retired.items():
                if self._state.retired.get(title) == time_ms:  # else it came, and went, meanwhile
                    del self._state.retired[title]

    def _sweep(self) -> None:
        """Take out of one lot of what stands in Redis all that is no title of the graph."""
        if self._standing is None:
            return
        try:
            titles = next(self._standing, None)
        except RedisFailed:
            self._standing = self._publisher.standing()
            raise
        if titles is None:
            self._standing = None
            return
        with self._state.lock:
            found = self._state.graph.ids["title"].find(titles)
            strays = [title for title, row in zip(titles, found.tolist(), strict=True) if row < 0]
            seq = self._state.next_seq() if strays else 0
        if strays:
            log.warning("%d titles of an older copy of Redis are taken out again", len(strays))
            self._publisher.retire(strays, seq=seq, time_ms=int(time.time() * 1000))

    def open_later(self, error: RedisFailed) -> None:
        """Have `run` open the space, since that has failed."""
        self._failed(error)
        self._lost = True

    def _reopen_if_lost(self) -> None:
        """Notice a Redis that was flushed or restored, even where nothing is dirty."""
        if not (self._lost or self._filling) and time.monotonic() - self._checked >= CHECK_S:
            self._checked = time.monotonic()
            self._lost = not self._publisher.check()
        if self._lost:
            log.warning("Redis lost what was published: publishing every title again")
            self.open_space()
            self._lost = False

    def _failed(self, error: RedisFailed) -> None:
        self._metrics.redis_failed()
        if str(error) != self.last_error:
            log.warning("cannot publish, trying again: %s", error)
        self.last_error = str(error)

    def _observe(self, taken: Taken, embedded_ms: int) -> None:
        """Tell how fresh `taken` is now that it is visible, and where the time went."""
        now_ms = time.time() * 1000
        of_kind = zip(KINDS, (taken.catalog_ms, taken.coplay_ms), (0, 2), strict=True)
        for kind, since_ms, column in of_kind:
            due = since_ms != CLEAN
            if not due.any():
                continue
            since_ms, when_ms = since_ms[due], taken.when_ms[due, column : column + 2]
            self._metrics.freshness(kind, np.maximum(now_ms - since_ms, 0) / 1000)
            known = when_ms[:, 0] != CLEAN  # else it was dirty in the checkpoint
            marks = [since_ms[known], *when_ms[known].T, embedded_ms, now_ms]
            for stage, before, after in zip(STAGES, marks[:-1], marks[1:], strict=True):
                spent_ms = np.broadcast_to(after - before, (int(known.sum()),))
                self._metrics.stage(kind, stage, np.maximum(spent_ms, 0) / 1000)
