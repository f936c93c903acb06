"""What the demo shows while it runs: a live panel on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

LINE_EVERY_S = 10.0  # where there is no terminal


@dataclass(slots=True)
class Frame:
    """One moment of the demo.

    Attributes:
        phase: what goes on, in two words.
        sent, to_send: plays.
        new_out, new_all: held-back titles published so far, and in all.
        worker: the worker's last heartbeat (streams/worker.py lists its keys).
        seen: freshness as the outside reader sees it: kind -> {"p50": s, "p99": s}.
        recall: Recall@20 so far: {"frozen": ..., "live": ...}.
    """

    phase: str = "starting"
    sent: int = 0
    to_send: int = 1
    new_out: int = 0
    new_all: int = 0
    worker: Mapping[str, Any] = field(default_factory=dict)
    seen: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    recall: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


class Screen:
    """Shows frames; `show` may be called as often as one likes."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self._console, self._live = console, live
        self._last_line = -LINE_EVERY_S

    def show(self, frame: Frame) -> None:
        if self._live is not None:
            self._live.update(panel(frame))
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._console.print(line(frame), highlight=False, soft_wrap=True)


@contextmanager
def screen(console: Console) -> Iterator[Screen]:
    """A screen on `console` for as long as the block runs."""
    if not console.is_terminal:
        yield Screen(console, None)
        return
    with Live(console=console, refresh_per_second=5, transient=True) as live:
        yield Screen(console, live)


def line(frame: Frame) -> str:
    """The frame in one line."""
    worker = frame.worker
    parts = [
        f"{frame.seconds:5.0f} s  {frame.phase}: {frame.sent}/{frame.to_send} plays",
        f"{frame.new_out}/{frame.new_all} new titles",
        f"{worker.get('events_per_s', 0):.0f} events/s",
        f"lag {worker.get('lag', 0)}",
        f"dirty {worker.get('dirty', 0)}",
        f"cycle {worker.get('cycles', 0)}",
        *(f"{kind} p50 {_s(p, 'p50')} p99 {_s(p, 'p99')}" for kind, p in frame.seen.items()),
        *(f"{arm} recall@20 {value:.3f}" for arm, value in frame.recall.items()),
    ]
    return ", ".join(parts)


def panel(frame: Frame) -> Panel:
    """The frame as a panel: the stream above, the worker left, what is seen from outside right."""
    worker = frame.worker
    stream = Table.grid(padding=(0, 2))
    stream.add_row("plays", _bar(frame.sent, frame.to_send), f"{frame.sent} of {frame.to_send}")
    new = f"{frame.new_out} of {frame.new_all}"
    stream.add_row("new titles", _bar(frame.new_out, frame.new_all), new)

    inside = Table(title="worker", box=None, show_header=False, title_justify="left")
    last = (worker.get("last_cycles") or [{}])[-1]
    for name, value in (
        ("events/s", f"{worker.get('events_per_s', 0):.0f}"),
        ("lag", f"{worker.get('lag', 0)} messages"),
        ("dirty titles", str(worker.get("dirty", 0))),
        ("training cycle", f"{worker.get('cycles', 0)} {last.get('verdict', '')}"),
        ("weights", f"step {worker.get('step', 0)}"),
    ):
        inside.add_row(name, value)

    outside = Table("seen by the reader", "p50", "p99", box=None, header_style="bold")
    for kind in ("catalog", "coplay"):
        seen = frame.seen.get(kind, {})
        outside.add_row(f"{kind} event → visible", _s(seen, "p50"), _s(seen, "p99"))
    outside.add_row("", "frozen", "live")
    arms = [frame.recall.get(arm) for arm in ("frozen", "live")]
    recall = ["-" if value is None else f"{value:.3f}" for value in arms]
    outside.add_row("Recall@20 so far", *recall)

    both = Table.grid(padding=(0, 6))
    both.add_row(inside, outside)
    problem = worker.get("error")
    below = Text(str(problem) if problem else "", style="red")
    return Panel(
        Group(stream, Text(), both, below),
        title=f"Upwell: {frame.phase}",
        subtitle=f"{frame.seconds:.0f} s",
    )


def _bar(done: int, total: int) -> ProgressBar:
    return ProgressBar(total=max(total, 1), completed=done, width=40)


def _s(percentiles: Mapping[str, float], which: str) -> str:
    return f"{percentiles[which]:.2f} s" if which in percentiles else "-"
