"""`upwell spaces`: which embedding spaces there are, and which one readers see."""

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from streams.cli_common import ConfigOption, JsonOption, client_of

app = typer.Typer(help="List, switch, roll back and drop embedding spaces.", no_args_is_help=True)

SpaceArgument = Annotated[str, typer.Argument(help="id of a space")]


@app.command("list", epilog="Example: `upwell spaces list --json`")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show every space, the newest first; the live one is marked."""
    from serve import spaces

    found = spaces.list_spaces(client_of(config))
    if as_json:
        typer.echo(json.dumps([asdict(space) for space in found]))
        return
    table = Table("", "space", "dim", "step", "seq", "created", "live since", box=None)
    for space in found:
        mark = "*" if space.current else ""
        numbers = (str(space.dim), str(space.step), str(space.seq))
        table.add_row(mark, space.name, *numbers, _day(space.created_ms), _day(space.live_ms))
    Console().print(table)


@app.command(epilog="Example: `upwell spaces switch retrained-1121`")
def switch(space: SpaceArgument, config: ConfigOption = None) -> None:
    """Make a filled space the live one, for all readers at once."""
    from serve import spaces

    before = spaces.switch(client_of(config), space)
    typer.echo(f"{space} is live; before: {before or 'none'}")


@app.command(epilog="Example: `upwell spaces rollback`")
def rollback(config: ConfigOption = None) -> None:
    """Make the space live that was live before."""
    from serve import spaces

    typer.echo(f"{spaces.rollback(client_of(config))} is live")


@app.command(epilog="Example: `upwell spaces drop retrained-1120`")
def drop(space: SpaceArgument, config: ConfigOption = None) -> None:
    """Delete a space that is not live."""
    from serve import spaces

    typer.echo(f"{space} dropped, with {spaces.drop(client_of(config), space)} titles")


def _day(time_ms: int) -> str:
    if not time_ms:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ms / 1000))
