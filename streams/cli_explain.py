"""The command `explain`: why a title's embedding is what it is, for catalog people."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from streams.cli_common import ConfigOption, Failure, JsonOption, settings_of

if TYPE_CHECKING:
    from model.explain import Explanation
    from streams.state import State

BAR = 30  # cells of a bar that stands for everything
SUGGESTIONS = 5


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog='Example: `upwell explain "Toy Story" -k 5`')(explain)


def explain(
    title: Annotated[str, typer.Argument(help="id or name of a title")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="neighbours to name")] = 10,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what the model looks at to place a title, by the newest checkpoint."""
    from model.explain import explain as explain_title
    from model.inference import Embedder
    from streams.snapshot import load_snapshot

    settings = settings_of(config)
    snapshot = load_snapshot(settings.checkpoint.folder, settings.graph)
    key = find(title, snapshot.state)
    embedder = Embedder(snapshot.model)
    embedder.full(snapshot.state.graph)
    found = explain_title(embedder, snapshot.state.graph, key, k=k)
    titles = [found.title, *(one.id for one in found.neighbours if one.is_title)]
    known = snapshot.state.catalog.names_of(titles)
    names = {title: name for title, name in zip(titles, known, strict=True) if name}
    if as_json:
        typer.echo(json.dumps(as_data(found, names, step=snapshot.step)))
        return
    Console(highlight=False).print(picture(found, names))


def find(query: str, state: "State") -> str:
    """The id of the title with this id, or this name whatever its case, with its year or without.

    Raises:
        Failure: there is none; it offers close ones.
    """
    ids = state.graph.ids["title"]
    if query in ids:
        return query
    titles = ids.names(ids.live_ids())
    named = [(name or title, title) for name, title in _named(state, titles)]
    wanted = query.strip().casefold()
    for form in (str.casefold, _without_year):
        found = [title for name, title in named if form(name) == wanted]
        if found:
            return min(found)
    plain = {name.casefold(): name for name, _ in named}
    close = difflib.get_close_matches(wanted, plain, n=SUGGESTIONS, cutoff=0.6)
    close += sorted((name for name in plain if wanted and wanted in name), key=len)
    hint = ", ".join(plain[name] for name in list(dict.fromkeys(close))[:SUGGESTIONS])
    raise Failure(
        f"no title has the id or name {query!r} in the newest checkpoint"
        + (f"; do you mean {hint}?" if hint else "")
    )


def as_data(found: "Explanation", names: Mapping[str, str], *, step: int) -> dict[str, Any]:
    """The explanation as JSON, with names where there are some."""
    data = asdict(found)
    data["name"] = names.get(found.title)
    data["model_step"] = step
    for one in data["neighbours"]:
        one["name"] = names.get(one["id"])
    return data


def words(found: "Explanation", names: Mapping[str, str]) -> str:
    """The explanation in a sentence or two."""
    name = names.get(found.title, found.title)
    if not found.relations:
        return (
            f"{name} has no concepts, and nobody has played it with another title: the model "
            "knows nothing of it. Send its concepts through the catalogue."
        )
    played = [one for one in found.relations if one.relation == "coplay"]
    concepts = sum(one.neighbours for one in found.relations if one.relation != "coplay")
    if not played:
        return (
            f"Nobody has played {name} with another title yet: its {_count(concepts, 'concept')} "
            "alone place it."
        )
    share = played[0].share
    return (
        f"The model places {name} by {_count(played[0].neighbours, 'title')} played with it "
        f"({share:.0%} of its attention) and by {_count(concepts, 'concept')} ({1 - share:.0%}). "
        f"Of its vector {found.own:.0%} is its own, learnt from who was played with it."
    )


def picture(found: "Explanation", names: Mapping[str, str]) -> RenderableType:
    """The explanation for a terminal: words, a bar a relation, the strongest neighbours."""
    parts: list[RenderableType] = [Text(words(found, names))]
    if found.relations:
        bars = Table("relation", "share", "", "neighbours", box=None, header_style="bold")
        for one in found.relations:
            bars.add_row(one.relation, f"{one.share:.0%}", bar(one.share), str(one.neighbours))
        strongest = Table("share", "relation", "neighbour", box=None, header_style="bold")
        for neighbour in found.neighbours:
            label = neighbour.id
            if neighbour.is_title:
                label = names.get(label, label)
            else:
                label = label.removeprefix(f"{neighbour.relation}:")
            strongest.add_row(f"{neighbour.share:.1%}", neighbour.relation, Text(label))
        parts += [Text(), bars, Text(), strongest]
    return Group(*parts)


def bar(share: float) -> Text:
    """A bar of at most `BAR` cells, in eighths of a cell; anything above 0 is seen."""
    eighths = max(round(share * BAR * 8), 1 if share > 0 else 0)
    return Text("█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8], style="cyan")


def _named(state: "State", titles: list[str]) -> list[tuple[str | None, str]]:
    return list(zip(state.catalog.names_of(titles), titles, strict=True))


def _without_year(name: str) -> str:
    """The name in lower case, without a year in brackets at its end."""
    plain = name.casefold()
    return plain[:-6].rstrip() if plain.endswith(")") and plain[-6:-5] == "(" else plain


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
