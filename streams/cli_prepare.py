"""Commands that come before the stream: `data`, `pretrain`."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from streams.cli_common import ConfigOption, empty_root, progress_bars, settings_of


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command(epilog="Example: `upwell data ml-1m`")(data)
    app.command(epilog="Example: `upwell pretrain --data ~/.cache/upwell/data/ml-1m`")(pretrain)


def data(
    name: Annotated[str, typer.Argument(help="which data set: ml-1m")],
    cache: Annotated[Path | None, typer.Option(help="keep it here; else the cache folder")] = None,
) -> None:
    """Fetch a data set of plays and concepts once, and print its folder."""
    from streams.data import fetch_ml1m, user_cache

    if name != "ml-1m":
        raise typer.BadParameter(f"{name!r}: the one data set to fetch is 'ml-1m'")
    with progress_bars(Console(stderr=True)) as report:
        folder = fetch_ml1m(cache or user_cache(), report)
    typer.echo(str(folder))


def pretrain(
    data: Annotated[Path, typer.Option(help="folder of events, titles and triples (.tsv.gz)")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="gradient steps of the GNN")] = None,
    trainers: Annotated[
        int,
        typer.Option(min=1, help="processes that train together, each on HASP parts of its own"),
    ] = 1,
    parts: Annotated[int | None, typer.Option(min=1, help="HASP parts; else one a trainer")] = None,
    near: Annotated[
        Path | None,
        typer.Option(help="checkpoints in use: the new vectors stay near those of the newest"),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Pretrain a model on a data set, and write the checkpoint that a worker starts from.

    Under torchrun the processes that it started are the trainers; all must see the same folders.
    """
    from dataclasses import replace

    from model.crew import launched
    from model.runtime import device_of
    from model.settings import PretrainConfig
    from model.trainers import train_as_other
    from streams.bootstrap import WORK, History, bootstrap
    from streams.data import load_ml1m
    from streams.snapshot import load_snapshot
    from streams.wiring import pairing_of

    settings = settings_of(config)
    device_of(settings.training.device)  # refused before the data is read
    place = launched()
    if place is not None:
        rank, size = place
        if trainers not in (1, size):
            raise typer.BadParameter(f"--trainers {trainers}: torchrun started {size}")
        trainers = size
        if rank > 0:
            train_as_other(settings.checkpoint.folder / WORK)
    root = empty_root(settings)
    in_use = None if near is None else load_snapshot(near, settings.graph)
    loaded = load_ml1m(data)
    history = History(loaded, np.arange(len(loaded)), np.arange(len(loaded.titles)))
    if (parts or trainers) % trainers:
        raise typer.BadParameter(f"--parts {parts}: want a multiple of {trainers} trainers")
    chosen = replace(PretrainConfig(), parts=parts or trainers, cutter=settings.training.cutter)
    chosen = replace(chosen, device=settings.training.device)
    chosen = chosen if steps is None else replace(chosen, steps=steps)
    with progress_bars(Console(stderr=True)) as report:
        made = bootstrap(
            history,
            root,
            graph=settings.graph,
            pairing=pairing_of(settings.sessions),
            config=chosen,
            seed=seed,
            report=report,
            trainers=trainers,
            near=in_use,
        )
    for name, value in made.metrics.items():
        typer.echo(f"{name:16} {value:.4f}")
    typer.echo(f"{'checkpoint':16} {root}")
