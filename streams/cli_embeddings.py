"""Commands that read Redis: `get`, `similar`, `status`. They need no torch and no Kafka."""

import json
import time
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from streams.cli_common import ConfigOption, Failure, JsonOption, client_of

TitleArgument = Annotated[str, typer.Argument(help="id or name of a title")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command(epilog='Example: `upwell get "Toy Story" --json`')(get)
    app.command(epilog='Example: `upwell similar "Toy Story" -k 5`')(similar)
    app.command(epilog="Example: `upwell status --json`")(status)


def get(title: TitleArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print a title's embedding, and which event and weights it has seen."""
    from serve.reader import EmbeddingReader
    from serve.similar import SimilarTitles

    with EmbeddingReader(client_of(config)) as reader:
        key, batch = title, reader.get_many([title])
        if not batch.found[0]:  # a name, perhaps: to find it, the whole space must be read
            finder = SimilarTitles(reader)
            finder.refresh()
            key = finder.find(title)
            batch = reader.get_many([key])
        if not batch.found[0]:
            raise Failure(f"title {key!r} was retired a moment ago")
        (name,) = reader.names([key])
    found = {
        "title": key,
        "name": name,
        "space": batch.versions.space,
        "seq": int(batch.versions.seq[0]),
        "step": int(batch.versions.step[0]),
        "time_ms": int(batch.versions.time_ms[0]),
        "vector": [float(np.format_float_positional(x, 7)) for x in batch.matrix[0]],
    }
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, value in found.items():
        if name != "vector":
            typer.echo(f"{name:8} {value}")
    typer.echo(f"{'vector':8} " + " ".join(f"{value:.4f}" for value in batch.matrix[0]))


def similar(
    title: TitleArgument,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="how many")] = 10,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the titles nearest to one, by cosine."""
    from serve.similar import similar_titles

    found = similar_titles(client_of(config), title, k)
    if as_json:
        typer.echo(json.dumps([one._asdict() for one in found]))
        return
    table = Table("cosine", "id", "title", box=None, header_style="bold")
    for one in found:
        table.add_row(f"{one.score:.3f}", one.title, one.name or "")
    Console().print(table)


def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say what is live, since when, how fresh, and what is wrong. Exit code 1 if anything is."""
    from serve import spaces
    from serve.status import read_status

    client = client_of(config)
    workers = read_status(client)
    live = spaces.current(client)
    space = None if live is None else spaces.get_space(client, live)
    wrong = problems(live, workers)
    if as_json:
        typer.echo(json.dumps({"space": live, "workers": workers, "wrong": wrong}))
    else:
        if space is not None:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(space.live_ms / 1000))
            typer.echo(f"space      {live}, dim {space.dim}, seq {space.seq}, live since {since}")
        for name, worker in workers.items():
            for line in describe(name, worker):
                typer.echo(line)
        typer.echo("wrong      " + ("; ".join(wrong) if wrong else "nothing"))
    if wrong:
        raise typer.Exit(1)


def describe(name: str, worker: dict[str, Any]) -> list[str]:
    """A worker's heartbeat in words."""
    if worker["role"] == "sessions":
        plays = ", ".join(f"{counts['in']} {topic}" for topic, counts in worker["events"].items())
        return [f"sessions   {name}: pid {worker['pid']}, {plays} read, {worker['pairs']} pairs"]
    fresh = ", ".join(
        f"{kind} p50 {seconds['p50']:.2f} s p99 {seconds['p99']:.2f} s"
        for kind, seconds in worker["freshness_s"].items()
    )
    last = worker["last_cycles"][-1] if worker["last_cycles"] else None
    cycle = f"{last['verdict']}, {last['seconds']} s" if last else "none yet"
    behind_s = max(0.0, time.time() - worker["watermark_ms"] / 1000)
    return [
        f"worker     {name}: {worker['phase']}, pid {worker['pid']}",
        f"graph      {worker['titles']} titles, {worker['concepts']} concepts, "
        f"{worker['coplay_edges']} co-play edges",
        f"ingest     {worker['events_per_s']:.0f} events/s, {worker['lag']} to read",
        f"refresh    {worker['dirty']} titles wait, weights of step {worker['step']}",
        f"training   {worker['cycles']} cycles, last: {cycle}",
        f"freshness  {fresh or 'no event yet'}; all up to {behind_s:.1f} s ago is visible",
    ]


def problems(live: str | None, workers: dict[str, dict[str, Any]]) -> list[str]:
    """What an operator should look at."""
    found = []
    if live is None:
        found.append("no space is live: start a worker")
    roles = {one["role"] for one in workers.values()}
    found += [
        f"no {role} has a heartbeat: start `upwell {role}`"
        for role in ("worker", "sessions")
        if role not in roles
    ]
    for name, worker in workers.items():
        if worker["role"] != "worker":
            continue
        troubles = {worker["error"], *worker["checks"].values()} - {None}
        found += [f"{name}: {trouble}" for trouble in sorted(troubles)]
        last = worker["last_cycles"][-1] if worker["last_cycles"] else None
        if last and last["verdict"] in ("refused", "failed"):
            found.append(f"{name}: the last cycle was {last['verdict']}: {last['reason']}")
    return found
