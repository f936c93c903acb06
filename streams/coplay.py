"""Pairs of titles out of a user's plays: the rule, one play at a time and over a whole history.

A play is paired with the plays of the same user before it: with the `previous` nearest ones that
lie at most `gap_s` before it. Two plays of the same title make no pair. A pair weighs

    (1 - gap / (2 gap_s)) * min(watched(first), watched(second))
    watched(play) = clip(seconds / 300, 0.1, 1), and 1 where the seconds are unknown

so from 1 for two titles watched one right after the other to a half at the longest gap, and a tenth
of that where one of them was left at once. The later play's time is the pair's time.

    duplicates  a play with the same title and time as a remembered one makes nothing
    robots      of a user's plays in one hour (of event time) only the first `max_per_hour` count:
                the rest makes no pairs and is not remembered
    late plays  one that is older than the newest by no more than `gap_s` takes its place among the
                others and is paired with its neighbours on both sides, up to `previous` on each;
                pairs that were made before stay. An older one makes nothing: its session is over.

What must be remembered is small: the plays within `gap_s` of the newest, `MEMORY` at most. It is a
list of JSON numbers and strings, which stands in the changelog of streams/sessions.py.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from streams.events import CoPlay, Play

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

FULL_WATCH_S: Final = 300.0  # who has watched so long has watched
LEFT_AT_ONCE: Final = 0.1
MEMORY: Final = 1024  # plays remembered of one user
HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Pairing:
    """The rule's numbers.

    Raises:
        ValueError: one is out of its bounds.
    """

    previous: int = 5
    gap_s: float = 1800.0
    max_per_hour: int = 200

    def __post_init__(self) -> None:
        for name in ("previous", "gap_s", "max_per_hour"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: want more than 0")

    @property
    def gap_ms(self) -> int:
        return int(self.gap_s * 1000)


class Recent(msgspec.Struct, array_like=True):
    """What is remembered of one user, as JSON: [hour, count, [[time_ms, title, watched], ...]].

    `count` plays fell in `hour` (time_ms // 3 600 000), the newest that was seen. `plays` stand in
    order of time, those of one time in order of arrival.
    """

    hour: int = -1
    count: int = 0
    plays: list[tuple[int, str, float]] = []


_decoder = msgspec.json.Decoder(Recent)


def load_recent(raw: bytes | None) -> Recent:
    """What `msgspec.json.encode` made of a `Recent`; none or unreadable: nothing is remembered."""
    if raw is None:
        return Recent()
    try:
        return _decoder.decode(raw)
    except msgspec.DecodeError:
        return Recent()


def add_play(recent: Recent, play: Play, rule: Pairing) -> list[CoPlay]:
    """Take one play into `recent`, and return the pairs that it makes: a < b."""
    plays, time_ms = recent.plays, play.time_ms
    newest = plays[-1][0] if plays else time_ms
    oldest = max(newest, time_ms) - rule.gap_ms
    if len(plays) >= MEMORY:
        oldest = max(oldest, plays[0][0])
    if time_ms < oldest:
        return []
    at = bisect_right(plays, time_ms, key=_time)
    for other_ms, other, _ in reversed(plays[:at]):
        if other_ms != time_ms:
            break
        if other == play.title:
            return []
    if (hour := time_ms // HOUR_MS) > recent.hour:
        recent.hour, recent.count = hour, 0
    if recent.count >= rule.max_per_hour:
        return []
    recent.count += 1

    watched = watched_share(play.seconds)
    pairs = []
    neighbours = plays[max(at - rule.previous, 0) : at + rule.previous]
    for other_ms, other, other_watched in neighbours:
        gap = abs(time_ms - other_ms)
        if other != play.title and gap <= rule.gap_ms:
            weight = (1.0 - gap / (2.0 * rule.gap_ms)) * min(watched, other_watched)
            a, b = (other, play.title) if other < play.title else (play.title, other)
            pairs.append(CoPlay(a, b, max(time_ms, other_ms), weight))

    plays.insert(at, (time_ms, play.title, watched))
    first = bisect_right(plays, plays[-1][0] - rule.gap_ms - 1, key=_time)
    del plays[: max(first, len(plays) - MEMORY)]
    return pairs


def watched_share(seconds: float | None) -> float:
    """How much a play counts by the seconds watched, `LEFT_AT_ONCE` to 1."""
    if seconds is None:
        return 1.0
    return min(max(seconds / FULL_WATCH_S, LEFT_AT_ONCE), 1.0)


@dataclass(frozen=True, slots=True)
class History:
    """The pairs of a history of plays, in order of time; of one time in order of the plays' rows.

    Attributes:
        a, b: titles as they were given, the later play's first, shape (E,).
        weight: shape (E,), float32.
        time_ms: time of the later play, shape (E,), int64.
        row: row of the later play, shape (E,), int64.
    """

    a: npt.NDArray[Any]
    b: npt.NDArray[Any]
    weight: Floats
    time_ms: Int64s
    row: Int64s

    def __len__(self) -> int:
        return len(self.a)


def pair_history(
    users: npt.NDArray[Any],
    titles: npt.NDArray[Any],
    time_ms: Int64s,
    seconds: npt.NDArray[np.float64] | None = None,
    rule: Pairing | None = None,
) -> History:
    """The pairs that `add_play` would make of these plays, fed to it in order of time.

    Args:
        users, titles: numbers or strings, shape (P,); of plays at one time, rows give the order.
        seconds: watched, NaN where unknown, shape (P,); none: all are unknown.

    Raises:
        ValueError: columns of different lengths.
    """
    rule = rule or Pairing()
    if not len(users) == len(titles) == len(time_ms):
        raise ValueError(
            f"{len(users)} users, {len(titles)} titles, {len(time_ms)} times: want as many of each"
        )
    user = np.unique(users, return_inverse=True)[1].astype(np.int64)
    title = np.unique(titles, return_inverse=True)[1].astype(np.int64)
    row = np.lexsort((time_ms, user))  # stable: rows stay in order
    row = row[_first_of_each(user[row], time_ms[row], title[row])]
    hour = user[row] * (2**38) + time_ms[row] // HOUR_MS
    row = row[_rank_in_run(hour) < rule.max_per_hour]

    if seconds is None:
        watched = np.ones(len(row))
    else:
        watched = np.clip(seconds[row] / FULL_WATCH_S, LEFT_AT_ONCE, 1.0)
        watched[np.isnan(watched)] = 1.0
    later, earlier, weight = [], [], []
    for lag in range(1, rule.previous + 1):
        new, old = row[lag:], row[:-lag]
        gap = time_ms[new] - time_ms[old]
        pair = (user[new] == user[old]) & (gap <= rule.gap_ms) & (title[new] != title[old])
        later.append(new[pair])
        earlier.append(old[pair])
        share = np.minimum(watched[lag:], watched[:-lag])[pair]
        weight.append(((1.0 - gap[pair] / (2.0 * rule.gap_ms)) * share).astype(np.float32))

    new, old = np.concatenate(later), np.concatenate(earlier)
    order = np.lexsort((new, time_ms[new]))  # stable: the nearest play before comes first
    new, old = new[order], old[order]
    return History(titles[new], titles[old], np.concatenate(weight)[order], time_ms[new], new)


def _time(play: tuple[int, str, float]) -> int:
    return play[0]


def _first_of_each(user: Int64s, time_ms: Int64s, title: Int64s) -> npt.NDArray[np.bool_]:
    """Which rows, sorted by user and time, are no repetition of an earlier row."""
    order = np.lexsort((title, time_ms, user))
    same = np.zeros(len(user), bool)
    same[1:] = True
    for column in (user, time_ms, title):
        same[1:] &= column[order[1:]] == column[order[:-1]]
    first = np.empty(len(user), bool)
    first[order] = ~same
    return first


def _rank_in_run(keys: Int64s) -> Int64s:
    """Position of each row within its run of equal keys, from 0."""
    index = np.arange(len(keys))
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else index
    return index - np.repeat(starts, np.diff(np.r_[starts, len(keys)]))
