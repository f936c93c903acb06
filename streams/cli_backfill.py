"""Commands that bring a history in from files: `replay` and `bootstrap`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from streams.cli_common import ConfigOption, Failure, empty_root, progress_bars, settings_of
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.files import RowFile
    from streams.mapping import Events, RowMap
    from streams.replay import Progress, Replay


class Kind(StrEnum):
    plays = "plays"
    coplays = "coplays"
    catalog = "catalog"


class Content(StrEnum):
    json = "json"
    arrow = "arrow"


class OnError(StrEnum):
    stop = "stop"
    skip = "skip"


class Unit(StrEnum):
    ms = "ms"
    s = "s"
    us = "us"
    iso = "iso"


FILE = "rows as .jsonl, .csv, .tsv (each also .gz) or .parquet"
ColumnsOption = Annotated[
    str | None, typer.Option(help="which column is which field: a=src,b=dst,time_ms=ts")
]
UnitOption = Annotated[Unit, typer.Option("--time-unit", help="of numbers in the time's column")]
SeparatorOption = Annotated[str, typer.Option(help="between the concepts in one cell")]
OnErrorOption = Annotated[OnError, typer.Option(help="what to do about a row that is wrong")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command(
        epilog="Example: `upwell replay pairs.csv.gz --topic coplays --columns a=src,b=dst "
        "--content arrow`; `upwell replay plays.parquet --topic plays --columns "
        "user=member,time_ms=watched_at --rate 500`; `upwell replay movies.csv --topic catalog "
        "--columns title=movieId,name=title,concepts.genre=genres`"
    )(replay)
    app.command(
        epilog="Example: `upwell bootstrap --catalog movies.csv --catalog-columns "
        "title=movieId,name=title,concepts.genre=genres --plays ratings.csv --columns "
        "user=userId,title=movieId,time_ms=timestamp --time-unit s`"
    )(bootstrap)


def replay(
    file: Annotated[Path, typer.Argument(help=FILE)],
    topic: Annotated[Kind, typer.Option(help="what the rows are")],
    columns: ColumnsOption = None,
    time_unit: UnitOption = Unit.ms,
    separator: SeparatorOption = "|",
    rate: Annotated[float | None, typer.Option(min=0.1, help="events a second; else all")] = None,
    content: Annotated[
        Content, typer.Option(help="arrow: many co-plays a message, many times faster")
    ] = Content.json,
    on_error: OnErrorOption = OnError.stop,
    from_row: Annotated[int, typer.Option(min=1, help="pass over the rows before it")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="look at all rows, send none")] = False,
    config: ConfigOption = None,
) -> None:
    """Send a file of plays, co-plays or titles into its topic."""
    from streams.mapping import Events
    from streams.producer import Producer
    from streams.replay import Replay

    if content is Content.arrow and topic is not Kind.coplays:
        raise typer.BadParameter(
            f"--content arrow: {topic} go one a message, under their key; only coplays go as Arrow"
        )
    settings = settings_of(config)
    events = Events(
        _file(file),
        _map(settings, topic, columns, time_unit, separator),
        skip=on_error is OnError.skip,
        first_row=from_row,
    )
    kafka = settings.kafka
    name: str = getattr(kafka, topic.value)
    partitions = 1 if dry_run else _partitions(settings, name)
    producer = (
        None
        if dry_run
        else Producer(
            kafka.bootstrap, kafka.client(), timeout_s=kafka.startup_timeout_s, linger_s=0.02
        )
    )
    step = "look" if dry_run else "replay"
    start = time.monotonic()
    with progress_bars(Console(stderr=True)) as report:

        def bar(done: int, delivered: int) -> None:
            unit = "rows" if file.suffix == ".parquet" else "bytes"
            count = f"{delivered} delivered" if producer else f"{events.good} right"
            report(step, done, events.file.size, f"{unit}, {count}")

        def told(progress: "Progress") -> None:
            bar(min(events.file.read_so_far, events.file.size - 1), progress.delivered)

        running = Replay(producer, name, partitions, content=content.value, rate=rate, report=told)
        with _hint(events, running if producer else None):
            running.run(events)
        bar(events.file.size, running.progress.delivered)
    _warn(events)
    took_s = max(time.monotonic() - start, 1e-9)
    if dry_run:
        typer.echo(f"{events.good} rows are right, {events.bad} are wrong; nothing was sent")
        if events.bad:
            raise typer.Exit(1)
        return
    done = running.progress.delivered
    typer.echo(
        f"{done} {topic} delivered to {name} in {took_s:.1f} s, {done / took_s:.0f} a second"
        + (f"; {events.bad} rows skipped" if events.bad else "")
    )


def bootstrap(
    catalog: Annotated[Path, typer.Option(help=f"titles with their concepts: {FILE}")],
    plays: Annotated[Path | None, typer.Option(help="plays, which are paired")] = None,
    coplays: Annotated[Path | None, typer.Option(help="co-plays, instead of plays")] = None,
    columns: ColumnsOption = None,
    catalog_columns: Annotated[
        str | None,
        typer.Option(help="of the catalogue: title=movieId,name=title,concepts.genre=genres"),
    ] = None,
    time_unit: UnitOption = Unit.ms,
    separator: SeparatorOption = "|",
    on_error: OnErrorOption = OnError.stop,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="gradient steps of the GNN")] = None,
    config: ConfigOption = None,
) -> None:
    """Make the checkpoint that a worker starts from, out of files, without a broker."""
    from model.settings import PretrainConfig
    from streams.backfill import fold_catalog, fold_coplays, fold_plays
    from streams.bootstrap import finish
    from streams.mapping import Events
    from streams.state import State
    from streams.wiring import pairing_of

    if (plays is None) == (coplays is None):
        raise typer.BadParameter("want --plays FILE or --coplays FILE, one of them")
    settings = settings_of(config)
    root = empty_root(settings)
    kind, file = (Kind.plays, plays) if plays else (Kind.coplays, coplays or Path())
    skip = on_error is OnError.skip
    titles_map = _map(settings, Kind.catalog, catalog_columns, time_unit, separator)
    # Older than any event of the stream: what a live catalogue says goes before the file.
    titles = Events(_file(catalog), replace(titles_map, untimed_ms=0), skip=skip)
    history = Events(_file(file), _map(settings, kind, columns, time_unit, separator), skip=skip)
    chosen = PretrainConfig() if steps is None else replace(PretrainConfig(), steps=steps)
    state = State.empty(settings.graph)
    with progress_bars(Console(stderr=True)) as report:
        with _hint(titles), _hint(history):
            fold_catalog(state, titles, report)
            if kind is Kind.plays:
                pairs = fold_plays(state, history, pairing_of(settings.sessions), report)
            else:
                pairs = fold_coplays(state, history, report)
        if not len(pairs):
            raise Failure(
                f"{file}: {history.good} {kind} make no co-play; is the time's unit right "
                f"(--time-unit), and are users' plays within {settings.sessions.gap_s:g} s?"
            )
        about = {kind.value: history.good, "titles": titles.good}
        made = finish(state, pairs, root, about=about, config=chosen, seed=seed, report=report)
    _warn(titles)
    _warn(history)
    for name, value in made.metrics.items():
        typer.echo(f"{name:16} {value:.4f}")
    typer.echo(f"{'checkpoint':16} {root}")


def _file(path: Path) -> "RowFile":
    """The file, opened; a wrong name is wrong use."""
    from streams.files import FileFailed, RowFile

    try:
        return RowFile(path)
    except FileFailed as error:
        raise typer.BadParameter(str(error)) from None


def _map(
    settings: Settings, kind: Kind, columns: str | None, unit: Unit, separator: str
) -> "RowMap":
    from streams.mapping import RowMap, parse_columns

    try:
        named = parse_columns(columns, kind.value)
    except ValueError as error:
        raise typer.BadParameter(f"--columns: {error}") from None
    return RowMap(
        kind.value,
        now_ms=int(time.time() * 1000),
        columns=named,
        time_unit=unit.value,
        separator=separator,
        max_skew_s=settings.kafka.max_skew_s,
    )


def _partitions(settings: Settings, topic: str) -> int:
    """How many the topic has; it is made where it is missing."""
    from streams.topics import ensure_topics
    from streams.wiring import topics_of

    kafka = settings.kafka
    wanted = [one for one in topics_of(kafka) if one.name == topic]
    there = ensure_topics(
        kafka.bootstrap, wanted, kafka.client(), timeout_s=kafka.startup_timeout_s
    )
    return there[topic]


@contextmanager
def _hint(events: "Events", running: "Replay | None" = None) -> Iterator[None]:
    """Say of what ends the work which row it was, and where to go on."""
    from streams.files import FileFailed
    from streams.mapping import BadRow
    from streams.producer import DeliveryFailed, TooLarge
    from streams.topics import BrokerUnreachable

    path = events.file.path
    broken = (BadRow, FileFailed, BrokerUnreachable, DeliveryFailed, TooLarge)
    try:
        yield
    except (*broken, KeyboardInterrupt) as error:
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        if isinstance(error, BadRow):
            why = f"{path}, {error}; mend it, or pass over such rows with --on-error skip"
        if running is None:
            raise Failure(why) from None
        safe, sent = running.progress.safe, running.progress.sent
        hint = f"rows up to {safe} are with the broker: go on with --from-row {safe + 1}"
        if sent > safe:
            hint += (
                f". Of rows {safe + 1} to {sent} some may be there too; a co-play among them "
                "would count twice"
            )
        if isinstance(error, KeyboardInterrupt):
            Console(stderr=True, highlight=False).print(f"upwell: {why}\n{hint}", soft_wrap=True)
            raise typer.Exit(130) from None
        raise Failure(f"{why}\n{hint}") from None


def _warn(events: "Events") -> None:
    """Show the rows that were passed over."""
    if not events.bad:
        return
    shown = "\n".join(events.first_bad)
    more = events.bad - len(events.first_bad)
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(
        f"{events.bad} rows of {events.file.path} were passed over:\n{shown}"
        + (f"\n... and {more} more" if more else "")
    )
