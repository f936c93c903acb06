"""From a row of a file to an event: which column is which field, in which unit of time.

A map says where a field of the event comes from: `a=src,b=dst,time_ms=ts`. A field that it does not
name comes from the column of its own name. Of a title, `concepts.genre=genres` makes the column
`genres` the values of its relation `genre`: a list, or text with `separator` between the values.

Ids that are whole numbers become text. An empty cell is a field that is not there.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from streams.files import Row, RowFile
from streams.wire import (
    CatalogEntry,
    CoPlay,
    Play,
    check_coplay,
    check_entry,
    check_play,
    check_time,
)

Topic = Literal["plays", "coplays", "catalog"]
TimeUnit = Literal["ms", "s", "us", "iso"]
Event = Play | CoPlay | CatalogEntry

KINDS: Final[dict[str, type[Play] | type[CoPlay] | type[CatalogEntry]]] = {
    "plays": Play,
    "coplays": CoPlay,
    "catalog": CatalogEntry,
}
_IDS: Final = {"a", "b", "user", "title"}
_FACTOR: Final = {"ms": 1.0, "s": 1000.0, "us": 0.001}
_CONCEPTS: Final = "concepts."
SHOWN: Final = 20  # bad rows that are kept to be shown


class BadRow(ValueError):
    """A row that makes no event: its number, and why."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"row {number}: {why}")
        self.number = number


def parse_columns(text: str | None, topic: str) -> dict[str, str]:
    """The map that `a=src,b=dst` says.

    Raises:
        ValueError: it says something else, or names a field that the topic's events do not have.
    """
    known = set(KINDS[topic].__struct_fields__)
    found: dict[str, str] = {}
    for pair in (text or "").split(","):
        if not pair.strip() and text is None:
            continue
        target, equals, source = (part.strip() for part in pair.partition("="))
        if not (target and equals and source):
            raise ValueError(f"{pair!r} is no column map: want FIELD=COLUMN,FIELD=COLUMN")
        concept = topic == "catalog" and target.startswith(_CONCEPTS)
        if target not in known and not concept:
            raise ValueError(
                f"{target!r} is no field of {topic}: want one of {', '.join(sorted(known))}"
                + (", concepts.RELATION" if topic == "catalog" else "")
            )
        found[target] = source
    return found


@dataclass(frozen=True, slots=True)
class RowMap:
    """How rows become events.

    Attributes:
        topic: what they are: plays, coplays or catalog.
        columns: field of the event -> column of the file.
        time_unit: of numbers in the column of `time_ms`; "iso" for text as 2024-05-01T20:15:00Z.
        separator: between the values of a relation, where they are text.
        now_ms: an event must not lie after it.
        untimed_ms: the time of a title that has none; none: `now_ms`.
        max_skew_s: by how much it may all the same.
    """

    topic: Topic
    now_ms: int
    columns: Mapping[str, str] = field(default_factory=dict)
    time_unit: TimeUnit = "ms"
    separator: str = "|"
    max_skew_s: float = 3600.0
    untimed_ms: int | None = None

    def event(self, row: Row) -> Event:
        """The event that a row holds, as it goes over the wire.

        Raises:
            BadRow: it holds none that readers would take.
        """
        if row.fields is None:
            raise BadRow(row.number, row.error or "cannot be read")
        try:
            return self._event(row.fields)
        except (ValueError, OverflowError, TypeError) as error:
            raise BadRow(row.number, str(error)) from None

    def _event(self, fields: dict[str, Any]) -> Event:
        found: dict[str, Any] = {}
        kind = KINDS[self.topic]
        for target in kind.__struct_fields__:
            source = self.columns.get(target, target)
            value = fields.get(source)
            if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
                if target in self.columns and source not in fields:
                    raise ValueError(f"no column {source!r}: there are {', '.join(fields)}")
                continue
            if target in _IDS and isinstance(value, int) and not isinstance(value, bool):
                value = str(value)
            found[target] = self._time_ms(value) if target == "time_ms" else value
        if kind is CatalogEntry:
            untimed_ms = self.now_ms if self.untimed_ms is None else self.untimed_ms
            found.setdefault("time_ms", untimed_ms)
            found["concepts"] = self._concepts(fields, found.get("concepts"))
        event = msgspec.convert(found, kind, strict=False)
        if isinstance(event, CoPlay):
            check_coplay(event)
        elif isinstance(event, Play):
            check_play(event)
        else:
            check_entry(event)
        check_time(event.time_ms, self.now_ms, self.max_skew_s)
        return event

    def _concepts(self, fields: dict[str, Any], given: Any) -> Any:
        mapped = {
            target.removeprefix(_CONCEPTS): source
            for target, source in self.columns.items()
            if target.startswith(_CONCEPTS)
        }
        if given is None and not mapped:
            raise ValueError(
                "no concepts: map columns to them, --columns concepts.genre=COLUMN, or give the "
                "row an object `concepts`"
            )
        concepts = dict(given) if given is not None else {}
        for relation, source in mapped.items():
            if source not in fields:
                raise ValueError(f"no column {source!r}: there are {', '.join(fields)}")
            value = fields[source]
            if isinstance(value, str):
                value = [part.strip() for part in value.split(self.separator) if part.strip()]
            concepts[relation] = [] if value is None else value
        return concepts

    def _time_ms(self, value: Any) -> int:
        """Milliseconds since the Unix epoch."""
        if isinstance(value, datetime):
            return _ms_of(value)
        if self.time_unit == "iso":
            return _ms_of(datetime.fromisoformat(str(value)))
        if isinstance(value, int) and self.time_unit == "ms":
            return value
        return round(float(value) * _FACTOR[self.time_unit])


class Events:
    """The events of a file, in its order; to be gone through once.

    Args:
        skip: a bad row is counted and passed over, not an error.
        first_row: rows before it are passed over.

    Attributes:
        row: number of the last row that was read.
        good, bad: rows that made an event, and those that made none.
        first_bad: what is wrong with the first few of those.
    """

    def __init__(
        self, file: RowFile, rows: RowMap, *, skip: bool = False, first_row: int = 1
    ) -> None:
        self.file, self._rows, self._skip, self._first_row = file, rows, skip, first_row
        self.row = first_row - 1
        self.good = self.bad = 0
        self.first_bad: list[str] = []

    def __iter__(self) -> Iterator[Event]:
        """Raises BadRow, unless such are skipped, and FileFailed."""
        for row in self.file.rows():
            if row.number < self._first_row:
                continue
            try:
                event = self._rows.event(row)
            except BadRow as error:
                if not self._skip:
                    raise
                self.bad += 1
                if len(self.first_bad) < SHOWN:
                    self.first_bad.append(str(error))
                self.row = row.number
                continue
            self.row = row.number
            self.good += 1
            yield event


def _ms_of(moment: datetime) -> int:
    """A time without a zone is UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
