"""Commands that watch: `upwell console` (a page), `upwell top` (a terminal), `upwell canary`."""

import contextlib
import json
import signal
import threading
import webbrowser
from collections.abc import Iterator
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from streams.cli_common import ConfigOption, Failure, JsonOption, client_of, settings_of

PORT = 9466
WorkerOption = Annotated[
    str | None, typer.Option("--worker", help="its worker.id; none: the first that has a heartbeat")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command(epilog="Example: `upwell console --port 8080`")(console)
    app.command(epilog="Example: `upwell top --once`")(top)
    app.command(epilog="Example: `UPWELL_CANARY__PORT=9465 upwell canary`")(canary)


def console(
    host: Annotated[str, typer.Option(help="where the page answers")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="of the same; 0: a free one")] = PORT,
    worker: WorkerOption = None,
    browse: Annotated[bool, typer.Option("--open", help="open it in a browser")] = False,
    config: ConfigOption = None,
) -> None:
    """Serve the live page until Ctrl-C. It needs Redis; a worker of any machine may be watched."""
    from streams.console.app import Console as Page

    page = Page(settings_of(config), host, port, worker)
    url = f"http://{page.server.address}/"
    typer.echo(f"the page is at {url}; Ctrl-C ends it")
    if browse:
        webbrowser.open(url)
    with contextlib.closing(page), _asked_to_stop() as stop:
        stop.wait()


def top(
    once: Annotated[bool, typer.Option("--once", help="print it once, and end")] = False,
    every_s: Annotated[float, typer.Option("--every-s", min=0.1, help="between two looks")] = 1.0,
    worker: WorkerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show freshness, lanes and backlog in the terminal; with --once, exit code 1 if not well."""
    from serve.status import read_status
    from streams.console.app import worker_of
    from streams.console.terminal import screen, trouble

    client = client_of(config)

    def look() -> dict[str, Any]:
        found = worker_of(read_status(client), worker)
        if found is None:
            who = f"worker {worker!r}" if worker else "worker"
            raise Failure(f"no {who} has a heartbeat in Redis; start one with `upwell worker`")
        return found

    if once or as_json:
        found = look()
        out = Console()
        if as_json:
            typer.echo(json.dumps(found))
        else:
            if not out.is_terminal:
                out.width = 100
            out.print(screen(found))
        if trouble(found) is not None:
            raise typer.Exit(1)
        return
    with Live(screen(look()), screen=True, auto_refresh=False) as live, _asked_to_stop() as stop:
        while not stop.wait(every_s):
            live.update(screen(look()), refresh=True)


def canary(config: ConfigOption = None) -> None:
    """Send a heartbeat title through Kafka every few seconds, and time its way to Redis."""
    from streams.canary import run
    from streams.logs import set_up

    settings = settings_of(config)
    set_up(settings.worker.log_level, settings.logs.format)
    run(settings)


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {one: signal.signal(one, handle) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
