"""Commands of the catalog team: `upwell catalog publish` and `upwell catalog retire`."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streams.cli_common import ConfigOption, Failure, progress_bars, settings_of
from streams.settings import Settings

app = typer.Typer(help="Publish and retire titles.", no_args_is_help=True)

WaitOption = Annotated[
    bool, typer.Option("--wait", help="until each is visible in Redis, and say how long it took")
]
PATIENCE_S = 60.0
POLL_S = 0.02


@app.command(epilog="Example: `upwell catalog publish titles.jsonl --wait`")
def publish(
    file: Annotated[str, typer.Argument(help="one catalog event a line, JSON; - for stdin")],
    wait: WaitOption = False,
    config: ConfigOption = None,
) -> None:
    """Publish titles with their concepts; nothing is sent unless every line is right."""
    from streams.events import encode

    settings = settings_of(config)
    entries = _entries(file, settings.kafka.max_skew_s)
    watch = _Watch(settings, [entry.title for entry in entries]) if wait else None
    sent = _send(settings, [(entry.title, encode(entry)) for entry in entries])
    typer.echo(f"{len(entries)} titles published to {settings.kafka.catalog}")
    if watch is not None:
        watch.until_seen(sent, gone=False)


@app.command(epilog="Example: `upwell catalog retire m20 m21`")
def retire(
    titles: Annotated[list[str], typer.Argument(help="ids of titles")],
    wait: WaitOption = False,
    config: ConfigOption = None,
) -> None:
    """Take titles out of catalogue, graph and Redis."""
    settings = settings_of(config)
    watch = _Watch(settings, titles) if wait else None
    sent = _send(settings, [(title, None) for title in titles])
    typer.echo(f"{len(titles)} titles retired in {settings.kafka.catalog}")
    if watch is not None:
        watch.until_seen(sent, gone=True)


def _entries(file: str, max_skew_s: float) -> list[Any]:
    """The catalog events of a file; a line without `time_ms` means now.

    A worker would set aside what lies further in the future than clocks may differ.

    Raises:
        Failure: lines that are wrong, each by number and reason.
    """
    import msgspec

    from streams.events import CatalogEntry, check_entry
    from streams.wire import check_time

    now_ms = int(time.time() * 1000)
    entries, wrong = [], []
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            fields = msgspec.json.decode(line)
            if isinstance(fields, dict):
                fields.setdefault("time_ms", now_ms)
            entry = msgspec.convert(fields, CatalogEntry)
            check_entry(entry)
            check_time(entry.time_ms, now_ms, max_skew_s)
        except (ValueError, msgspec.MsgspecError) as error:
            wrong.append(f"line {number}: {error}")
        else:
            entries.append(entry)
    if wrong:
        shown = "\n".join(wrong[:20])
        raise Failure(f"{len(wrong)} lines of {file} are wrong, nothing was published:\n{shown}")
    if not entries:
        raise Failure(f"{file} holds no line to publish")
    return entries


def _lines(file: str) -> Iterator[bytes]:
    if file == "-":
        yield from sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as stream:
            yield from stream
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}") from error


def _send(settings: Settings, messages: list[tuple[str, bytes | None]]) -> dict[str, float]:
    """Send messages by title; returns when each was acknowledged by the broker, wall seconds."""
    from streams.producer import Producer

    delivered: dict[str, float] = {}
    kafka = settings.kafka
    producer = Producer(kafka.bootstrap, kafka.client(), timeout_s=kafka.startup_timeout_s)
    with progress_bars(Console(stderr=True)) as report:
        for title, value in messages:

            def acknowledged(title: str = title) -> None:
                delivered[title] = time.time()
                report("publish", len(delivered), len(messages))

            producer.send(kafka.catalog, key=title, value=value, delivered=acknowledged)
        producer.flush()
    return delivered


class _Watch:
    """Looks at titles in Redis from before they are sent: a `seq` that grew is what was sent."""

    def __init__(self, settings: Settings, titles: list[str]) -> None:
        from serve.connection import connect
        from serve.reader import EmbeddingReader

        self._reader = EmbeddingReader(connect(settings.redis.url.get_secret_value()))
        seqs = self._reader.get_many(titles).versions.seq.tolist()
        self._before: dict[str, int] = dict(zip(titles, seqs, strict=True))

    def until_seen(self, sent: dict[str, float], *, gone: bool) -> None:
        """Block until each title shows what was sent, and print how long it took.

        Raises:
            Failure: some did not within `PATIENCE_S` seconds.
        """
        waiting, took = dict(sent), dict[str, float]()
        deadline = time.monotonic() + PATIENCE_S
        while waiting and time.monotonic() < deadline:
            titles = list(waiting)
            batch = self._reader.get_many(titles)
            for title, found, seq in zip(titles, batch.found, batch.versions.seq, strict=True):
                if (not found) if gone else (found and seq > self._before[title]):
                    took[title] = time.time() - waiting.pop(title)
            time.sleep(POLL_S)
        table = Table("title", "seconds", box=None, header_style="bold")
        for title, seconds in took.items():
            table.add_row(title, f"{seconds:.2f}")
        Console().print(table)
        if waiting:
            raise Failure(
                f"{len(waiting)} titles did not show within {PATIENCE_S:g} s, the first "
                f"{next(iter(waiting))!r}; `upwell status` says whether a worker runs"
            )
