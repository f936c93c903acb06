"""Decoding `coplays`, the busy topic: no Python line runs for an event where all are good.

Messages of JSON hold one event each. They are decoded each on its own: joined into one JSON array
they would take a third longer (msgspec 0.22: a call costs less than the longer buffer), and two
poison values could make one good. An Arrow message holds many, and its columns go on as they lie in
its bytes. Where anything may be wrong, events are looked at one by one, for the reason.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter, eq
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from streams.arrow import ArrowError, read_columns, read_packed
from streams.columns import CoPlays, Names
from streams.wire import (
    BAD,
    MAX_ID,
    MAX_SKEW_S,
    MAX_TIME_MS,
    MAX_WEIGHT,
    MIN_WEIGHT,
    CoPlay,
    DeadLetter,
    Message,
    carries_arrow,
    check_coplay,
    check_time,
    dead_letter,
)

Int64s = npt.NDArray[np.int64]

T = TypeVar("T")

_coplay = msgspec.json.Decoder(CoPlay)
_headers_of, _value_of, _stamp_of = map(attrgetter, ("headers", "value", "timestamp_ms"))
_a_of, _b_of, _weight_of, _time_of = map(attrgetter, ("a", "b", "weight", "time_ms"))


@dataclass(frozen=True, slots=True)
class DecodedCoPlays:
    """What a batch of messages of `coplays` holds.

    Attributes:
        append_ms: shape (E,), one an event.
        ahead: events of a clock that runs ahead; their time is that of their append.
    """

    pairs: CoPlays
    append_ms: Int64s
    dead: list[DeadLetter]
    ahead: int = 0


def decode_coplays(
    messages: Sequence[Message], *, max_skew_s: float = MAX_SKEW_S, now_ms: int | None = None
) -> DecodedCoPlays:
    """Decode messages of `coplays`.

    An Arrow message is taken or refused as a whole: a dead letter is sent again as a whole, and
    would then act twice.

    Args:
        max_skew_s: an event that lies further after its own append time is dead; one that lies
            less far after it counts as of its append.
        now_ms: the reader's clock; messages that claim to have been appended `max_skew_s` after
            it are dead, whatever they hold. Only a topic that lets its writers stamp has such.
    """
    stamps = np.fromiter(map(_stamp_of, messages), np.int64, len(messages))
    if now_ms is not None and (stamps > now_ms + max_skew_s * 1000).any():
        return _without_future(messages, stamps, max_skew_s, now_ms)
    if not any(map(_headers_of, messages)):
        return _decode_each(messages, stamps, max_skew_s)
    parts: list[DecodedCoPlays] = []
    starts: list[int] = []
    for arrow, run in groupby(range(len(messages)), lambda row: carries_arrow(messages[row])):
        rows = list(run)
        for some in ([row] for row in rows) if arrow else [rows]:
            here = slice(some[0], some[-1] + 1)
            part = messages[here]
            found = _decode_columns(part[0], max_skew_s) if arrow else None
            if found is None:
                found = _decode_each(part, stamps[here], max_skew_s, arrow=arrow)
            parts.append(found)
            starts.append(some[0])
    if len(parts) == 1:
        return parts[0]
    pairs = CoPlays.join([part.pairs for part in parts])
    counts = [len(part.pairs) for part in parts]
    pairs.row[:] += np.repeat(np.array(starts, np.int32), counts)
    append_ms = np.concatenate([part.append_ms for part in parts])
    dead = [letter for part in parts for letter in part.dead]
    return DecodedCoPlays(pairs, append_ms, dead, sum(part.ahead for part in parts))


def _without_future(
    messages: Sequence[Message], stamps: Int64s, max_skew_s: float, now_ms: int
) -> DecodedCoPlays:
    """The messages of a time that has come, and the rest as dead letters."""
    good = np.flatnonzero(stamps <= now_ms + max_skew_s * 1000)
    rest = decode_coplays([messages[row] for row in good.tolist()], max_skew_s=max_skew_s)
    rest.pairs.row[:] = good[rest.pairs.row]
    late = np.setdiff1d(np.arange(len(messages)), good).tolist()
    dead = [from_future(messages[row], max_skew_s, now_ms) for row in late]
    return DecodedCoPlays(rest.pairs, rest.append_ms, [*rest.dead, *dead], rest.ahead)


def from_future(message: Message, max_skew_s: float, now_ms: int) -> DeadLetter:
    """The letter of a message that claims to have been appended at a time that has not come."""
    ahead_s = (message.timestamp_ms - now_ms) / 1000
    reason = (
        f"the message's own timestamp {message.timestamp_ms} lies {ahead_s:.0f} s after the "
        f"reader's clock: {max_skew_s:.0f} s allowed"
    )
    return DeadLetter(message, "ValueError", reason)


def _decode_columns(message: Message, max_skew_s: float) -> DecodedCoPlays | None:
    """An Arrow message without an object an event; None where any of it may be wrong."""
    numbers = {"time_ms": int, "weight": float}
    try:
        packed = read_packed(message.value, "a", "b", numbers, "weight")
    except ArrowError:
        return None
    time_ms, weight = packed.numbers["time_ms"], packed.numbers.get("weight")
    if weight is None:
        weight = np.ones(len(time_ms))
    latest_ms = min(MAX_TIME_MS, message.timestamp_ms + int(max_skew_s * 1000))
    good = not len(time_ms) or (
        not packed.same
        and time_ms.min() >= 0
        and time_ms.max() <= latest_ms
        and weight.min() >= MIN_WEIGHT
        and weight.max() <= MAX_WEIGHT
        and _surely_good(packed.first)
        and _surely_good(packed.second)
    )
    if not good:
        return None
    row = np.zeros(len(time_ms), np.int32)
    weight = weight.astype(np.float32)
    pairs = CoPlays(packed.first, packed.second, weight, time_ms, row)
    append_ms = np.full(len(time_ms), message.timestamp_ms, np.int64)
    return _put_back(DecodedCoPlays(pairs, append_ms, []))


def _surely_good(names: Names) -> bool:
    """Whether no name can be refused: none is empty or long, nor has a control character."""
    lengths = np.diff(names.ends, prepend=0)
    if not len(lengths) or lengths.min() < 1 or lengths.max() > MAX_ID:
        return not len(lengths)
    if names.text.min() >= 0x20 and names.text.max() < 0x7F:
        return True
    return names.text.tobytes().decode().isprintable()


def _put_back(decoded: DecodedCoPlays) -> DecodedCoPlays:
    """Let no event be newer than its append: no clock but the broker's can move time forward."""
    pairs, append_ms = decoded.pairs, decoded.append_ms
    ahead = int(np.count_nonzero(pairs.time_ms > append_ms))
    if not ahead:
        return decoded
    time_ms = np.minimum(pairs.time_ms, append_ms)
    pairs = CoPlays(pairs.a, pairs.b, pairs.weight, time_ms, pairs.row)
    return DecodedCoPlays(pairs, append_ms, decoded.dead, ahead)


def _decode_each(
    messages: Sequence[Message], stamps: Int64s, max_skew_s: float, *, arrow: bool = False
) -> DecodedCoPlays:
    """Event by event, with the reason for each that is wrong."""
    events = None if arrow else _all_at_once(messages)
    rows, dead = list(range(len(messages))), dict[int, DeadLetter]()
    if events is None:
        events, rows, dead = _one_by_one(messages)

    count = len(events)
    a, b = list(map(_a_of, events)), list(map(_b_of, events))
    pairs = CoPlays(
        a=a,
        b=b,
        weight=np.fromiter(map(_weight_of, events), np.float32, count),
        time_ms=np.fromiter(map(_time_of, events), np.int64, count),
        row=np.fromiter(rows, np.int32, count),
    )
    append_ms = stamps[pairs.row]
    doubtful = np.flatnonzero(pairs.time_ms > append_ms + int(max_skew_s * 1000)).tolist()
    if not _clean(a) or not _clean(b) or any(map(eq, a, b)):
        doubtful = list(range(count))
    for i in doubtful:
        if (wrong := _wrong_coplay(events[i], int(append_ms[i]), max_skew_s)) is not None:
            dead.setdefault(rows[i], DeadLetter(messages[rows[i]], "ValueError", wrong))
    if not dead:
        return _put_back(DecodedCoPlays(pairs, append_ms, []))
    good = ~np.isin(pairs.row, np.fromiter(dead, np.int32, len(dead)))
    return _put_back(
        DecodedCoPlays(
            pairs if good.all() else pairs.keep(good),
            append_ms[good],
            [dead[row] for row in sorted(dead)],
        )
    )


def _all_at_once(messages: Sequence[Message]) -> list[CoPlay] | None:
    """The events, where all are good JSON; no Python line runs for one of them."""
    try:
        return list(map(_coplay.decode, map(_value_of, messages)))
    except BAD:
        return None


def _one_by_one(
    messages: Sequence[Message],
) -> tuple[list[CoPlay], list[int], dict[int, DeadLetter]]:
    """The good events, which message each came in, and the bad messages by row."""
    events: list[CoPlay] = []
    rows: list[int] = []
    dead: dict[int, DeadLetter] = {}
    for row, message in enumerate(messages):
        try:
            if carries_arrow(message):
                many = _arrow_coplays(message)
            else:
                many = [_coplay.decode(message.value)]  # type: ignore[arg-type] # None is caught
        except BAD as error:
            dead[row] = dead_letter(message, error)
        else:
            events += many
            rows += [row] * len(many)
    return events, rows, dead


def _wrong_coplay(event: CoPlay, append_ms: int, max_skew_s: float) -> str | None:
    try:
        check_coplay(event)
        check_time(event.time_ms, append_ms, max_skew_s)
    except ValueError as error:
        return str(error)
    return None


def _clean(texts: list[str]) -> bool:
    """Whether there is surely no control character; one call for a whole column."""
    return "".join(texts).isprintable()


def _arrow_coplays(message: Message) -> list[CoPlay]:
    columns = read_columns(message.value, {"a": str, "b": str, "time_ms": int}, {"weight": float})
    weights = columns.get("weight", [1.0] * len(columns["a"]))
    return converted(
        CoPlay,
        zip(columns["a"], columns["b"], columns["time_ms"], weights, strict=True),
        ("a", "b", "time_ms", "weight"),
    )


def converted(kind: type[T], rows: Iterable[tuple[Any, ...]], names: tuple[str, ...]) -> list[T]:
    """Rows through the same type that JSON goes through: the same bounds, the same reasons."""
    records = [dict(zip(names, row, strict=True)) for row in rows]
    return msgspec.convert(records, list[kind])  # type: ignore[valid-type]
