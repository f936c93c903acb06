"""What is replayed: plays in time order, their co-plays, and when each title came to the catalogue.

Plays are cut in two. The first half is history: models may learn from it. The rest is dealt to
windows of equal size. At a window's start the titles that came to the catalogue are let in with
their concepts, then the window's plays are predicted, and only then they are ingested.

Some data sets have no arrival of titles: all are there from the beginning. `hold_back` makes one:
titles, drawn at random, come to the catalogue with a window of the stream, and nobody has played
them before.

All numbers are rows of the lists here; no dense ids of a graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

ALWAYS = np.iinfo(np.int64).min  # a title that was in the catalogue before the first play


@dataclass(frozen=True, slots=True)
class Stream:
    """Plays, co-plays and catalogue of one data set.

    Attributes:
        titles: id of each title, length T.
        arrival_ms: when each came to the catalogue; `ALWAYS`: before all, shape (T,).
        relations: names of the relations from titles to concepts, length R.
        concepts: "relation:value" of each concept, length C.
        triple_title, triple_relation, triple_concept: semantic edges, shape (E,).
        users: user of each play, shape (P,).
        plays: title of each play, shape (P,).
        time_ms: of each play, ascending, shape (P,).
        pair_later, pair_earlier: titles of each co-play, shape (Q,).
        pair_weight: > 0, shape (Q,), float32.
        pair_row: row of the later play, ascending, shape (Q,). Of one row, the nearest play before
            it stands first.

    Raises:
        ValueError: columns of different lengths, numbers out of range, or plays out of order.
    """

    titles: Sequence[str]
    arrival_ms: Int64s
    relations: Sequence[str]
    concepts: Sequence[str]
    triple_title: Int64s
    triple_relation: Int64s
    triple_concept: Int64s
    users: Int64s
    plays: Int64s
    time_ms: Int64s
    pair_later: Int64s
    pair_earlier: Int64s
    pair_weight: Float32s
    pair_row: Int64s

    def __post_init__(self) -> None:
        titles = len(self.titles)
        _column("arrival_ms", self.arrival_ms, titles)
        for name in ("users", "plays", "time_ms"):
            _column(name, getattr(self, name), len(self.users))
        for name in ("pair_later", "pair_earlier", "pair_weight", "pair_row"):
            _column(name, getattr(self, name), len(self.pair_row))
        for name in ("triple_title", "triple_relation", "triple_concept"):
            _column(name, getattr(self, name), len(self.triple_title))
        for name, below in (
            ("plays", titles),
            ("pair_later", titles),
            ("pair_earlier", titles),
            ("triple_title", titles),
            ("triple_relation", len(self.relations)),
            ("triple_concept", len(self.concepts)),
            ("pair_row", len(self.users)),
        ):
            _within(name, getattr(self, name), below)
        for name in ("time_ms", "pair_row"):
            falls = np.flatnonzero(np.diff(getattr(self, name)) < 0)
            if len(falls):
                raise ValueError(f"{name} falls after row {falls[0]}: sort by time first")

    def __len__(self) -> int:
        """The number of plays."""
        return len(self.users)

    def first_play_ms(self) -> Int64s:
        """When each title was first played; the largest int64 where never, shape (T,)."""
        first = np.full(len(self.titles), np.iinfo(np.int64).max)
        np.minimum.at(first, self.plays, self.time_ms)
        return first

    def without_plays(self, gone: Bools) -> "Stream":
        """The same without some plays and the co-plays that they are part of as the later one.

        Args:
            gone: shape (P,). A co-play goes as well where its earlier title has not come yet.
        """
        number = np.cumsum(~gone) - 1
        early = self.arrival_ms[self.pair_earlier] > self.time_ms[self.pair_row]
        pairs = np.flatnonzero(~gone[self.pair_row] & ~early)
        plays = np.flatnonzero(~gone)
        return replace(
            self,
            users=self.users[plays],
            plays=self.plays[plays],
            time_ms=self.time_ms[plays],
            pair_later=self.pair_later[pairs],
            pair_earlier=self.pair_earlier[pairs],
            pair_weight=self.pair_weight[pairs],
            pair_row=number[self.pair_row[pairs]],
        )


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the stream is cut.

    Attributes:
        cut: plays before this row are history.
        bounds: window w has rows bounds[w]:bounds[w + 1], shape (W + 1,).
    """

    cut: int
    bounds: Int64s

    @classmethod
    def of(cls, stream: Stream, count: int, *, history: float = 0.5) -> "Windows":
        """Deal what comes after the share `history` of the plays to `count` windows.

        Raises:
            ValueError: fewer plays than windows.
        """
        plays = len(stream)
        cut = int(plays * history)
        if count < 1 or cut < 1 or plays - cut < count:
            raise ValueError(
                f"{plays} plays, {count} windows: want at least one window, and after the first "
                f"{history:.0%} of the plays at least one for each; take fewer windows"
            )
        return cls(cut, cut + np.arange(count + 1, dtype=np.int64) * (plays - cut) // count)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def rows(self, window: int) -> slice:
        return slice(int(self.bounds[window]), int(self.bounds[window + 1]))


def arrivals(years: Int64s, first_play_ms: Int64s) -> Int64s:
    """When titles came to the catalogue: as their year began, and no later than the first play.

    Args:
        years: 0 where unknown: such a title was always there, shape (T,).
        first_play_ms: shape (T,).
    """
    year = np.clip(years, 1, 9999)
    began = ((year - 1970).astype("datetime64[Y]")).astype("datetime64[ms]").astype(np.int64)
    return np.where(years > 0, np.minimum(began, first_play_ms), ALWAYS)


def hold_back(stream: Stream, count: int, windows: int, *, seed: int) -> tuple[Stream, Int64s]:
    """Let `count` titles come only while the stream runs, `windows` apart evenly.

    Titles are drawn evenly among those that are played after the cut and were there before it. A
    play of one before it came is dropped.

    Returns:
        The stream, and the titles that were drawn, ascending.

    Raises:
        ValueError: fewer such titles than asked for.
    """
    cut = Windows.of(stream, windows)
    later = np.unique(stream.plays[cut.cut :])
    now_ms = int(stream.time_ms[cut.cut])
    can = later[stream.arrival_ms[later] < now_ms]
    if count > len(can):
        raise ValueError(
            f"{count} titles to hold back, but {len(can)} are played after the cut: take fewer"
        )
    rng = np.random.default_rng(seed)
    drawn = rng.choice(can, count, replace=False)
    starts = stream.time_ms[cut.bounds[:-1]]
    arrival = stream.arrival_ms.copy()
    arrival[drawn] = starts[np.arange(count) % windows]
    held = replace(stream, arrival_ms=arrival)
    return held.without_plays(arrival[stream.plays] > stream.time_ms), np.sort(drawn)


def share_of_new(stream: Stream, windows: Windows) -> float:
    """Share of the plays after the cut that fall on titles nobody had played before it."""
    known = np.zeros(len(stream.titles), bool)
    known[stream.plays[: windows.cut]] = True
    after = stream.plays[windows.cut :]
    return float(np.mean(~known[after])) if len(after) else 0.0


def _column(name: str, column: npt.NDArray[np.generic], length: int) -> None:
    if column.shape != (length,):
        raise ValueError(f"{name} has shape {column.shape}: want ({length},)")


def _within(name: str, column: Int64s, below: int) -> None:
    bad = np.flatnonzero((column < 0) | (column >= below))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}] is {column[bad[0]]}: want 0 to {below - 1}")
