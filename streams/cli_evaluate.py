"""The command `evaluate`: what the embeddings are worth on a data set, every arm beside the others.

Here a data set becomes the stream that model/evaluation replays; the plays are paired as the
sessions pair them.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from streams.cli_common import ConfigOption, Failure, Report, progress_bars, settings_of

if TYPE_CHECKING:
    from model.evaluation.stream import Stream
    from streams.coplay import Pairing
    from streams.data import Dataset

FEW_NEW = 0.01  # share of later plays on new titles below which a data set has no arrival
HELD_BACK = 0.04  # share of the titles that is then held back


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        epilog="Example: `upwell evaluate --data ml-1m --json figures.json --page figures.html`"
    )(evaluate)


def evaluate(
    data: Annotated[
        str, typer.Option(help="folder of events, titles and triples (.tsv.gz), or ml-1m")
    ],
    json_file: Annotated[Path | None, typer.Option("--json", help="write all figures here")] = None,
    arms: Annotated[
        str | None, typer.Option(help="some arms, with commas between; else all")
    ] = None,
    windows: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    seeds: Annotated[str, typer.Option(help="of the trained arms, with commas between")] = "0",
    questions: Annotated[int, typer.Option(min=1, help="at most so many a window")] = 4000,
    new_titles: Annotated[
        int | None,
        typer.Option(min=0, help="titles held back; else as the data's own arrival needs it"),
    ] = None,
    retrain_every: Annotated[int, typer.Option(min=1, help="windows between retrainings")] = 4,
    retrain_steps: Annotated[
        int | None, typer.Option(min=1, help="steps of a retraining; else as of pretraining")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="write an HTML page with curves here")] = None,
    ablations: Annotated[
        bool, typer.Option(help="the incremental arm also without one part each")
    ] = False,
    parts: Annotated[
        str | None,
        typer.Option(help="models trained on so many parts too, of a cut and random ones, as 4,8"),
    ] = None,
    quick: Annotated[bool, typer.Option(help="small models and few questions: a trial")] = False,
    config: ConfigOption = None,
) -> None:
    """Predict each window of a data set's second half, then ingest it: all arms side by side."""
    from dataclasses import replace

    from model.evaluation.arms import ARMS
    from model.evaluation.run import Options
    from model.evaluation.run import evaluate as run
    from model.evaluation.stream import Windows, hold_back, share_of_new
    from model.runtime import use_threads
    from model.settings import LossConfig, PretrainConfig
    from streams.wiring import pairing_of

    settings = settings_of(config)
    for file in (json_file, page):
        _check_place(file)
    use_threads(settings.worker.threads)
    options = Options(
        arms=[one.strip() for one in arms.split(",")] if arms else ARMS,
        seeds=_seeds(seeds),
        windows=windows,
        questions=questions,
        retrain_every=retrain_every,
        retrain_steps=retrain_steps,
        ablations=ablations,
        parts=_parts(parts),
    )
    if quick:
        small = PretrainConfig(transe_steps=40, steps=40, loss=LossConfig(sources=256))
        options = replace(options, pretrain=small, questions=min(questions, 200))
    with progress_bars(Console(stderr=True)) as report:
        stream = stream_of(_load(data, report), pairing_of(settings.sessions))
        cut = Windows.of(stream, windows)
        new = share_of_new(stream, cut)
        if new_titles is None:
            new_titles = round(HELD_BACK * len(stream.titles)) if new < FEW_NEW else 0
        held = np.zeros(0, np.int64)
        if new_titles:
            stream, held = hold_back(stream, new_titles, windows, seed=0)
        figures = run(stream, options, report)
    figures["protocol"] |= {
        "data": data,
        "held_back_titles": len(held),
        "share_of_later_plays_on_new_titles": share_of_new(stream, cut),
        "quick": quick,
        "pairing": {
            "previous": settings.sessions.previous,
            "gap_s": settings.sessions.gap_s,
            "max_per_hour": settings.sessions.max_per_hour,
        },
    }
    if json_file is not None:
        _write(json_file, json.dumps(figures, indent=1, allow_nan=False) + "\n")
    if page is not None:
        from streams.evaluation_page import build_page

        _write(page, build_page(figures))
    console = Console()
    console.print(table(figures["arms"]))
    if figures["ablations"]:
        console.print("\nThe incremental arm without one thing:")
        console.print(table(figures["ablations"]))
    if figures["parts"]:
        console.print("\nfrozen_fresh_graph, trained on parts of a cut and on random ones:")
        console.print(table(figures["parts"]))


def stream_of(data: "Dataset", pairing: "Pairing") -> "Stream":
    """A data set as a stream: with co-plays, and with the titles' arrival by their years.

    Raises:
        ValueError: the plays make no co-play.
    """
    from model.evaluation.stream import Stream, arrivals
    from streams.bootstrap import spread_ties
    from streams.coplay import pair_history

    time_ms = spread_ties(data.play_time_ms)
    pairs = pair_history(data.play_users, data.play_titles, time_ms, rule=pairing)
    if not len(pairs):
        raise ValueError(
            f"{len(data)} plays make no co-play; want users with several within {pairing.gap_s:g} s"
        )
    relations = data.relations
    number = {relation: at for at, relation in enumerate(relations)}
    concepts: dict[str, int] = {}
    triples = [
        (title, number[relation], concepts.setdefault(f"{relation}:{value}", len(concepts)))
        for title, of_title in enumerate(data.concepts)
        for relation, values in of_title.items()
        for value in values
    ]
    columns = np.array(triples, np.int64).reshape(-1, 3)
    first = np.full(len(data.titles), np.iinfo(np.int64).max)
    np.minimum.at(first, data.play_titles, time_ms)
    return Stream(
        titles=data.titles,
        arrival_ms=arrivals(data.years, first),
        relations=relations,
        concepts=list(concepts),
        triple_title=columns[:, 0],
        triple_relation=columns[:, 1],
        triple_concept=columns[:, 2],
        users=data.play_users,
        plays=data.play_titles,
        time_ms=time_ms,
        pair_later=pairs.a,
        pair_earlier=pairs.b,
        pair_weight=pairs.weight,
        pair_row=pairs.row,
    )


def table(arms: dict[str, Any]) -> Table:
    """The figures that matter, an arm a row."""
    out = Table(box=None, header_style="bold")
    out.add_column("arm")
    for head in ("E1 R@20", "E2 R@20", "E2 warm", "E2 cool", "E2 cold", "pool AUC", "pool R@20"):
        out.add_column(head, justify="right")
    out.add_column("drift", justify="right")
    out.add_column("s/window", justify="right")
    for name, arm in arms.items():
        strata = arm["e2"]["strata"]
        out.add_row(
            name,
            _spread(arm["e1"]["recall20"]),
            _spread(arm["e2"]["recall20"]),
            *(_number(strata[one]["recall20"]["value"]) for one in ("warm", "cool", "cold")),
            _spread(arm["cold_pool"]["auc"], 3),
            _spread(arm["cold_pool"]["recall20"], 3),
            _number(arm["drift_cosine"]),
            _number(arm["seconds_per_window"], 2),
        )
    return out


def _load(data: str, report: Report) -> "Dataset":
    from streams.data import fetch_ml1m, load_ml1m, user_cache

    folder = Path(data)
    if data == "ml-1m" and not folder.is_dir():
        folder = fetch_ml1m(user_cache(), report)
    if not folder.is_dir():
        raise Failure(f"--data {data}: no such folder; name one, or ml-1m")
    return load_ml1m(folder)


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(one) for one in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**31:
        raise typer.BadParameter(f"--seeds {text}: want whole numbers from 0, with commas between")
    return list(dict.fromkeys(seeds))


def _parts(text: str | None) -> list[int]:
    try:
        counts = [int(one) for one in text.split(",")] if text else []
    except ValueError:
        counts = [0]
    if any(not 2 <= one <= 1024 for one in counts):
        raise typer.BadParameter(f"--parts {text}: want numbers from 2 to 1024, as 4,8")
    return sorted(set(counts))


def _check_place(file: Path | None) -> None:
    """Before the work, not after it."""
    if file is not None and not file.resolve().parent.is_dir():
        raise Failure(f"{file}: there is no folder {file.resolve().parent}; make it first")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror}; name another file") from error


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _spread(figure: dict[str, float | None], digits: int = 4) -> str:
    """A figure with half the width of its interval."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None or low is None or high is None:
        return "-"
    return f"{value:.{digits}f} ±{(high - low) / 2:.{digits}f}"
