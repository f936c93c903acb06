"""Commands of operators: `upwell dead-letters list|show|redrive`, `upwell checkpoint list|verify`.

A dead letter is named by its place in `<topic>.dead`, PARTITION:OFFSET, as `list` prints it.
"""

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streams.cli_common import ConfigOption, Failure, JsonOption, settings_of
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.checkpoint import Checkpoint, Damage
    from streams.dead_letters import Dead

dead_letters = typer.Typer(
    help="Look at messages that were set aside, and send them again.", no_args_is_help=True
)
checkpoints = typer.Typer(help="Look at checkpoints, and check them.", no_args_is_help=True)

SHOWN = 60  # characters of a value in a list
PIPE_WIDTH = 1000

TopicArgument = Annotated[str, typer.Argument(help="the topic that they came from")]
ErrorOption = Annotated[str | None, typer.Option("--error", help="only of this class of error")]
StageOption = Annotated[str | None, typer.Option("--stage", help="only of this stage: decode, ...")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="only with this text in it")]
SinceOption = Annotated[
    float | None, typer.Option("--since-h", min=0, help="only of the last so many hours")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(dead_letters, name="dead-letters")
    app.add_typer(checkpoints, name="checkpoint")


@dead_letters.command("list", epilog="Example: `upwell dead-letters list coplays --reason time_ms`")
def list_letters(
    topic: Annotated[
        str | None, typer.Argument(help="the topic that they came from; none: each of ours")
    ] = None,
    error: ErrorOption = None,
    stage: StageOption = None,
    reason: ReasonOption = None,
    since_h: SinceOption = None,
    every: Annotated[
        bool, typer.Option("--all", help="also those that were sent again since")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what was set aside, and why."""
    settings = settings_of(config)
    chosen = _filter(error, stage, reason, since_h)
    kafka = settings.kafka
    letters = [
        letter
        for name in ([topic] if topic else [kafka.plays, kafka.coplays, kafka.catalog])
        for letter in _read(settings, name)
        if chosen(letter) and (every or not letter.redriven)
    ]
    if as_json:
        typer.echo(json.dumps([_as_json(one) for one in letters]))
        return
    table = Table("topic", "id", "source", "when", "stage", "why", "value", box=None)
    table.header_style = "bold"
    for one in letters:
        table.add_row(
            one.topic,
            one.id,
            one.source,
            _clock(one.timestamp_ms / 1000),
            "sent again" if one.redriven else one.stage,
            _text(f"{one.error}: {one.reason}".encode()),
            _text(one.value)[:SHOWN],
        )
    _console().print(table)
    typer.echo(f"{len(letters)} dead letters")


@dead_letters.command(epilog="Example: `upwell dead-letters show coplays 0:12`")
def show(
    topic: TopicArgument,
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="PARTITION:OFFSET")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print one dead letter, whole."""
    found = [one for one in _read(settings_of(config), topic) if one.id == letter_id]
    if not found:
        raise Failure(f"{topic} has no dead letter {letter_id}; `upwell dead-letters list` has all")
    fields = _as_json(found[0])
    if as_json:
        typer.echo(json.dumps(fields))
        return
    for name, value in fields.items():
        typer.echo(f"{name:12} {value}")


@dead_letters.command(epilog="Example: `upwell dead-letters redrive coplays --reason truncated`")
def redrive(
    topic: TopicArgument,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="PARTITION:OFFSET; none: all")
    ] = None,
    error: ErrorOption = None,
    stage: StageOption = None,
    reason: ReasonOption = None,
    since_h: SinceOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say how many")] = False,
    config: ConfigOption = None,
) -> None:
    """Send dead letters to their topic again, each once however often this is called."""
    from streams import dead_letters as letters
    from streams.producer import Producer

    settings = settings_of(config)
    wanted = _filter(error, stage, reason, since_h)
    kafka = settings.kafka
    if ids:
        unknown = set(ids) - {one.id for one in _read(settings, topic)}
        if unknown:
            raise Failure(f"{topic} has no dead letter {min(unknown)}; nothing was sent")

    def chosen(one: "Dead") -> bool:
        return wanted(one) and (not ids or one.id in ids)

    if dry_run:
        left = [one for one in _read(settings, topic) if chosen(one) and not one.redriven]
        whole = sum(not one.truncated for one in left)
        typer.echo(f"{whole} dead letters would be sent to {topic}, {len(left) - whole} were cut")
        return
    producer = Producer(kafka.bootstrap, kafka.client(), timeout_s=kafka.startup_timeout_s)
    sent = letters.redrive(producer, kafka.bootstrap, topic, kafka.client(), chosen=chosen)
    typer.echo(f"{sent} dead letters sent to {topic}")


@checkpoints.command("list", epilog="Example: `upwell checkpoint list --json`")
def list_checkpoints(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the checkpoints, and what each one holds."""
    found = _checkpoints(settings_of(config).checkpoint.folder)
    if as_json:
        typer.echo(json.dumps([_described(*one) for one in found]))
        return
    table = Table("number", "written", "MB", "seq", "step", "messages", "state", box=None)
    table.header_style = "bold"
    for folder, one in found:
        told = _described(folder, one)
        table.add_row(
            told["number"],
            _clock(told["written_s"]),
            f"{told['bytes'] / 1e6:.1f}",
            *(str(told.get(name, "")) for name in ("seq", "step", "messages")),
            "damaged" if "damage" in told else "whole",
        )
    _console().print(table)


@checkpoints.command(epilog="Example: `upwell checkpoint verify`")
def verify(
    folder: Annotated[
        Path | None, typer.Argument(help="of checkpoints; none: that of the settings")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Check each byte of each checkpoint. Exit code 1 if one is damaged."""
    root = folder or settings_of(config).checkpoint.folder
    damaged = 0
    for place, one in _checkpoints(root):
        reason = _described(place, one).get("damage")
        damaged += reason is not None
        typer.echo(f"{place.name}  {reason or 'whole'}")
    if damaged:
        raise Failure(f"{damaged} checkpoints under {root} are damaged: a worker passes them over")


def _filter(
    error: str | None, stage: str | None, reason: str | None, since_h: float | None
) -> "Callable[[Dead], bool]":
    oldest_ms = 0 if since_h is None else (time.time() - since_h * 3600) * 1000

    def chosen(one: "Dead") -> bool:
        return (
            (error is None or one.error == error)
            and (stage is None or one.stage == stage)
            and (reason is None or reason.lower() in one.reason.lower())
            and one.timestamp_ms >= oldest_ms
        )

    return chosen


def _read(settings: Settings, topic: str) -> "list[Dead]":
    from streams.dead_letters import read_dead

    kafka = settings.kafka
    return read_dead(kafka.bootstrap, topic, kafka.client(), timeout_s=kafka.startup_timeout_s)


def _as_json(one: "Dead") -> dict[str, Any]:
    return {
        "topic": one.topic,
        "id": one.id,
        "source": one.source,
        "timestamp_ms": one.timestamp_ms,
        "stage": one.stage,
        "error": one.error,
        "reason": one.reason,
        "redriven": one.redriven,
        "truncated": one.truncated,
        "key": _text(one.key),
        "headers": {name: _text(value) for name, value in one.headers},
        "value": _text(one.value),
    }


def _text(raw: bytes | None) -> str:
    """Bytes for the eye: text where they are, else base64; control characters escaped."""
    if raw is None:
        return "null"
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(raw).decode()
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _console() -> Console:
    """In a pipe a row is a line: nothing is cut or folded."""
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _checkpoints(root: Path) -> "list[tuple[Path, Checkpoint | Damage]]":
    from streams import checkpoint

    found = list(checkpoint.every(root))
    if not found:
        raise Failure(
            f"no checkpoint under {root}; `upwell pretrain` makes one, checkpoint.folder says where"
        )
    return found


def _described(folder: Path, one: "Checkpoint | Damage") -> dict[str, Any]:
    """A checkpoint as JSON; `messages` were folded in from Kafka since its topics' beginning."""
    from streams.checkpoint import Checkpoint

    told: dict[str, Any] = {
        "number": folder.name,
        "written_s": folder.stat().st_mtime,
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    }
    if isinstance(one, Checkpoint):
        state = one.meta.get("state", {})
        told["seq"], told["step"] = state.get("seq"), one.meta.get("step")
        told["messages"] = sum(at for _, _, at in state.get("positions", []))
    else:
        told["damage"] = one.reason
    return told
