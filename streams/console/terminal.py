"""What the page shows, for a terminal: `upwell top`."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

KINDS = {"catalog": "catalog event", "coplay": "co-play"}
STAGES = {
    "read": "until read",
    "applied": "until folded in",
    "embedded": "until embedded",
    "visible": "until visible",
}
BEHIND_S = 10.0  # age of the oldest event that nobody can see
SHOWN = 5  # cycles
_VERDICT_STYLES = {"passed": "green", "refused": "yellow", "failed": "red", "skipped": "dim"}


def trouble(told: Mapping[str, Any]) -> str | None:
    """What an operator should look at first, or None."""
    wrong = [f"{name}: {why}" for name, why in told["checks"].items() if why is not None]
    if told["error"]:
        wrong.append(told["error"])
    if wrong:
        return wrong[0]
    if told["phase"] != "live":
        return f"the worker is {told['phase']}"
    behind_s = (told["written_ms"] - told["watermark_ms"]) / 1000
    if behind_s > BEHIND_S:
        return f"the oldest event that no reader can see came in {seconds(behind_s)} ago"
    return None


def screen(told: Mapping[str, Any]) -> RenderableType:
    """A worker's heartbeat as a panel."""
    wrong = trouble(told)
    head = Text("Embeddings are fresh", style="bold green")
    if wrong is not None:
        head = Text(wrong, style="bold red")
    heard_s = time.time() - told["written_ms"] / 1000
    under = (
        f"space {told['space']}   {told['titles']:,} titles   {told['coplay_edges']:,} co-play "
        f"edges   heard {seconds(max(heard_s, 0))} ago"
    )
    both = Table.grid(padding=(0, 5))
    both.add_row(_lanes(told), _backlog(told))
    return Panel(
        Group(head, Text(under, style="dim"), "", _freshness(told), "", both, "", _cycles(told)),
        title=f"Upwell: worker {told['worker']}, {told['phase']}",
        padding=(1, 2),
    )


def _freshness(told: Mapping[str, Any]) -> Table:
    table = Table("freshness", "p50", "p99", *STAGES.values(), box=None, header_style="bold")
    for kind, name in KINDS.items():
        recent = told["freshness_recent_s"].get(kind)
        found = recent or told["freshness_s"].get(kind, {})
        stages = told["stages_s"].get(kind, {})
        cells = [seconds(found.get("p50")), seconds(found.get("p99"))]
        cells += [seconds(stages.get(stage)) for stage in STAGES]
        table.add_row(name, *cells, style="" if recent else "dim")
    return table


def _lanes(told: Mapping[str, Any]) -> Table:
    table = Table("lanes", "", box=None, header_style="bold")
    for name, value in (
        ("refresh: titles that wait", f"{told['dirty']:,}"),
        ("embeddings a second", f"{told['published_per_s']:,.0f}"),
        ("training", "now" if told["training"] else f"{told['cycles']} cycles so far"),
        ("co-plays that wait", f"{told['fresh_coplays']:,}"),
        ("weights of step", f"{told['step']:,}"),
    ):
        table.add_row(name, Text(value, justify="right"))
    return table


def _backlog(told: Mapping[str, Any]) -> Table:
    table = Table("ingest", "", "", box=None, header_style="bold")
    table.add_row("events a second", f"{told['events_per_s']:,.0f}", "")
    lags = told["lag_by_partition"]
    table.add_row("not read yet", f"{told['lag']:,}", "")
    worst = max(lags.values(), default=0)
    behind = sorted(((name, lag) for name, lag in lags.items() if lag), key=lambda one: -one[1])
    for name, lag in behind[:3]:
        table.add_row(f"  {name}", f"{lag:,}", ProgressBar(total=worst, completed=lag, width=16))
    dead = sum(one.get("dead", 0) for one in told["events"].values())
    table.add_row("dead letters", f"{dead:,}", "")
    table.add_row("last checkpoint", f"{seconds(told['checkpoint_age_s'])} ago", "")
    table.add_row("memory", f"{told['memory_bytes']['process'] / 1e6:,.0f} MB", "")
    return table


def _cycles(told: Mapping[str, Any]) -> RenderableType:
    if not told["last_cycles"]:
        return Text("no training cycle yet", style="dim")
    head = ("cycle", "gate", "co-plays", "loss", "cosine", "recall@20", "after", "took")
    table = Table(*head, box=None, header_style="bold")
    for one in list(reversed(told["last_cycles"]))[:SHOWN]:
        gate = Text(one["verdict"], style=_VERDICT_STYLES.get(one["verdict"], ""))
        if one["reason"]:
            gate.append(f": {one['reason']}", style="default")
        figures = [_plain(one.get("loss"), 3), _plain(one.get("drift_cosine"), 4)]
        figures += [_plain(one.get(f"recall_{when}"), 4) for when in ("before", "after")]
        took = seconds(one["seconds"])
        table.add_row(str(one["cycle"]), gate, f"{one['fresh']:,}", *figures, took)
    return table


def seconds(value: float | None) -> str:
    """A duration for the eye: 45 ms, 0.25 s, 12 s, 3 min, 2 h."""
    if value is None:
        return "-"
    if value < 0.0995:
        return f"{value * 1000:.0f} ms"
    if value < 9.95:
        return f"{value:.2f} s" if value < 0.995 else f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.0f} h"


def _plain(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
