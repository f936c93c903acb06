"""What models trained on parts are worth, by the evaluation of `upwell evaluate`: for
bench_partition.py.

The arm is `frozen_fresh_graph`: the weights of the cut, on the graph of each window. Every model
makes the same number of steps of the same number of sources; the parts are METIS' and as many
random ones, both with the titles of other parts that pretraining brings along. Differences are
paired, question by question, with intervals over users.
"""

from pathlib import Path
from typing import Any

from rich.console import Console

from model.evaluation.run import WHOLE, Options, evaluate, of_parts
from model.evaluation.stream import Stream
from model.settings import LossConfig, PretrainConfig
from streams.cli_evaluate import stream_of
from streams.coplay import Pairing
from streams.data import fetch_ml1m, load_ml1m, user_cache

PARTS = (4, 8)
SEEDS = (0, 1, 2, 3)
WINDOWS = 10
SMALL = PretrainConfig(transe_steps=40, steps=40, loss=LossConfig(sources=256))


def stream_from(folder: Path | None) -> Stream:
    """A data set's plays; None: MovieLens-1M."""
    data = load_ml1m(folder or fetch_ml1m(user_cache(), lambda *_: None))
    return stream_of(data, Pairing(5, 1800.0, 200))


def quality(
    folder: Path | None, console: Console, *, quick: bool
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """A row for each way to train, and figures: differences of Recall@20, with their intervals."""
    options = Options(arms=(WHOLE,), seeds=SEEDS, windows=WINDOWS, parts=PARTS)
    if quick:
        options = Options(arms=(WHOLE,), windows=2, questions=200, parts=PARTS[:1], pretrain=SMALL)
    stream = stream_from(folder)
    with console.status("quality") as status:
        found = evaluate(
            stream,
            options,
            lambda step, done, total, note: status.update(f"quality: {step} {done}/{total} {note}"),
        )
    whole = found["arms"][WHOLE]
    rows = [_row("whole graph", whole, None)]
    figures: dict[str, float] = {}
    for count in options.parts:
        for name in of_parts(count):
            one = found["parts"][name]
            rows.append(_row(name, one, one["difference"]))
            for task in ("e1", "e2"):
                _add(figures, f"{name}_{task}", one["difference"][task]["recall20"])
        against = found["parts"][of_parts(count)[0]]["against_random"]
        rows.append(_row(f"hasp_{count} - random_{count}", None, against))
        for task in ("e1", "e2"):
            _add(figures, f"hasp_{count}_against_random_{task}", against[task]["recall20"])
    return rows, figures


def _row(
    name: str, arm: dict[str, Any] | None, difference: dict[str, Any] | None
) -> dict[str, Any]:
    row: dict[str, Any] = {"trained on": name}
    for task in ("e1", "e2"):
        row[task] = "" if arm is None else arm[task]["recall20"]["value"]
        row[f"{task} difference"] = (
            "" if difference is None else _words(difference[task]["recall20"])
        )
    row["start_s"] = "" if arm is None else arm["seconds_at_cut"]
    return row


def _words(figure: dict[str, float]) -> str:
    return f"{figure['value']:+.4f} ({figure['low']:+.4f} to {figure['high']:+.4f})"


def _add(figures: dict[str, float], name: str, figure: dict[str, float]) -> None:
    for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
        figures[f"{name}{suffix}"] = figure[key]
