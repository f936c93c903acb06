"""Reading events: the way in for the wire formats of streams/wire.py, and the only one.

JSON, unknown fields ignored. A message of `plays` or `coplays` may carry many events instead, as an
Arrow stream with the same columns (streams/arrow.py), marked by its content-type header. The busy
topic, `coplays`, has its own room (streams/decode_pairs.py).

Every number and length has its bound in the type. Decoding never raises on bad input: it hands back
what is good, in its order, and the bad beside it with the reason. A decision depends on the message
alone, so that a replay decides the same; with one exception, `now_ms`: a message that claims to be
appended hours from now is refused while that is so.

Clocks differ. An event's time is never later than its append: one that is ahead of it by no more
than `max_skew_s` counts as of its append, since it would else freeze its title, or its user,
against events of right clocks; one that is further ahead is dead. How many were ahead is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from streams.arrow import read_columns
from streams.columns import CoPlays, Names
from streams.decode_pairs import DecodedCoPlays, converted, decode_coplays, from_future
from streams.wire import (
    BAD,
    MAX_ID,
    MAX_SKEW_S,
    CatalogEntry,
    CoPlay,
    DeadLetter,
    Message,
    Play,
    Retirement,
    carries_arrow,
    check_entry,
    check_id,
    check_play,
    check_time,
    dead_letter,
    encode,
)

__all__ = [
    "MAX_SKEW_S",
    "CatalogEntry",
    "CoPlay",
    "CoPlays",
    "DeadLetter",
    "DecodedCatalog",
    "DecodedCoPlays",
    "DecodedPlays",
    "Message",
    "Names",
    "Play",
    "Retirement",
    "check_entry",
    "decode_catalog",
    "decode_coplays",
    "decode_plays",
    "encode",
]

Int64s = npt.NDArray[np.int64]

_play = msgspec.json.Decoder(Play)
_entry = msgspec.json.Decoder(CatalogEntry)


@dataclass(frozen=True, slots=True)
class DecodedCatalog:
    """What a batch of messages of `catalog` holds.

    Attributes:
        append_ms: shape (E,), one an entry.
        row: `row[i]` is the message that entries[i] came in.
        ahead: entries of a clock that runs ahead.
    """

    entries: list[CatalogEntry]
    append_ms: Int64s
    row: list[int]
    dead: list[DeadLetter]
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class DecodedPlays:
    """What a batch of messages of `plays` holds.

    Attributes:
        row: `row[i]` is the message that plays[i] came in.
        ahead: plays of a clock that runs ahead.
    """

    plays: list[Play]
    row: list[int]
    dead: list[DeadLetter]
    ahead: int = 0


def decode_plays(
    messages: Sequence[Message], *, max_skew_s: float = MAX_SKEW_S, now_ms: int | None = None
) -> DecodedPlays:
    """Decode messages of `plays`; arguments as for `decode_coplays`."""
    plays: list[Play] = []
    rows: list[int] = []
    dead: list[DeadLetter] = []
    ahead = 0
    for row, message in enumerate(messages):
        if now_ms is not None and message.timestamp_ms > now_ms + max_skew_s * 1000:
            dead.append(from_future(message, max_skew_s, now_ms))
            continue
        append_ms = message.timestamp_ms
        try:
            found = _arrow_plays(message) if carries_arrow(message) else [_one_play(message)]
            for play in found:
                check_play(play)
                check_time(play.time_ms, append_ms, max_skew_s)
        except BAD as error:
            dead.append(dead_letter(message, error))
            continue
        for at, play in enumerate(found):
            if play.time_ms > append_ms:
                found[at] = msgspec.structs.replace(play, time_ms=append_ms)
                ahead += 1
        plays += found
        rows += [row] * len(found)
    return DecodedPlays(plays, rows, dead, ahead)


def decode_catalog(
    messages: Sequence[Message], *, max_skew_s: float = MAX_SKEW_S, now_ms: int | None = None
) -> DecodedCatalog:
    """Decode messages of `catalog`; arguments as for `decode_coplays`."""
    entries: list[CatalogEntry] = []
    rows: list[int] = []
    dead: list[DeadLetter] = []
    ahead = 0
    for row, message in enumerate(messages):
        if now_ms is not None and message.timestamp_ms > now_ms + max_skew_s * 1000:
            dead.append(from_future(message, max_skew_s, now_ms))
            continue
        try:
            entry = _catalog_entry(message, max_skew_s)
        except BAD as error:
            dead.append(dead_letter(message, error))
            continue
        if entry.time_ms > message.timestamp_ms:
            entry = msgspec.structs.replace(entry, time_ms=message.timestamp_ms)
            ahead += 1
        entries.append(entry)
        rows.append(row)
    stamps = np.array([messages[row].timestamp_ms for row in rows], np.int64)
    return DecodedCatalog(entries, stamps, rows, dead, ahead)


def _catalog_entry(message: Message, max_skew_s: float) -> CatalogEntry:
    if carries_arrow(message):
        raise ValueError("an Arrow stream is no catalog event: one title a message, as JSON")
    if not message.key:
        raise ValueError("no key: want the title, by which the topic is compacted")
    key = message.key.decode()
    if message.value is None:
        if len(key) > MAX_ID:
            raise ValueError(f"key has {len(key)} characters: at most {MAX_ID} allowed")
        check_id("key", key)
        return Retirement(key, max(message.timestamp_ms, 0))
    entry = _entry.decode(message.value)
    check_entry(entry)
    if entry.title != key:
        raise ValueError(f"key {key[:MAX_ID]!r} is not the title {entry.title!r}")
    check_time(entry.time_ms, message.timestamp_ms, max_skew_s)
    return entry


def _one_play(message: Message) -> Play:
    return _play.decode(message.value)  # type: ignore[arg-type] # None is caught


def _arrow_plays(message: Message) -> list[Play]:
    columns = read_columns(
        message.value, {"user": str, "title": str, "time_ms": int}, {"seconds": float}
    )
    seconds = columns.get("seconds", [None] * len(columns["user"]))
    return converted(
        Play,
        zip(columns["user"], columns["title"], columns["time_ms"], seconds, strict=True),
        ("user", "title", "time_ms", "seconds"),
    )
