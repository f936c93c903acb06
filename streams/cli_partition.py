"""`upwell partition`: how well the co-play graph can be cut, and how many parts fit a memory."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from streams.cli_common import ConfigOption, Failure, JsonOption, progress_bars, settings_of

if TYPE_CHECKING:
    from partition.mincut import Cutter
    from store.graph import DynamicGraph
    from streams.settings import Settings

DEFAULT_PARTS = "2,4,8,16,32"


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog="Example: `upwell partition --parts 2,8 --report partition.html`")(partition)


def partition(
    parts: Annotated[str, typer.Option(help="numbers of parts, with commas")] = DEFAULT_PARTS,
    cutter: Annotated[str | None, typer.Option(help="metis, kaminpar or auto")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    budget: Annotated[
        float | None, typer.Option(min=0.001, help="MiB that training on one part may take")
    ] = None,
    trainers: Annotated[int, typer.Option(min=1, help="parts are a multiple of it")] = 1,
    report: Annotated[Path | None, typer.Option(help="draw it here: .html or .svg")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cut the co-play graph of the newest checkpoint, and compare with parts dealt at random."""
    if report is not None and report.suffix not in (".html", ".svg"):
        raise typer.BadParameter(f"{report}: name a .html or .svg file")
    counts = _counts(parts)
    settings = settings_of(config)
    chosen = cast("Cutter", cutter or settings.training.cutter)
    if chosen not in ("auto", "metis", "kaminpar"):
        raise typer.BadParameter(f"cutter {chosen!r}: want metis, kaminpar or auto")
    graph = _graph_of(settings)

    from partition.mincut import coplay_edges
    from streams.partition_report import measure, page, picture

    edges = coplay_edges(graph)
    with progress_bars(Console(stderr=True)) as bars:
        found = measure(
            edges,
            counts,
            seed=seed,
            cutter=chosen,
            threads=settings.worker.threads,
            told=lambda done, total: bars("cuts", done, total),
        )
    title = f"{len(edges.live):,} titles, {len(edges.heads) // 2:,} co-plays"
    if report is not None:
        draw = page if report.suffix == ".html" else picture
        report.write_text(draw(found, title))
    fitting = None if budget is None else _fitting(graph, budget, trainers, seed, chosen)
    if as_json:
        told: dict[str, Any] = {
            "titles": len(edges.live),
            "coplays": len(edges.heads) // 2,
            "cutter": chosen,
            "cuts": [one.record() for one in found],
        }
        typer.echo(json.dumps(told | ({} if fitting is None else {"fit": fitting})))
        return
    typer.echo(title)
    table = Table("parts", "kept", "random", "times random", "balance", "seconds", box=None)
    for one in found:
        times = f"{one.kept / one.random_kept:.2f}" if one.random_kept else "-"
        numbers = (f"{one.kept:.3f}", f"{one.random_kept:.3f}", times, f"{one.balance:.3f}")
        table.add_row(str(one.parts), *numbers, f"{one.seconds:.2f}")
    Console().print(table)
    if fitting is not None:
        typer.echo(
            f"{budget:g} MiB: {fitting['parts']} parts, the largest {fitting['largest_mib']} MiB"
        )
    if report is not None:
        typer.echo(f"drawn in {report}")


def _counts(parts: str) -> list[int]:
    try:
        counts = [int(one) for one in parts.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--parts {parts}: want whole numbers, as 2,4,8") from None
    if any(not 1 <= one <= 65_536 for one in counts):
        raise typer.BadParameter(f"--parts {parts}: want each from 1 to 65536")
    return sorted(set(counts))


def _graph_of(settings: "Settings") -> "DynamicGraph":
    from streams import checkpoint
    from streams.state import State

    root = settings.checkpoint.folder
    found, _ = checkpoint.newest(root)
    if found is None:
        raise Failure(
            f"no whole checkpoint under {root}; make one with `upwell pretrain`, "
            "or name another folder (checkpoint.folder)"
        )
    return State.load(found.folder, found.meta["state"], settings.graph).graph


def _fitting(
    graph: "DynamicGraph", budget: float, trainers: int, seed: int, cutter: "Cutter"
) -> dict[str, Any]:
    from model.settings import ModelConfig
    from partition.budget import fit

    found = fit(
        graph,
        int(budget * 2**20),
        max_coplay=ModelConfig().max_coplay,
        multiple=trainers,
        seed=seed,
        cutter=cutter,
    )
    return {
        "parts": found.num_parts,
        "largest_mib": round(max(found.bytes) / 2**20, 1),
        "tried": [count for count, _ in found.tried],
    }
