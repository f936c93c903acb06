"""What an operator sees, held against what is: metrics, canary, dashboard, alerts, live page.

    make bench-operate ARGS="--json FILE"

Writes {"figures": {name: value}, "machine": ..., "seed": ...}. A figure whose program is missing
(prometheus, promtool, a browser) is null, and the run says so.

    metrics_overhead   share of the ingest's CPU time that metrics take, scraped as in compose.yaml:
                       one process folds the same batches with metrics and with none, in turn
    canary_vs_reader   mean time of the canary's titles by the mean that the outside reader measured
                       for catalog events, in the same stream
    histogram_vs_*     the same for the worker's own freshness histogram, by kind of event
    new_title_on_page_s  from a new title's publication in Redis until a browser shows it, median
    panels_with_data   panels of deploy/grafana's dashboard of which every query gives data, when
                       sent to a Prometheus that scrapes this stream
    alerts_fired       alerts that fired in it, and alerts_holding: whose condition held at its end

The stream is the demo's: MovieLens-1M on embedded servers, with the checkpoint that the demo keeps.
"""

import argparse
import contextlib
import json
import logging
import os
import platform
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
import numpy as np
from operate_prometheus import (
    Prometheus,
    alerts_tested,
    firing,
    holding,
    panels,
    panels_without_data,
    rules,
)
from rich.console import Console
from rich.table import Table

from serve.reader import EmbeddingReader
from streams.bootstrap import entry_of
from streams.coplay import Pairing
from streams.demo.freshness import KINDS, read_samples
from streams.demo.prepare import Prepared, prepare
from streams.demo.stage import Stage, open_stage
from streams.embedded import spawn
from streams.events import CatalogEntry, CoPlay, Message, encode
from streams.ingest import Batch, Ingest
from streams.intake import Intake
from streams.metrics import Metrics
from streams.producer import Producer
from streams.settings import GraphSettings, KafkaSettings
from streams.state import State

Figures = dict[str, float | int | None]
TIME_MS = 1_700_000_000_000
BATCH = 2_000  # messages; the ingest takes up to 20,000 where so many wait
SCRAPES = 50
SCRAPE_S = 5.0
CHUNK_S = 0.5
PUBLISH_S = 2.0  # between two new titles of the stream
CYCLE_S = 12.0
SETTLE_S = 15.0  # of the stream, before anything is held against anything
PATIENCE_S = 120.0


class NoMetrics(Metrics):
    """Takes the ingest's figures, and does nothing with them."""

    def events(self, topic: str, *, read: int = 0, applied: int = 0, dead: int = 0) -> None:
        pass

    def batch(self, seconds: float) -> None:
        pass

    def lag(self, lags: Any) -> None:
        pass

    def dirty(self, titles: int) -> None:
        pass


def batches_of(events: int, size: int, seed: int) -> list[Batch]:
    """Co-plays as they come from Kafka, in batches of `size` messages."""
    rng = np.random.default_rng(seed)
    titles = 20_000
    rank = np.minimum(rng.pareto(1.0, events) * titles / 200, titles - 1).astype(int)
    other = (rank + 1 + rng.integers(0, titles - 1, events)) % titles
    found = []
    for at in range(0, events, size):
        messages = [
            Message(
                "coplays",
                0,
                row,
                None,
                encode(CoPlay(f"m{rank[row]}", f"m{other[row]}", TIME_MS + row)),
                TIME_MS + row,
            )
            for row in range(at, min(at + size, events))
        ]
        found.append(Batch({"coplays": messages}, {("coplays", 0): at + len(messages)}))
    return found


def fold(batches: list[Batch], metrics: Metrics) -> float:
    """CPU seconds of this process to fold all batches into an empty store."""
    state = State.empty(GraphSettings())
    nobody = cast(Any, None)  # no broker: the batches are here, and none of them is bad
    intake = Intake(cast(Ingest, nobody), cast(Producer, nobody), state, metrics, KafkaSettings())
    start = time.process_time()
    for batch in batches:
        intake.take(batch)
    return time.process_time() - start


def overhead(rounds: int, events: int, seed: int) -> float:
    """Share of the ingest's CPU time that metrics take.

    Many short runs, with and without, each pair one after the other: the median of their ratios
    holds where other work is on the machine. A scrape each `SCRAPE_S` is added as what it takes.
    """
    batches = batches_of(events, BATCH, seed)
    fold(batches, Metrics())  # compiles
    ratios = []
    for number in range(rounds):
        took = {}
        for silent in (number % 2 == 0, number % 2 == 1):
            took[silent] = fold(batches, NoMetrics() if silent else Metrics())
        ratios.append(took[False] / took[True] - 1)
    metrics = Metrics()
    start = time.process_time()
    for _ in range(SCRAPES):
        metrics.expose()
    return float(np.median(ratios)) + (time.process_time() - start) / SCRAPES / SCRAPE_S


class Sender:
    """Plays and new titles of the demo's plan, at an even pace, from a thread of its own."""

    def __init__(self, prepared: Prepared, stage: Stage, rate: float) -> None:
        self._prepared, self._stage, self._rate = prepared, stage, rate
        self._producer = Producer(stage.bootstrap)
        self._stop = threading.Event()
        self.error: Exception | None = None
        self.plays = self.titles = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._send()
        except Exception as error:  # noqa: BLE001 -- raised where the stream ends
            self.error = error

    def _send(self) -> None:
        data, plan = self._prepared.data, self._prepared.plan
        kafka = self._stage.settings.kafka
        chunk = max(int(self._rate * CHUNK_S), 1)
        due = start = time.monotonic()
        while not self._stop.is_set():
            for row in plan.stream[self.plays : self.plays + chunk].tolist():
                user, title = data.users[data.play_users[row]], data.titles[data.play_titles[row]]
                play = {"user": user, "title": title, "time_ms": int(time.time() * 1000)}
                self._producer.send(kafka.plays, key=user, value=msgspec.json.encode(play))
            self.plays += chunk
            if self.titles < min((due - start) / PUBLISH_S, len(plan.new_titles)):
                title = int(plan.new_titles[self.titles])
                entry = entry_of(data, title, time_ms=int(time.time() * 1000))
                self._producer.send(kafka.catalog, key=data.titles[title], value=encode(entry))
                self.titles += 1
            self._producer.flush()
            due += CHUNK_S
            self._stop.wait(max(due - time.monotonic(), 0))


def sums(port: int, name: str) -> dict[str, tuple[float, float]]:
    """Sum and count of a histogram by its label `kind`, or "" where it has none."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found: dict[str, list[float]] = {}
    for at, suffix in enumerate(("sum", "count")):
        for line in lines:
            if line.startswith(f"{name}_{suffix}"):
                kind = line.partition('kind="')[2].partition('"')[0]
                found.setdefault(kind, [0.0, 0.0])[at] = float(line.rpartition(" ")[2])
    return {kind: (total, count) for kind, (total, count) in found.items()}


def seen_by(canary: int) -> bool:
    """Whether the canary at this port answers, and has seen a title come through."""
    try:
        return sums(canary, CANARY)[""][1] > 0
    except URLError:
        return False


def mean_between(before: dict[str, Any], after: dict[str, Any], kind: str) -> float | None:
    total, count = (
        one - two for one, two in zip(after[kind], before.get(kind, (0, 0)), strict=True)
    )
    return total / count if count else None


def on_page(stage: Stage, port: int, prepared: Prepared, count: int) -> list[float] | None:
    """Seconds from a title's publication in Redis until a browser shows its name, one a title."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        return None
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    data = prepared.data
    like = entry_of(data, int(prepared.plan.history[0]) % len(data.titles), time_ms=0)
    reader = EmbeddingReader(stage.redis)
    producer = Producer(stage.bootstrap)
    seconds = []
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chromium)
        except Error:
            return None
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_function("document.querySelector('#because').innerText.length > 0")
        for number in range(count):
            title, name = f"bench-{number}", f"Benchmark {number:03}"
            entry = CatalogEntry(title, int(time.time() * 1000), like.concepts, name)
            producer.send(stage.settings.kafka.catalog, key=title, value=encode(entry))
            producer.flush()
            wait_for(lambda title=title: bool(reader.get_many([title]).found[0]), title)
            visible = time.monotonic()
            page.wait_for_function(
                "name => document.body.innerText.includes(name)",
                arg=name,
                polling=20,
                timeout=PATIENCE_S * 1000,
            )
            seconds.append(time.monotonic() - visible)
            time.sleep(0.37)  # not in step with the page's own beat
        browser.close()
    return seconds


def wait_for(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come within {PATIENCE_S:g} s")
        time.sleep(0.005)


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def stream(prepared: Prepared, folder: Path, options: argparse.Namespace) -> Figures:
    """Run the stream, and hold what is told of it against what was seen of it."""
    worker, canary, prom = free_ports(3)
    os.environ |= {
        "UPWELL_OPERATE__PORT": str(worker),
        "UPWELL_CANARY__PORT": str(canary),
        "UPWELL_CANARY__INTERVAL_S": "0.5",
    }
    figures: Figures = {}
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(open_stage(folder, cycle_s=CYCLE_S))
        command = [sys.executable, "-m", "streams.cli", "canary", "--config"]
        stack.enter_context(
            spawn("canary", [*command, folder / "upwell.toml"], log=folder / "canary.log")
        )
        prometheus = None
        if shutil.which("prometheus"):
            targets = {
                "upwell-worker": f"127.0.0.1:{worker}",
                "upwell-canary": f"127.0.0.1:{canary}",
            }
            prometheus = Prometheus(folder / "prometheus", prom, targets)
            stack.callback(prometheus.stop)
        else:
            say("no prometheus here: its figures are null")
        start_s = time.time()
        sender = stack.enter_context(Sender(prepared, stage, options.rate))
        wait_for(lambda: seen_by(canary), "the canary's first title")
        time.sleep(SETTLE_S)
        before, canary_before = sums(worker, FRESHNESS), sums(canary, CANARY)
        from_ms = time.time() * 1000
        time.sleep(options.seconds)
        until_ms = time.time() * 1000
        after, canary_after = sums(worker, FRESHNESS), sums(canary, CANARY)
        time.sleep(2)  # the reader writes its samples each second
        samples = read_samples(stage.samples)
        inside = (samples["append_ms"] >= from_ms) & (samples["append_ms"] < until_ms)
        means = {
            kind: float(samples["seconds"][inside & (samples["kind"] == number)].mean())
            for number, kind in enumerate(KINDS)
        }
        for kind in KINDS:
            told = mean_between(before, after, kind)
            figures[f"reader_{kind}_s"] = round(means[kind], 4)
            figures[f"histogram_{kind}_s"] = told and round(told, 4)
            figures[f"histogram_vs_reader_{kind}"] = told and round(told / means[kind], 3)
        told = mean_between(canary_before, canary_after, "")
        figures["canary_s"] = told and round(told, 4)
        figures["canary_vs_reader"] = told and round(told / means["catalog"], 3)
        pages = on_page(stage, worker, prepared, options.titles)
        if pages is None:
            say("no browser here: new_title_on_page_s is null")
        figures["new_title_on_page_s"] = pages and round(float(np.median(pages)), 3)
        figures["new_title_on_page_max_s"] = pages and round(max(pages), 3)
        end_s = time.time()
        if prometheus is not None:
            empty = panels_without_data(prometheus, start_s, end_s)
            fired, held = firing(prometheus, start_s, end_s), holding(prometheus)
            for what, names in (("no data", empty), ("fired", fired), ("holds", held)):
                if names:
                    say(f"{what}: {', '.join(names)}")
            figures["panels_with_data"] = len(panels()) - len(empty)
            figures["alerts_fired"], figures["alerts_holding"] = len(fired), len(held)
        stage.check()
        figures["plays"], figures["new_titles"] = sender.plays, sender.titles
    return figures


FRESHNESS, CANARY = "upwell_freshness_seconds", "upwell_canary_seconds"


def say(text: str) -> None:
    Console(stderr=True, highlight=False).print(text)


def main() -> None:
    logging.basicConfig(level="WARNING")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--seconds", type=float, default=150.0, help="of the stream")
    parser.add_argument("--rate", type=float, default=100.0, help="plays a second")
    parser.add_argument("--titles", type=int, default=20, help="published for the page")
    parser.add_argument("--rounds", type=int, default=200, help="pairs of runs of the ingest")
    parser.add_argument("--events", type=int, default=20_000, help="in one run of the ingest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement")
    parser.add_argument("--keep", type=Path, help="keep logs here; a new folder")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.titles, options.rounds = 45.0, 4, 60
    figures: Figures = {
        "metrics_overhead": round(overhead(options.rounds, options.events, options.seed), 4),
        "alerts_tested": alerts_tested(),
        "alerts_total": len(rules()),
        "panels_with_data": None,
        "panels_total": len(panels()),
    }
    with tempfile.TemporaryDirectory(prefix="upwell-bench-") as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        prepared = prepare(
            plays=40_000,
            new_titles=150,
            seed=options.seed,
            pairing=Pairing(),
            folder=folder / "checkpoints",
            report=lambda *_, **__: None,
        )
        figures |= stream(prepared, folder, options)
    table = Table("figure", "value", box=None, header_style="bold")
    for figure, value in figures.items():
        table.add_row(figure, str(value))
    Console().print(table)
    if options.json:
        machine = (
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        )
        told = {"figures": figures, "machine": machine, "seed": options.seed}
        options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
