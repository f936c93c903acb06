"""What `mkdocs build` adds to the pages that are written by hand.

    reference/settings.md   every setting, from streams/settings.py
    reference/commands.md   every command, from streams/cli.py
    architecture.md, ...    pages of the repository that stand outside of docs/ (`BROUGHT_IN`)

A link from a page to a file outside of docs/ stays what a reader of the repository needs. In the
site it leads to the page that was brought in, or, where there is none, loses its target. A target
that is not there is a warning, which ends a strict build.
"""

import logging
import posixpath
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic.fields import FieldInfo

from streams.cli import app
from streams.settings import Settings, masked

log = logging.getLogger("mkdocs.build_hooks")

ROOT = Path(__file__).resolve().parent.parent
BROUGHT_IN = {
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "figures.md",
    "examples/recommender/README.md": "how-to/example-service.md",
}
GENERATED = "<!-- made by docs/build_hooks.py -->\n\n"
_LINK = re.compile(r"(?P<shown>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_ANY = (2**31 - 1, 30 * 86_400)  # bounds that only keep out what is no number of this kind
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and those that are brought in."""
    made = {"reference/settings.md": settings_page(), "reference/commands.md": commands_page()}
    for source, place in BROUGHT_IN.items():
        made[place] = (ROOT / source).read_text(encoding="utf-8")
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that leave docs/ to where they lead in the site."""
    place = page.file.src_uri
    source = {made: given for given, made in BROUGHT_IN.items()}.get(place, f"docs/{place}")

    def turned(match: re.Match[str]) -> str:
        target = turn(match["target"], source=source, place=place)
        if target is None:
            return match["text"]
        return f"{match['shown']}[{match['text']}]({target})"

    parts, at = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(turned, markdown[at : fence.start()]), fence.group()]
        at = fence.end()
    return "".join([*parts, _LINK.sub(turned, markdown[at:])])


def turn(target: str, *, source: str, place: str) -> str | None:
    """Where a link of the page at `place` leads in the site, or None: to nothing in it.

    Args:
        target: as it stands in the file `source` of the repository.
    """
    path, mark, anchor = target.partition("#")
    if not path or ":" in path:
        return target
    meant = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if meant in BROUGHT_IN:
        inside = BROUGHT_IN[meant]
    elif meant.startswith("docs/"):
        inside = meant.removeprefix("docs/")
    elif meant == "README.md":
        inside = "index.md"
    elif (ROOT / meant).exists():
        return None
    else:
        log.warning("%s links to %s, which is not there", source, meant)
        return None
    return posixpath.relpath(inside, posixpath.dirname(place) or ".") + mark + anchor


def settings_page() -> str:
    """Every setting by section: name, type, default, what it is."""
    lines = [
        "# Settings",
        "",
        "Read from `upwell.toml` and from variables. A variable goes before the file, the file "
        "before the default. `upwell config` prints what is in force, and where it comes from. An "
        "unknown key or variable is an error. Seconds are `*_s`.",
        "",
        "```toml",
        "[kafka]",
        'bootstrap = "kafka:9092"  # the same as UPWELL_KAFKA__BOOTSTRAP=kafka:9092',
        "```",
    ]
    for section_name, section in Settings.model_fields.items():
        kind: Any = section.annotation
        lines += ["", f"## {section_name}", ""]
        lines += [f"Variables: `UPWELL_{section_name.upper()}__` and the name in capitals.", ""]
        lines += ["| setting | takes | default | what it is |", "| --- " * 4 + "|"]
        for name, field in kind.model_fields.items():
            default = "none" if field.default is None else f"`{masked(field.default)}`"
            if field.default == "":
                default = "empty"
            about = cell(field.description or "")
            lines.append(f"| `{name}` | {takes(field)} | {default} | {about} |")
    return GENERATED + "\n".join(lines) + "\n"


def takes(field: FieldInfo) -> str:
    """What a setting takes, in words."""
    words = _kind(field.annotation)
    bounds = [
        f"{text} {value:,}"
        for one in _constraints(field)
        for name, text in _BOUNDS.items()
        if (value := getattr(one, name, None)) is not None and value not in _ANY
    ]
    return cell(", ".join([words, *bounds]))


def _constraints(field: FieldInfo) -> Iterator[Any]:
    """Bounds stand beside the field, or, where it may be none, within its type."""
    yield from field.metadata
    for kind in (field.annotation, *get_args(field.annotation)):
        for one in getattr(kind, "__metadata__", ()):
            yield from getattr(one, "metadata", (one,))


def _kind(kind: Any) -> str:
    if hasattr(kind, "__metadata__"):
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{one.value}`" for one in kind)
    if args := get_args(kind):
        return " or ".join(_kind(one) for one in args)
    names = {int: "a whole number", float: "a number", bool: "`true`, `false`", type(None): "none"}
    return names.get(kind, {"SecretStr": "a secret", "Path": "a path"}.get(kind.__name__, "text"))


def commands_page() -> str:
    """Every command with its arguments, options and example."""
    program: Any = typer.main.get_command(app)
    lines = [
        "# Commands",
        "",
        "Exit codes: 0 done, 1 failed (a message says what, and what to do), 2 wrong use, 130 "
        "interrupted. `--help` after any command says what stands here.",
    ]
    for path, command in walk(program):
        usage = " ".join(["upwell", *path, *command.collect_usage_pieces(typer.Context(command))])
        lines += ["", f"## upwell {' '.join(path)}", "", (command.help or "").strip(), ""]
        lines += ["```text", usage, "```", ""]
        rows = [row for one in command.params if (row := _row(one, command)) is not None]
        if rows:
            lines += ["| | | default |", "| --- | --- | --- |", *rows, ""]
        if command.epilog:
            lines.append(command.epilog)
    return GENERATED + "\n".join(lines) + "\n"


def walk(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group that does something itself, with the words that call it."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from walk(command, (*path, name))
        else:
            yield (*path, name), command


def _row(one: Any, command: Any) -> str | None:
    record = one.get_help_record(typer.Context(command))
    if record is None:
        return None
    told = not (one.default is None or one.default is False or callable(one.default))
    shown = f"`{one.default}`" if told else ""
    if one.required:
        shown = "needed"
    return f"| `{cell(record[0])}` | {cell(one.help or '')} | {shown} |"


def cell(text: str) -> str:
    """Text that stands in one cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")
