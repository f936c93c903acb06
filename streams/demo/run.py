"""`upwell demo`: the main job on real plays, end to end, and what was measured of it."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from streams.cli_common import Failure, progress_bars
from streams.coplay import Pairing
from streams.demo.drive import Driver, Streamed
from streams.demo.freshness import read_samples
from streams.demo.page import write_page
from streams.demo.prepare import Prepared, prepare
from streams.demo.reader import read_progress
from streams.demo.report import (
    Cycle,
    DemoResult,
    NewTitle,
    Predictions,
    Titles,
    build_report,
    write_report,
)
from streams.demo.screen import screen
from streams.demo.stage import open_stage
from streams.settings import load_settings

SHOWN = 3  # new titles on the page


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What `upwell demo` takes; its `--help` says what each is."""

    report: Path | None
    page: Path
    plays: int
    rate: float
    new_titles: int
    cycle_s: float
    seed: int
    keep: Path | None


def run_demo(options: DemoOptions, console: Console) -> None:
    """Prepare, stream, report.

    Raises:
        DataFailed, ServerFailed, ProduceFailed, RedisFailed: named, with the remedy.
        Failure: events are missing at the end, or a folder cannot be used.
        SettingsError: a variable of the environment says what cannot be.
    """
    load_settings(None)  # a wrong one is told now, and not after minutes of pretraining
    start = time.monotonic()
    steps: dict[str, float] = {}
    pairing = Pairing()
    with _folder(options.keep) as folder:
        with progress_bars(console) as bars:
            prepared = prepare(
                plays=options.plays,
                new_titles=options.new_titles,
                seed=options.seed,
                pairing=pairing,
                folder=folder / "checkpoints",
                report=bars,
            )
        steps["data and pretraining"] = time.monotonic() - start
        mark = time.monotonic()
        with contextlib.ExitStack() as stack:
            console.print("starting broker, Redis, worker, sessions and reader", highlight=False)
            stage = stack.enter_context(open_stage(folder, cycle_s=options.cycle_s))
            steps["start of the processes"] = time.monotonic() - mark
            show = stack.enter_context(screen(console))
            driver = Driver(prepared, stage, show, rate=options.rate)
            streamed = driver.run()
            samples_file = stage.samples
        steps["stream"] = streamed.seconds
        reader = read_progress(samples_file)
        if reader is None or not reader.done:
            raise Failure(f"the outside reader left no summary beside {samples_file}")
        result = DemoResult(
            seconds=time.monotonic() - start,
            events={**streamed.heartbeat["events"], "plays": streamed.plays},
            coplays_per_s=streamed.heartbeat["events"]["coplays"]["applied"] / streamed.seconds,
            samples=read_samples(samples_file),
            stream_start_ms=streamed.started_ms,
            reader=reader,
            predictions=_predictions(driver),
            titles=_titles(prepared, streamed),
            titles_new=_visible(streamed),
            new_titles=_shown(prepared, streamed),
            cycles=[_cycle(streamed, number) for number in sorted(streamed.cycles)],
            steps=steps,
            facts={
                "data": f"MovieLens-1M: {len(prepared.plan.history)} plays of history, "
                f"{len(prepared.plan.stream)} streamed",
                "model": "pretrained in this run"
                if prepared.pretrained_now
                else "pretrained in an earlier run, from the cache",
            },
            seed=options.seed,
            histogram=streamed.heartbeat["freshness_all_s"],
        )
    report = build_report(result)
    write_page(result, report, options.page)
    if options.report is not None:
        write_report(report, options.report)
    _summary(console, report, options)
    missing = report["events_in"] - report["events_applied"] - report["events_dead"]
    if missing or any(
        streamed.sent[topic] != result.events[topic]["in"] for topic in streamed.sent
    ):
        raise Failure(f"events are not accounted for: sent {streamed.sent}, {result.events}")


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A folder for logs and checkpoints: deleted at the end unless it was named."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="upwell-demo-") as name:
            yield Path(name)
        return
    if keep.exists() and any(keep.iterdir()):
        raise Failure(f"{keep} is not empty; name a new folder")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep


def _predictions(driver: Driver) -> Predictions:
    _, users, titles, frozen, live = driver.game.scored.columns()
    return Predictions(users, titles, frozen, live)


def _titles(prepared: Prepared, streamed: Streamed) -> Titles:
    data = prepared.data
    new = np.zeros(len(data.titles), bool)
    new[prepared.plan.new_titles] = True
    vectors = streamed.live
    return Titles(
        names=data.names,
        rows_TD=vectors.rows_TD,
        known=vectors.known,
        new=new,
        plays=np.bincount(data.play_titles, minlength=len(data.titles)),
    )


def _visible(streamed: Streamed) -> int:
    return int(streamed.live.known[list(streamed.published_ms)].sum())


def _shown(prepared: Prepared, streamed: Streamed) -> list[NewTitle]:
    """Of the new titles that were seen before their first play, those played most afterwards."""
    data, plan = prepared.data, prepared.plan
    plays = np.bincount(data.play_titles[plan.stream], minlength=len(data.titles))
    found = sorted(streamed.before_play, key=lambda title: -plays[title])
    return [
        NewTitle(
            name=data.names[title],
            visible_s=None,
            plays=int(plays[title]),
            concepts=data.concepts[title],
            neighbours=streamed.before_play[title],
        )
        for title in found[:SHOWN]
    ]


def _cycle(streamed: Streamed, number: int) -> Cycle:
    told = streamed.cycles[number]
    fields = ("verdict", "reason", "fresh", "steps", "seconds", "loss", "drift_cosine")
    known = {name: told[name] for name in fields if told.get(name) is not None}
    return Cycle(
        at_s=streamed.cycles_at[number],
        recall_before=told.get("recall_before"),
        recall_after=told.get("recall_after"),
        **known,
    )


def _summary(console: Console, report: dict[str, Any], options: DemoOptions) -> None:
    """The figures that matter, as a table."""
    fresh, quality = report["freshness_s"], report["quality"]
    table = Table(title="Upwell demo", box=None, show_header=False, title_justify="left")
    for topic, counts in report["events_by_topic"].items():
        table.add_row(
            f"events of {topic}",
            f"{counts['in']} in = {counts['applied']} applied + {counts['dead']} dead-lettered",
        )
    table.add_row("co-plays a second", f"{report['coplays_per_s']:.0f}")
    for kind, goal in (("catalog", "p50 < 0.5 s, p99 < 1.5 s"), ("coplay", "p99 < 5 s")):
        seconds = fresh[kind]
        if seconds["count"]:
            seen = f"p50 {seconds['p50']:.2f} s, p99 {seconds['p99']:.2f} s"
            table.add_row(f"{kind} event to visible", f"{seen}  (goal: {goal})")
    for arm in ("frozen", "live", "difference"):
        found = quality[arm]
        if found["recall20"] is not None:
            interval = f"{found['low']:.4f} to {found['high']:.4f}"
            table.add_row(f"Recall@20, {arm}", f"{found['recall20']:.4f}  ({interval})")
    table.add_row("new titles", str(report["titles_new"]))
    verdicts = ", ".join(f"{count} {name}" for name, count in report["cycles_by_verdict"].items())
    table.add_row("training cycles", f"{report['cycles']} ({verdicts})")
    table.add_row("seconds", f"{report['seconds']:.0f}")
    table.add_row("page", str(options.page))
    if options.report is not None:
        table.add_row("report", str(options.report))
    console.print(table)
