"""The wire formats of events, and the only place that reads them.

    plays      {"user", "title", "time_ms", "seconds"?}              key: user
    coplays    {"a", "b", "weight" = 1.0, "time_ms"}                 key: any; undirected
    catalog    {"title", "name"?, "time_ms", "concepts": {relation: [value, ...]}, "features"?}
               key: the title; a null value retires it

JSON, unknown fields ignored. A message of `plays` or `coplays` may carry many events instead, as an
Arrow stream with the same columns (streams/arrow.py), marked by its content-type header.

Every number and length has its bound in the type. Decoding never raises on bad input: it hands back
what is good, in its order, and the bad beside it with the reason. A decision depends on the message
alone, never on the time of reading, so that a replay decides the same.

Values are decoded each on its own. Joined into one JSON array they would take a third longer
(msgspec 0.22: a call costs less than the longer buffer), and two poison values could make one good.

Times are milliseconds since the Unix epoch.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import attrgetter, eq
from typing import Annotated, Any, Final, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from streams.arrow import CONTENT_TYPE as ARROW
from streams.arrow import ArrowError, read_columns, read_packed

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

MAX_ID: Final = 256  # characters
MAX_TIME_MS: Final = 253_402_300_799_999  # the end of the year 9999
MIN_WEIGHT: Final = 1e-6
MAX_WEIGHT: Final = 1e6
MAX_SECONDS: Final = 1e6
MAX_RELATIONS: Final = 64
MAX_VALUES: Final = 1024  # concepts of one relation
MAX_FEATURES: Final = 4096
MAX_SKEW_S: Final = 3600.0
RESERVED: Final = frozenset({"coplay"})  # relations that no catalog event may name

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)]
Weight = Annotated[float, msgspec.Meta(ge=MIN_WEIGHT, le=MAX_WEIGHT)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]
Name = Annotated[str, msgspec.Meta(max_length=512)]
RelationName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
Values = Annotated[list[Id], msgspec.Meta(max_length=MAX_VALUES)]
Concepts = Annotated[dict[RelationName, Values], msgspec.Meta(max_length=MAX_RELATIONS)]
Feature = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]

T = TypeVar("T")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Play(msgspec.Struct, frozen=True, gc=False):
    """Someone watched a title."""

    user: Id
    title: Id
    time_ms: TimeMs
    seconds: Seconds | None = None  # watched; none: unknown


class CoPlay(msgspec.Struct, frozen=True, gc=False):
    """Two titles were watched together: adds `weight` to the undirected edge between them."""

    a: Id
    b: Id
    time_ms: TimeMs
    weight: Weight = 1.0


class CatalogEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A title with all its concepts: replaces what the title had."""

    title: Id
    time_ms: TimeMs
    concepts: Concepts
    name: Name | None = None
    features: Annotated[list[Feature], msgspec.Meta(max_length=MAX_FEATURES)] | None = None


class Retirement(CatalogEntry, frozen=True):
    """A title leaves: on the wire a null value under its key, at the message's timestamp."""

    concepts: Concepts = {}


class Message(msgspec.Struct, frozen=True, gc=False):
    """One Kafka message. `timestamp_ms` is when it was appended, as far as the topic knows."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: list[tuple[str, bytes | None]] | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that cannot be used: for the topic `<topic>.dead`.

    Attributes:
        error: class of the error.
        reason: what is wrong, for a human.
        stage: where it was found.
    """

    message: Message
    error: str
    reason: str
    stage: str = "decode"


@dataclass(frozen=True, slots=True)
class CoPlays:
    """Co-plays as columns, in the order of their arrival.

    Attributes:
        a, b: the titles, E strings each; a[i] != b[i].
        weight: shape (E,), float32, MIN_WEIGHT to MAX_WEIGHT.
        time_ms: event time, shape (E,), int64.
        row: which of the decoded messages it came in, shape (E,), int32.
    """

    a: list[str]
    b: list[str]
    weight: Floats
    time_ms: Int64s
    row: Int32s

    def __len__(self) -> int:
        return len(self.a)

    def keep(self, mask: Bools) -> "CoPlays":
        """The events where `mask`, shape (E,), holds."""
        chosen = np.flatnonzero(mask).tolist()
        return CoPlays(
            [self.a[i] for i in chosen],
            [self.b[i] for i in chosen],
            self.weight[mask],
            self.time_ms[mask],
            self.row[mask],
        )


@dataclass(frozen=True, slots=True)
class DecodedCoPlays:
    """What a batch of messages of `coplays` holds; `append_ms` is shape (E,), one an event."""

    pairs: CoPlays
    append_ms: Int64s
    dead: list[DeadLetter]


@dataclass(frozen=True, slots=True)
class DecodedCatalog:
    """What a batch of messages of `catalog` holds.

    Attributes:
        append_ms: shape (E,), one an entry.
        row: `row[i]` is the message that entries[i] came in.
    """

    entries: list[CatalogEntry]
    append_ms: Int64s
    row: list[int]
    dead: list[DeadLetter]


@dataclass(frozen=True, slots=True)
class DecodedPlays:
    """What a batch of messages of `plays` holds; `row[i]` is the message that plays[i] came in."""

    plays: list[Play]
    row: list[int]
    dead: list[DeadLetter]


_coplay = msgspec.json.Decoder(CoPlay)
_play = msgspec.json.Decoder(Play)
_entry = msgspec.json.Decoder(CatalogEntry)
_headers_of, _value_of, _stamp_of = map(attrgetter, ("headers", "value", "timestamp_ms"))
_a_of, _b_of, _weight_of, _time_of = map(attrgetter, ("a", "b", "weight", "time_ms"))
_encoder = msgspec.json.Encoder()

encode = _encoder.encode
"""The JSON of a `Play`, `CoPlay` or `CatalogEntry`."""


def decode_coplays(
    messages: Sequence[Message], *, max_skew_s: float = MAX_SKEW_S
) -> DecodedCoPlays:
    """Decode messages of `coplays`.

    An Arrow message is taken or refused as a whole: a dead letter is sent again as a whole, and
    would then act twice.

    Args:
        max_skew_s: an event that lies further after its own append time is dead.
    """
    if not any(map(_headers_of, messages)):
        return _decode_each(messages, max_skew_s)
    parts: list[DecodedCoPlays] = []
    starts: list[int] = []
    for arrow, run in groupby(range(len(messages)), lambda row: _carries_arrow(messages[row])):
        rows = list(run)
        for some in ([row] for row in rows) if arrow else [rows]:
            part = messages[some[0] : some[-1] + 1]
            found = _decode_columns(part[0], max_skew_s) if arrow else None
            parts.append(_decode_each(part, max_skew_s, arrow=arrow) if found is None else found)
            starts.append(some[0])
    if len(parts) == 1:
        return parts[0]
    pairs = CoPlays(
        a=list(chain.from_iterable(part.pairs.a for part in parts)),
        b=list(chain.from_iterable(part.pairs.b for part in parts)),
        weight=np.concatenate([part.pairs.weight for part in parts]),
        time_ms=np.concatenate([part.pairs.time_ms for part in parts]),
        row=np.concatenate(
            [part.pairs.row + np.int32(start) for part, start in zip(parts, starts, strict=True)]
        ),
    )
    append_ms = np.concatenate([part.append_ms for part in parts])
    return DecodedCoPlays(pairs, append_ms, [letter for part in parts for letter in part.dead])


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
    good = (
        min(map(len, packed.names), default=1) > 0
        and max(map(len, packed.names), default=1) <= MAX_ID
        and _clean(packed.names)
        and ((time_ms >= 0) & (time_ms <= latest_ms)).all()
        and ((weight >= MIN_WEIGHT) & (weight <= MAX_WEIGHT)).all()
        and (packed.first != packed.second).all()
    )
    if not good:
        return None
    names = np.array(packed.names, object)
    pairs = CoPlays(
        a=names[packed.first].tolist(),
        b=names[packed.second].tolist(),
        weight=weight.astype(np.float32),
        time_ms=time_ms,
        row=np.zeros(len(time_ms), np.int32),
    )
    return DecodedCoPlays(pairs, np.full(len(time_ms), message.timestamp_ms, np.int64), [])


def _decode_each(
    messages: Sequence[Message], max_skew_s: float, *, arrow: bool = False
) -> DecodedCoPlays:
    """Event by event, with the reason for each that is wrong."""
    events = None if arrow else _all_at_once(messages)
    rows, dead = list(range(len(messages))), dict[int, DeadLetter]()
    if events is None:
        events, rows, dead = _one_by_one(messages)

    count = len(events)
    pairs = CoPlays(
        a=list(map(_a_of, events)),
        b=list(map(_b_of, events)),
        weight=np.fromiter(map(_weight_of, events), np.float32, count),
        time_ms=np.fromiter(map(_time_of, events), np.int64, count),
        row=np.fromiter(rows, np.int32, count),
    )
    stamps = np.fromiter(map(_stamp_of, messages), np.int64, len(messages))
    append_ms = stamps[pairs.row]
    doubtful = np.flatnonzero(pairs.time_ms > append_ms + int(max_skew_s * 1000)).tolist()
    if not _clean(pairs.a) or not _clean(pairs.b) or any(map(eq, pairs.a, pairs.b)):
        doubtful = list(range(len(pairs)))
    for i in doubtful:
        if (wrong := _wrong_coplay(events[i], int(append_ms[i]), max_skew_s)) is not None:
            dead.setdefault(rows[i], DeadLetter(messages[rows[i]], "ValueError", wrong))
    if not dead:
        return DecodedCoPlays(pairs, append_ms, [])
    good = ~np.isin(pairs.row, np.fromiter(dead, np.int32, len(dead)))
    return DecodedCoPlays(
        pairs if good.all() else pairs.keep(good),
        append_ms[good],
        [dead[row] for row in sorted(dead)],
    )


def _all_at_once(messages: Sequence[Message]) -> list[CoPlay] | None:
    """The events, where all are good JSON; no Python line runs for one of them."""
    try:
        return list(map(_coplay.decode, map(_value_of, messages)))
    except _BAD:
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
            if _carries_arrow(message):
                many = _arrow_coplays(message)
            else:
                many = [_coplay.decode(message.value)]  # type: ignore[arg-type] # None is caught
        except _BAD as error:
            dead[row] = _dead(message, error)
        else:
            events += many
            rows += [row] * len(many)
    return events, rows, dead


def decode_plays(messages: Sequence[Message], *, max_skew_s: float = MAX_SKEW_S) -> DecodedPlays:
    """Decode messages of `plays`; arguments as for `decode_coplays`."""
    plays: list[Play] = []
    rows: list[int] = []
    dead: list[DeadLetter] = []
    decode = _play.decode
    for row, message in enumerate(messages):
        try:
            if message.headers and _is_arrow(message.headers):
                found = _arrow_plays(message)
            else:
                found = [decode(message.value)]  # type: ignore[arg-type] # None is caught
            for play in found:
                _check_id("user", play.user)
                _check_id("title", play.title)
                _check_time(play.time_ms, message.timestamp_ms, max_skew_s)
        except _BAD as error:
            dead.append(_dead(message, error))
        else:
            plays += found
            rows += [row] * len(found)
    return DecodedPlays(plays, rows, dead)


def decode_catalog(
    messages: Sequence[Message], *, max_skew_s: float = MAX_SKEW_S
) -> DecodedCatalog:
    """Decode messages of `catalog`; arguments as for `decode_coplays`.

    An entry's time is no later than its append time: a clock that runs ahead, within `max_skew_s`,
    would else freeze the title against entries of right clocks, and against its retirement.
    """
    entries: list[CatalogEntry] = []
    rows: list[int] = []
    dead: list[DeadLetter] = []
    for row, message in enumerate(messages):
        try:
            entries.append(_catalog_entry(message, max_skew_s))
            rows.append(row)
        except _BAD as error:
            dead.append(_dead(message, error))
    stamps = np.array([messages[row].timestamp_ms for row in rows], np.int64)
    return DecodedCatalog(entries, stamps, rows, dead)


def check_entry(entry: CatalogEntry) -> None:
    """Refuse what a type cannot: for those who publish, who want to know before it is sent.

    Raises:
        ValueError: a control character, a reserved relation, or a number out of bounds.
    """
    msgspec.convert(msgspec.to_builtins(entry), type(entry))
    _check_id("title", entry.title)
    if entry.name is not None and (found := _CONTROL.search(entry.name)):
        raise ValueError(f"name has the control character {found.group()!r}")
    for relation, values in entry.concepts.items():
        if relation in RESERVED:
            raise ValueError(f"relation {relation!r} is reserved: name it otherwise")
        for value in values:
            _check_id(f"concept of {relation!r}", value)


def _catalog_entry(message: Message, max_skew_s: float) -> CatalogEntry:
    if message.headers and _is_arrow(message.headers):
        raise ValueError("an Arrow stream is no catalog event: one title a message, as JSON")
    if not message.key:
        raise ValueError("no key: want the title, by which the topic is compacted")
    key = message.key.decode()
    if message.value is None:
        if len(key) > MAX_ID:
            raise ValueError(f"key has {len(key)} characters: at most {MAX_ID} allowed")
        _check_id("key", key)
        return Retirement(key, max(message.timestamp_ms, 0))
    entry = _entry.decode(message.value)
    check_entry(entry)
    if entry.title != key:
        raise ValueError(f"key {key[:MAX_ID]!r} is not the title {entry.title!r}")
    _check_time(entry.time_ms, message.timestamp_ms, max_skew_s)
    if entry.time_ms > message.timestamp_ms:
        return msgspec.structs.replace(entry, time_ms=message.timestamp_ms)
    return entry


def _wrong_coplay(event: CoPlay, append_ms: int, max_skew_s: float) -> str | None:
    try:
        _check_id("a", event.a)
        _check_id("b", event.b)
        _check_time(event.time_ms, append_ms, max_skew_s)
    except ValueError as error:
        return str(error)
    return f"a and b are both {event.a!r}: no pair" if event.a == event.b else None


def _check_id(what: str, text: str) -> None:
    if not text.isprintable() and (found := _CONTROL.search(text)):
        raise ValueError(f"{what} has the control character {found.group()!r}")


def _check_time(time_ms: int, append_ms: int, max_skew_s: float) -> None:
    ahead_s = (time_ms - append_ms) / 1000
    if ahead_s > max_skew_s:
        raise ValueError(
            f"time_ms {time_ms} lies {ahead_s:.0f} s after the append: {max_skew_s:.0f} s allowed"
        )


def _clean(texts: list[str]) -> bool:
    """Whether there is surely no control character; one call for a whole column."""
    return "".join(texts).isprintable()


def _carries_arrow(message: Message) -> bool:
    return message.headers is not None and _is_arrow(message.headers)


def _is_arrow(headers: list[tuple[str, bytes | None]]) -> bool:
    return any(
        name.lower() == "content-type" and value is not None and value.decode("latin-1") == ARROW
        for name, value in headers
    )


def _arrow_coplays(message: Message) -> list[CoPlay]:
    columns = read_columns(message.value, {"a": str, "b": str, "time_ms": int}, {"weight": float})
    weights = columns.get("weight", [1.0] * len(columns["a"]))
    return _converted(
        CoPlay,
        zip(columns["a"], columns["b"], columns["time_ms"], weights, strict=True),
        ("a", "b", "time_ms", "weight"),
    )


def _arrow_plays(message: Message) -> list[Play]:
    columns = read_columns(
        message.value, {"user": str, "title": str, "time_ms": int}, {"seconds": float}
    )
    seconds = columns.get("seconds", [None] * len(columns["user"]))
    return _converted(
        Play,
        zip(columns["user"], columns["title"], columns["time_ms"], seconds, strict=True),
        ("user", "title", "time_ms", "seconds"),
    )


def _converted(kind: type[T], rows: Iterable[tuple[Any, ...]], names: tuple[str, ...]) -> list[T]:
    """Rows through the same type that JSON goes through: the same bounds, the same reasons."""
    records = [dict(zip(names, row, strict=True)) for row in rows]
    return msgspec.convert(records, list[kind])  # type: ignore[valid-type]


# A deeply nested value overflows the decoder's stack; a value that is missing has the wrong type.
_BAD = (ValueError, RecursionError, TypeError, ArrowError)


def _dead(message: Message, error: Exception) -> DeadLetter:
    if message.value is None:
        reason = "no value"
    elif not message.value:
        reason = "empty value"
    else:
        reason = str(error)
    kind = type(error).__name__
    if isinstance(error, UnicodeDecodeError):
        reason = f"not UTF-8: {error.reason} at byte {error.start}"
    return DeadLetter(message, kind, reason[:500])
