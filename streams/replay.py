"""Sending a file's rows into a topic, at a rate or as fast as it goes.

Rows are sent in order, in parcels. A parcel has arrived once the broker has acknowledged each of
its messages; `Progress.safe` is the last row up to which all have, and so where to go on after a
failure. A co-play that is sent twice counts twice: what lies between `safe` and `sent` is told.

JSON goes one event a message, under the key that its topic has. Arrow goes many a message, to the
partitions in turn: for co-plays only, whose order between messages means nothing.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from streams.arrow import CONTENT_TYPE, encode_columns
from streams.files import FileFailed
from streams.mapping import BadRow, Event, Events
from streams.producer import Producer
from streams.wire import CatalogEntry, CoPlay, Play, encode

PARCEL: Final = 500  # rows
ARROW_ROWS: Final = 10_000  # events in one Arrow message
TICK_S: Final = 0.05  # parcels are so small that a rate is kept within it
_HEADERS: Final = [("content-type", CONTENT_TYPE.encode())]


@dataclass(slots=True)
class _Parcel:
    last: int
    waiting: int


@dataclass(slots=True)
class Progress:
    """How far it has come.

    Attributes:
        sent: number of the last row that was given to the client.
        safe: row up to which the broker has all.
        delivered: events that the broker has.
    """

    sent: int
    safe: int
    delivered: int = 0


class Replay:
    """One file into one topic.

    Args:
        producer: of the broker; None: rows are only looked at.
        partitions: of the topic.
        rate: events a second, or None.
        report: called after each parcel.
    """

    def __init__(
        self,
        producer: Producer | None,
        topic: str,
        partitions: int,
        *,
        content: Literal["json", "arrow"] = "json",
        rate: float | None = None,
        report: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._producer, self._topic, self._partitions = producer, topic, partitions
        self._content, self._rate, self._report = content, rate, report
        self._parcels: deque[_Parcel] = deque()
        self._messages = 0
        self.progress = Progress(0, 0)

    def run(self, events: Events) -> None:
        """Send all, and wait until it has arrived; `progress` holds whatever ends it.

        Raises:
            BadRow: a row makes no event; those before it have arrived.
            FileFailed: the file is broken; the rows before have arrived.
            BrokerUnreachable, TooLarge, DeliveryFailed: as the producer does.
        """
        start, size = time.monotonic(), self._parcel_rows()
        self.progress = Progress(sent=events.row, safe=events.row)
        parcel: list[Event] = []
        try:
            for event in events:
                parcel.append(event)
                if len(parcel) == size:
                    self._send(parcel, events.row)
                    parcel = []
                    self._wait(start + events.good / self._rate if self._rate else start)
        except (BadRow, FileFailed):
            self._send(parcel, events.row)
            self._finish()
            raise
        finally:
            self._settle()
        self._send(parcel, events.row)
        self._finish()

    def _parcel_rows(self) -> int:
        size = ARROW_ROWS if self._content == "arrow" else PARCEL
        return size if self._rate is None else max(1, min(size, int(self._rate * TICK_S)))

    def _send(self, events: list[Event], row: int) -> None:
        """Give one parcel to the client: the rows up to `row`."""
        if self._producer is not None and events:
            if self._producer.failed:
                self._producer.flush()  # raises
            self.progress.sent = row
            send = self._send_arrow if self._content == "arrow" else self._send_json
            send(self._producer, events, row)
            self._settle()
        self.progress.sent = row
        self._report(self.progress)

    def _send_json(self, producer: Producer, events: list[Event], row: int) -> None:
        parcel = _Parcel(row, len(events))
        self._parcels.append(parcel)

        def delivered() -> None:
            parcel.waiting -= 1
            self.progress.delivered += 1

        for event in events:
            key = _key_of(event)
            producer.send(self._topic, key=key, value=encode(event), delivered=delivered)

    def _send_arrow(self, producer: Producer, events: list[Event], row: int) -> None:
        parcel, count = _Parcel(row, 1), len(events)
        self._parcels.append(parcel)

        def delivered() -> None:
            parcel.waiting = 0
            self.progress.delivered += count

        names = CoPlay.__struct_fields__
        columns = {name: [getattr(event, name) for event in events] for name in names}
        producer.send(
            self._topic,
            key=None,
            value=encode_columns(columns),
            headers=_HEADERS,
            partition=self._messages % self._partitions,
            delivered=delivered,
        )
        self._messages += 1

    def _settle(self) -> None:
        """Move `safe` past the parcels that have arrived."""
        while self._parcels and not self._parcels[0].waiting:
            self.progress.safe = self._parcels.popleft().last

    def _finish(self) -> None:
        try:
            if self._producer is not None:
                self._producer.flush()
        finally:
            self._settle()
        if not self._parcels:
            self.progress.safe = max(self.progress.safe, self.progress.sent)
        self._report(self.progress)

    def _wait(self, due: float) -> None:
        """Sleep until it is time; acknowledgements come in meanwhile."""
        while (left_s := due - time.monotonic()) > 0:
            time.sleep(min(left_s, TICK_S))
            if self._producer is not None:
                self._producer.poll()


def _key_of(event: Event) -> str:
    match event:
        case Play():
            return event.user
        case CoPlay():
            return event.a
        case CatalogEntry():
            return event.title
