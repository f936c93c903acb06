"""What the page shows of titles: the newest with their neighbours, and a map of all.

Both are read from Redis as any reader would, over a copy that follows the updates. The copy is held
only while somebody looks. The map is drawn once for a weights version and a space: titles that come
in later are put where their neighbours are, so that the picture does not jump.

A map holds at most `MAP_TITLES` titles, drawn by chance from a larger catalogue; places are whole
numbers from 0 to `SCALE`.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from serve.connection import RedisFailed
from serve.spaces import NoSpace
from streams.console.copy import TitleCopy
from streams.demo.layout import plane
from streams.intake import NEWEST

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

log = logging.getLogger(__name__)

LOOK_S: Final = 0.25  # between two looks at the updates
NEIGHBOURS: Final = 5
MAP_TITLES: Final = 2500
SCALE: Final = 1000
ROUNDS: Final = 150  # of the drawing: enough for groups to part
_AGAIN_S: Final = 5.0  # after a failure that was not foreseen
_RIM: Final = 0.03  # of the picture is left free


class TitleWatch:
    """Follows the titles of the live space. One thread calls.

    Args:
        copy: makes a copy of the space; called again after Redis was away.
        tell: takes ("titles", list) and ("map", object) whenever they are new, as JSON.
    """

    def __init__(self, copy: Callable[[], TitleCopy], tell: Callable[[str, Any], None]) -> None:
        self._make, self._tell = copy, tell
        self._copy: TitleCopy | None = None
        self._seen: dict[str, dict[str, Any]] = {}  # title -> what is known of its coming in
        self._told: list[dict[str, Any]] = []
        self._map: TitleMap | None = None
        self._drawn_of: tuple[int, frozenset[str]] = 0, frozenset()
        self.trouble: str | None = None

    def look(self, newest: Sequence[Mapping[str, Any]]) -> None:
        """Take in what was published, and tell what is new.

        Args:
            newest: titles that the worker has read last, as its heartbeat has them.
        """
        try:
            if self._copy is None:
                self._copy = self._make()
            changed = self._copy.refresh()
        except (RedisFailed, NoSpace) as error:
            self._copy, self.trouble = None, str(error)
            return
        self.trouble = None
        now_ms = int(time.time() * 1000)
        new = self._copy.take_new()
        for one in newest:
            self._seen.setdefault(one["title"], dict(one))
        for title in new:
            self._seen.setdefault(title, {"title": title, "read_ms": now_ms})["visible_ms"] = now_ms
        in_order = sorted(self._seen.items(), key=lambda one: one[1]["read_ms"])
        self._seen = dict(in_order[-NEWEST:])
        if changed or self._drawn_of[1] != frozenset(self._seen):
            self._tell_titles(self._copy)
            self._draw(self._copy, new)

    def _tell_titles(self, copy: TitleCopy) -> None:
        told = []
        for title, known in reversed(self._seen.items()):
            near = copy.near(title, NEIGHBOURS)
            if near is None:
                continue  # not published yet, or retired
            told.append(
                {
                    **known,
                    "name": copy.name(title) or known.get("name"),
                    "near": [
                        {"title": one.title, "name": one.name, "score": round(one.score, 3)}
                        for one in near
                    ],
                }
            )
        if told != self._told:
            self._told = told
            self._tell("titles", told)

    def _draw(self, copy: TitleCopy, new: Sequence[str]) -> None:
        now = len(copy), frozenset(self._seen)
        if self._map is not None and not new and self._drawn_of == now:
            return
        self._drawn_of = now
        titles, names, unit = copy.rows()
        if not titles:
            return
        if self._map is None or not self._map.covers(titles):
            self._map = TitleMap(titles, names, unit, self._seen)
        else:
            self._map.add(new, titles, names, unit)
        self._tell("map", self._map.told(self._seen))


class TitleMap:
    """Places of titles on a plane, drawn once; later titles go where their neighbours are."""

    def __init__(
        self,
        titles: Sequence[str],
        names: Sequence[str | None],
        unit: Floats,
        newest: Collection[str] = (),
    ) -> None:
        """Args: newest: are on the map, whatever is drawn by chance; shapes (T,) and (T, dim)."""
        rows = np.arange(len(titles))
        if len(rows) > MAP_TITLES:
            drawn = np.random.default_rng(0).choice(len(rows), MAP_TITLES, replace=False)
            wanted = [row for row, title in enumerate(titles) if title in newest]
            rows = np.union1d(drawn, wanted).astype(np.int64)
        self._titles = [titles[row] for row in rows.tolist()]
        self._names = [names[row] for row in rows.tolist()]
        places = plane(unit[rows], seed=0, rounds=ROUNDS)
        # The outermost few would squeeze all others into the middle.
        low, high = (np.percentile(places, q, axis=0) for q in (0.5, 99.5))
        self._low, self._span = low, np.maximum(high - low, 1e-9)
        self._places = self._fit(places)

    def covers(self, titles: Sequence[str]) -> bool:
        """Whether most of our titles are still there, and few came since: else it is drawn anew."""
        there = set(titles)
        if len(self._titles) > 2 * MAP_TITLES:
            return False
        return sum(title in there for title in self._titles) * 2 > len(self._titles)

    def add(
        self,
        new: Sequence[str],
        titles: Sequence[str],
        names: Sequence[str | None],
        unit: Floats,
    ) -> bool:
        """Place `new` titles; returns whether there were any."""
        row_of = {title: row for row, title in enumerate(titles)}
        old = [at for at, title in enumerate(self._titles) if title in row_of]
        known = set(self._titles)
        came = [title for title in new if title in row_of and title not in known]
        if not came or not old:
            return False
        base = unit[[row_of[self._titles[at]] for at in old]]
        for title in came:
            row = row_of[title]
            near = np.argsort(-(base @ unit[row]))[:NEIGHBOURS]
            place = np.median(self._places[[old[at] for at in near.tolist()]], axis=0)
            self._places = np.vstack([self._places, place[None].astype(np.int64)])
            self._titles.append(title)
            self._names.append(names[row])
        return True

    def told(self, newest: Collection[str]) -> dict[str, Any]:
        """The map as JSON, with `newest` marked."""
        return {
            "scale": SCALE,
            "x": self._places[:, 0].tolist(),
            "y": self._places[:, 1].tolist(),
            "names": [name or title for name, title in zip(self._names, self._titles, strict=True)],
            "new": [at for at, title in enumerate(self._titles) if title in newest],
        }

    def _fit(self, places: Floats) -> Ints:
        share = np.clip((places - self._low) / self._span, -0.02, 1.02)
        fitted: Ints = np.rint((_RIM + share * (1 - 2 * _RIM)) * SCALE).astype(np.int64)
        return fitted


class Watcher:
    """Runs a `TitleWatch` in a thread while somebody looks, and drops its copy when nobody does."""

    def __init__(self, make: Callable[[], TitleWatch]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._lookers = 0
        self._thread: threading.Thread | None = None
        self.newest: Sequence[Mapping[str, Any]] = ()

    def begin(self) -> None:
        """Somebody looks."""
        with self._lock:
            self._lookers += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="titles", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """Somebody looks no more."""
        with self._lock:
            self._lookers -= 1

    def _run(self) -> None:
        watch = self._make()
        while True:
            with self._lock:
                if not self._lookers:
                    self._thread = None
                    return
            try:
                watch.look(self.newest)
            except Exception:  # the page goes on without titles, and tries anew
                log.exception("titles cannot be shown")
                watch = self._make()
                time.sleep(_AGAIN_S)
            time.sleep(LOOK_S)
