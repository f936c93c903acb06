"""From files of rows into a state, without a broker: what `upwell bootstrap` folds.

The catalogue's file makes titles and concepts as its events would. Plays are paired as the sessions
pair them; co-plays are taken as they are. Files are read row by row, and of a play four numbers are
kept: the history never lies in memory as objects.
"""

from array import array
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.positives import Positives
from streams.bootstrap import spread_ties
from streams.columns import CoPlays
from streams.coplay import Pairing, pair_history
from streams.mapping import Event, Events
from streams.state import State
from streams.wire import CatalogEntry, CoPlay, Play

Report = Callable[[str, int, int, str], None]

CHUNK: Final = 100_000  # events folded in by one call


def fold_catalog(state: State, events: Events, report: Report) -> None:
    """Apply a catalogue's file; every relation that it names is one from now on.

    Raises:
        BadRow, FileFailed: as `Events` does.
    """
    for chunk in _chunks(events, "catalogue", report):
        entries = [event for event in chunk if isinstance(event, CatalogEntry)]
        state.apply_catalog(entries, np.zeros(len(entries), np.int64), learn=True)


def fold_coplays(state: State, events: Events, report: Report) -> Positives:
    """Add a file of co-plays to the graph; returns them in time order.

    Raises:
        BadRow, FileFailed: as `Events` does.
    """
    folded = []
    for chunk in _chunks(events, "co-plays", report):
        pairs = [event for event in chunk if isinstance(event, CoPlay)]
        folded.append(
            _fold(
                state,
                [pair.a for pair in pairs],
                [pair.b for pair in pairs],
                np.array([pair.weight for pair in pairs], np.float32),
                np.array([pair.time_ms for pair in pairs], np.int64),
            )
        )
    joined = Positives.join(folded)
    return joined[np.argsort(joined.time_ms, kind="stable")]


def fold_plays(state: State, events: Events, pairing: Pairing, report: Report) -> Positives:
    """Pair a file of plays, and add the pairs to the graph; returns them in time order.

    Raises:
        BadRow, FileFailed: as `Events` does.
    """
    users: dict[str, int] = {}
    titles: dict[str, int] = {}
    user, title, time_ms, seconds = array("q"), array("q"), array("q"), array("d")
    for chunk in _chunks(events, "plays", report):
        for play in chunk:
            if isinstance(play, Play):
                user.append(users.setdefault(play.user, len(users)))
                title.append(titles.setdefault(play.title, len(titles)))
                time_ms.append(play.time_ms)
                seconds.append(np.nan if play.seconds is None else play.seconds)
    stamps = np.array(time_ms, np.int64)
    order = np.argsort(stamps, kind="stable")
    stamps = stamps[order]
    if not (stamps % 1000).any():  # the file stamps in whole seconds
        stamps = spread_ties(stamps)
    pairs = pair_history(
        np.array(user, np.int64)[order],
        np.array(title, np.int64)[order],
        stamps,
        np.array(seconds)[order],
        rule=pairing,
    )
    names = np.array([*titles, ""], object)  # the last makes it an array of one dimension
    folded = []
    for start in range(0, len(pairs), CHUNK):
        part = slice(start, start + CHUNK)
        a, b = names[pairs.a[part]].tolist(), names[pairs.b[part]].tolist()
        folded.append(_fold(state, a, b, pairs.weight[part], pairs.time_ms[part]))
        report("co-plays", start + len(a), len(pairs), "")
    return Positives.join(folded)


def _fold(
    state: State,
    a: list[str],
    b: list[str],
    weight: npt.NDArray[np.float32],
    time_ms: npt.NDArray[np.int64],
) -> Positives:
    columns = CoPlays(a, b, weight, time_ms, np.zeros(len(a), np.int32))
    state.apply_coplays(columns, np.zeros(len(a), np.int64))
    return state.take_fresh()


def _chunks(events: Events, step: str, report: Report) -> Iterator[list[Event]]:
    rows: Any = iter(events)
    file = events.file
    while chunk := list(islice(rows, CHUNK)):
        yield chunk
        done = min(file.read_so_far, file.size - 1)
        report(step, done, file.size, f"{events.good} events")
    report(step, file.size, file.size, f"{events.good} events")
