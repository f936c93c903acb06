"""What the commands share: options, progress bars, and the error that becomes exit code 1."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from streams.settings import Settings, load_settings

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file; else UPWELL_CONFIG, ./upwell.toml")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]


READ_PATIENCE_S = 5.0


class Failure(RuntimeError):
    """A command that could not do its work: what failed, and what to do."""


class Report(Protocol):
    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` parts of `step` are done; `note` stands behind the bar."""
        ...


def settings_of(config: Path | None) -> Settings:
    """The settings in force; a wrong one ends the program with exit code 2 (see `main`)."""
    return load_settings(config)


def client_of(config: Path | None) -> Any:
    """A client of Redis for a command that reads: it does not wait long.

    Raises:
        RedisFailed: Redis does not answer, or does not let us in; the address is named.
    """
    from serve.connection import connect

    redis = settings_of(config).redis
    return connect(
        redis.url.get_secret_value(),
        timeout_s=redis.timeout_s,
        startup_timeout_s=min(redis.startup_timeout_s, READ_PATIENCE_S),
    )


def empty_root(settings: Settings) -> Path:
    """The folder of checkpoints, for a command that writes the first one.

    Raises:
        Failure: it holds some already.
    """
    root = settings.checkpoint.folder
    if any(root.glob("[0-9]*")):
        raise Failure(
            f"{root} holds checkpoints already; move them away, or name another folder "
            "(checkpoint.folder)"
        )
    return root


@contextmanager
def progress_bars(console: Console) -> Iterator[Report]:
    """A bar a step, on a terminal; elsewhere one line as each step ends."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars: dict[str, int] = {}

        def report(step: str, done: int, total: int, note: str = "") -> None:
            if step not in bars:
                bars[step] = progress.add_task(step, total=total, note=note)
            progress.update(progress.task_ids[bars[step]], completed=done, total=total, note=note)
            if not console.is_terminal and done == total:
                console.print(f"{step}: {total} {note}".rstrip(), highlight=False)

        yield report
