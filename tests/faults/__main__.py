"""Runs the fault scenarios: `python -m tests.faults`, or `make faults ARGS=...`; --help says how.

Exit code 0 where every promise holds, 1 where one does not. docs/faults.md tells of each figure.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from tests.faults import clocks, corruption, kills, membership, outages, overload, poison
from tests.faults.report import Report
from tests.kafka.node import Missing, jars

OUTAGE_S = 15.0  # the broker is away four times as long: a minute
TOLD_S = 2.0


def _kills(folder: Path, options: argparse.Namespace, report: Report) -> None:
    count, events = (20, 100_000) if options.quick else (200, 1_000_000)
    found = kills.run(
        folder,
        seed=options.seed,
        kills=count,
        events=events,
        kafka=options.kafka == "apache",
        progress=options.progress,
    )
    report.exactly("kills", "kills", found.kills, count)
    report.told("kills", "events", found.events)
    report.told("kills", "compared", found.compared)
    report.exactly("kills", "lost", found.lost)
    report.exactly("kills", "doubled", found.doubled)
    report.exactly("kills", "catalog_wrong", found.catalog_wrong)
    report.exactly("kills", "published_wrong", found.published_wrong)
    report.exactly("kills", "dead_letters_missed", found.dead_missed)
    report.exactly("kills", "seq_regressions", found.seq_regressions)
    report.exactly("kills", "content_regressions", found.content_regressions)
    report.told("kills", "points", len(found.by_point))
    report.wrong += [f"kills: {one}" for one in found.wrong]
    for point, times in sorted(found.by_point.items()):
        options.console.print(f"  {times:4} x {point}", highlight=False)


def _corruption(folder: Path, options: argparse.Namespace, report: Report) -> None:
    count = 100 if options.quick else 1000
    found = corruption.run(folder, seed=options.seed, corruptions=count, progress=options.progress)
    report.exactly("corruption", "corruptions", found.corruptions, count)
    report.told("corruption", "files", found.files)
    report.exactly("corruption", "corruptions_undetected", found.undetected)
    report.wrong += [f"corruption: {one}" for one in found.wrong]


def _poison(folder: Path, options: argparse.Namespace, report: Report) -> None:
    found = poison.run(
        folder,
        seed=options.seed,
        messages=4000 if options.quick else 100_000,
        kafka=options.kafka == "apache",
        progress=options.progress,
    )
    report.exactly("poison", "poison_kinds", found.kinds, len(poison.KINDS))
    report.told("poison", "good", found.good)
    report.told("poison", "poison", found.poison)
    report.exactly("poison", "poison_missed", found.missed)
    report.exactly("poison", "good_set_aside", found.good_set_aside)
    report.exactly("poison", "poison_lost", found.lost)
    report.exactly("poison", "poison_doubled", found.doubled)
    report.told("poison", "redriven", found.redriven)
    report.exactly("poison", "redriven_twice", found.redriven_twice)
    report.wrong += [f"poison: {one}" for one in found.wrong]


def _outages(folder: Path, options: argparse.Namespace, report: Report) -> None:
    found = outages.run(
        folder,
        seed=options.seed,
        length_s=3.0 if options.quick else OUTAGE_S,
        kafka=_has_kafka(options),
        progress=options.progress,
    )
    report.told("outages", "outages", found.outages)
    report.exactly("outages", "outages_survived", found.survived, found.outages)
    report.exactly("outages", "outages_lost", found.lost)
    report.exactly("outages", "outages_doubled", found.doubled)
    report.exactly("outages", "outages_seq_regressions", found.seq_regressions)
    slowest = max(found.resume_s.values(), default=0.0)
    report.at_most("outages", "resume_seconds_max", slowest, outages.RESUME_S)
    for name, seconds in found.resume_s.items():
        report.told("outages", f"resume_seconds: {name}", seconds)
    for name in found.left_out:
        options.console.print(f"NOT TRIED without Apache Kafka: {name}", style="yellow")
    report.wrong += [f"outages: {one}" for one in found.wrong]


def _membership(folder: Path, options: argparse.Namespace, report: Report) -> None:
    count = 10 if options.quick else 100
    found = membership.run(
        folder,
        seed=options.seed,
        changes=count,
        plays=100 * count,
        kafka=_has_kafka(options),
        progress=options.progress,
    )
    report.exactly("membership", "joins_leaves", found.joins_leaves, count)
    report.told("membership", "sessions_killed", found.kills)
    report.told("membership", "plays", found.plays)
    report.exactly("membership", "plays_lost", found.plays_lost)
    report.exactly("membership", "pairs_odd", found.pairs_odd)
    report.told("membership", "pairs", found.pairs)
    report.told("membership", "pairs_doubled", found.pairs_doubled)
    report.wrong += [f"membership: {one}" for one in found.wrong]


def _overload(folder: Path, options: argparse.Namespace, report: Report) -> None:
    found = overload.run(
        folder,
        seed=options.seed,
        length_s=15.0 if options.quick else 120.0,
        kafka=_has_kafka(options),
        progress=options.progress,
    )
    found.tell(report)


def _clocks(folder: Path, options: argparse.Namespace, report: Report) -> None:
    found = clocks.run(folder, kafka=_has_kafka(options), progress=options.progress)
    report.told("clocks", "clock_skews", found.skews)
    report.exactly("clocks", "skewed_flagged", found.flagged, found.to_flag)
    report.exactly("clocks", "titles_frozen", found.frozen)
    report.wrong += [f"clocks: {one}" for one in found.wrong]


SCENARIOS: dict[str, Callable[[Path, argparse.Namespace, Report], None]] = {
    "kills": _kills,
    "corruption": _corruption,
    "poison": _poison,
    "outages": _outages,
    "membership": _membership,
    "clocks": _clocks,
    "overload": _overload,
}


def _has_kafka(options: argparse.Namespace) -> bool:
    """Whether scenarios that need a real Kafka have one; told loudly where not."""
    if options.kafka == "embedded":
        return False
    try:
        jars()
    except Missing as error:
        if options.kafka == "apache":
            raise
        options.console.print(f"NO APACHE KAFKA: {error}", style="bold yellow")
        return False
    return True


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make faults ARGS=", description=__doc__)
    parser.add_argument("--only", default="", help="scenarios, with commas between")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--keep", type=Path, help="keep logs and checkpoints here")
    parser.add_argument(
        "--kafka",
        choices=("auto", "apache", "embedded"),
        default="auto",
        help="auto: Apache Kafka where a scenario needs it and it is there",
    )
    options = parser.parse_args()
    options.only = [one for one in options.only.split(",") if one]
    if unknown := set(options.only) - SCENARIOS.keys():
        parser.error(f"no scenario {min(unknown)!r}; there are: {', '.join(SCENARIOS)}")
    options.console = Console()
    last = [0.0]

    def progress(name: str, done: int, total: int, remark: str) -> None:
        if time.monotonic() - last[0] >= TOLD_S or done == total:
            last[0] = time.monotonic()
            options.console.print(f"{name}: {done}/{total} {remark}", highlight=False)

    options.progress = progress
    return options


def main() -> int:
    options = _options()
    report = Report(options.seed)
    with tempfile.TemporaryDirectory(prefix="upwell-faults-") as temporary:
        root = options.keep or Path(temporary)
        for name, scenario in SCENARIOS.items():
            if options.only and name not in options.only:
                continue
            folder = root / name
            folder.mkdir(parents=True, exist_ok=True)
            start = time.monotonic()
            try:
                scenario(folder, options, report)
            except AssertionError as error:
                report.wrong.append(f"{name}: {error}")
            report.seconds[name] = time.monotonic() - start
            if options.json:
                report.write(options.json)
    report.show(options.console)
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
