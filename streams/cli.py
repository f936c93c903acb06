"""The command `upwell`: its subcommands, and how each ends.

Exit codes: 0 done, 1 failed (a message says what and what to do), 2 wrong use, 130 interrupted.
Heavy imports stand inside the commands, so that `--help` answers at once.
"""

import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from streams import (
    cli_backfill,
    cli_catalog,
    cli_console,
    cli_embeddings,
    cli_evaluate,
    cli_explain,
    cli_operate,
    cli_partition,
    cli_prepare,
    cli_spaces,
    logs,
)
from streams.cli_common import ConfigOption, JsonOption, settings_of
from streams.settings import SettingsError, effective

# Threads of OpenMP that wait must not spin: lanes, servers and trainers share few cores. It is read
# once, when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_ROOMS = {"streams", "model", "partition", "store", "serve"}

app = typer.Typer(
    name="upwell",
    help="Keeps title embeddings fresh: Kafka in, a dynamic graph, a SemanticGNN, Redis out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(cli_catalog.app, name="catalog")
app.add_typer(cli_spaces.app, name="spaces")
cli_embeddings.register(app)
cli_prepare.register(app)
cli_partition.register(app)
cli_backfill.register(app)
cli_explain.register(app)
cli_evaluate.register(app)
cli_operate.register(app)
cli_console.register(app)


@app.command(epilog="Example: `upwell worker --config upwell.toml`")
def worker(config: ConfigOption = None) -> None:
    """Follow co-plays and the catalogue, and keep Redis fresh, until SIGTERM or Ctrl-C."""
    settings = settings_of(config)
    logs.set_up(settings.worker.log_level, settings.logs.format)
    # Before torch loads: its OpenMP reads them once.
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.worker.threads))
    from streams.worker import Worker

    running = Worker.start(settings)
    _stop_on_signals(running.request_stop)
    running.run()
    gc.freeze()  # else Python walks over every object once more before it ends: seconds


@app.command(epilog="Example: `upwell sessions --config upwell.toml`")
def sessions(config: ConfigOption = None) -> None:
    """Pair each user's plays into co-plays (a Faust app), until SIGTERM or Ctrl-C."""
    settings = settings_of(config)
    logs.set_up(settings.worker.log_level, settings.logs.format)
    from streams.sessions_command import run

    run(settings)


@app.command(epilog="Example: `UPWELL_KAFKA__BOOTSTRAP=kafka:9092 upwell config --json`")
def config(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print every setting in force, and where it comes from. Secrets are masked."""
    rows = list(effective(settings_of(config), config))
    if as_json:
        found = {row.key: {"value": row.value, "source": row.source} for row in rows}
        typer.echo(json.dumps(found, indent=1))
        return
    table = Table("setting", "value", "source", "what it is", box=None, header_style="bold")
    for row in rows:
        table.add_row(row.key, row.value, row.source, row.description)
    Console().print(table)


@app.command(epilog="Example: `upwell demo --report upwell-report.json --page upwell-report.html`")
def demo(
    report: Annotated[Path | None, typer.Option(help="write the JSON report here")] = None,
    page: Annotated[Path, typer.Option(help="write the HTML page here")] = Path(
        "upwell-report.html"
    ),
    plays: Annotated[int, typer.Option(min=500, help="plays to stream")] = 40_000,
    rate: Annotated[float, typer.Option(min=1, help="plays a second at most")] = 400.0,
    new_titles: Annotated[int, typer.Option(min=0, help="titles held back from all")] = 150,
    cycle_s: Annotated[float, typer.Option(min=1, help="seconds a training cycle")] = 12.0,
    seed: Annotated[int, typer.Option(min=0, help="of the plan and the model")] = 0,
    keep: Annotated[Path | None, typer.Option(help="keep logs and checkpoints here")] = None,
) -> None:
    """Run the main job on real plays, end to end, with a broker and a Redis of its own."""
    from streams.demo.run import DemoOptions, run_demo

    run_demo(
        DemoOptions(
            report=report,
            page=page,
            plays=plays,
            rate=rate,
            new_titles=new_titles,
            cycle_s=cycle_s,
            seed=seed,
            keep=keep,
        ),
        Console(),
    )


def _stop_on_signals(stop: Callable[[], None]) -> None:
    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def main() -> None:
    """The entry point: an error that a person can mend becomes one message and an exit code."""
    try:
        app()
    except SettingsError as error:
        _say(error)
        sys.exit(2)
    except (ValueError, OSError, RuntimeError) as error:
        if not _is_ours(error):
            raise
        _say(error)
        sys.exit(1)


def _is_ours(error: Exception) -> bool:
    """Whether the error was written for a person: our own kinds, bad values, and the system's."""
    room = type(error).__module__.partition(".")[0]
    return room in _ROOMS or isinstance(error, ValueError | OSError)


def _say(error: Exception) -> None:
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"upwell: {error}")


if __name__ == "__main__":
    main()
