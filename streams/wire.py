"""The events' types, with the bounds of every number and length, and what no type can check.

    plays      {"user", "title", "time_ms", "seconds"?}              key: user
    coplays    {"a", "b", "weight" = 1.0, "time_ms"}                 key: any; undirected
    catalog    {"title", "name"?, "time_ms", "concepts": {relation: [value, ...]}, "features"?}
               key: the title; a null value retires it

streams/events.py reads them. Times are milliseconds since the Unix epoch.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from streams.arrow import CONTENT_TYPE as ARROW
from streams.arrow import ArrowError

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

# A deeply nested value overflows the decoder's stack; a value that is missing has the wrong type.
BAD = (ValueError, RecursionError, TypeError, ArrowError)

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


_encoder = msgspec.json.Encoder()

encode = _encoder.encode
"""The JSON of a `Play`, `CoPlay` or `CatalogEntry`."""


def check_entry(entry: CatalogEntry) -> None:
    """Refuse what a type cannot: for those who publish, who want to know before it is sent.

    Raises:
        ValueError: a control character, a reserved relation, or a number out of bounds.
    """
    msgspec.convert(msgspec.to_builtins(entry), type(entry))
    check_id("title", entry.title)
    if entry.name is not None and (found := _CONTROL.search(entry.name)):
        raise ValueError(f"name has the control character {found.group()!r}")
    for relation, values in entry.concepts.items():
        if relation in RESERVED:
            raise ValueError(f"relation {relation!r} is reserved: name it otherwise")
        for value in values:
            check_id(f"concept of {relation!r}", value)


def check_coplay(event: CoPlay) -> None:
    """Refuse what a type cannot.

    Raises:
        ValueError: a control character, or a pair of one title.
    """
    check_id("a", event.a)
    check_id("b", event.b)
    if event.a == event.b:
        raise ValueError(f"a and b are both {event.a!r}: no pair")


def check_play(event: Play) -> None:
    """Refuse what a type cannot.

    Raises:
        ValueError: a control character.
    """
    check_id("user", event.user)
    check_id("title", event.title)


def check_id(what: str, text: str) -> None:
    """Refuse control characters.

    Raises:
        ValueError: names `what`, and the character.
    """
    if not text.isprintable() and (found := _CONTROL.search(text)):
        raise ValueError(f"{what} has the control character {found.group()!r}")


def check_time(time_ms: int, append_ms: int, max_skew_s: float) -> None:
    """Refuse an event that lies further after its append than a clock may be wrong.

    Raises:
        ValueError: says by how much.
    """
    ahead_s = (time_ms - append_ms) / 1000
    if ahead_s > max_skew_s:
        raise ValueError(
            f"time_ms {time_ms} lies {ahead_s:.0f} s after the append: {max_skew_s:.0f} s allowed"
        )


def carries_arrow(message: Message) -> bool:
    """Whether the message's content-type header says that it holds an Arrow stream."""
    return message.headers is not None and any(
        name.lower() == "content-type" and value is not None and value.decode("latin-1") == ARROW
        for name, value in message.headers
    )


def dead_letter(message: Message, error: Exception) -> DeadLetter:
    """The letter of a message whose decoding raised one of `BAD`."""
    if message.value is None and not isinstance(error, ValueError):  # else the key is wrong
        reason = "no value"
    elif message.value == b"":
        reason = "empty value"
    else:
        reason = str(error)
    kind = type(error).__name__
    if isinstance(error, UnicodeDecodeError):
        reason = f"not UTF-8: {error.reason} at byte {error.start}"
    return DeadLetter(message, kind, reason[:500])
