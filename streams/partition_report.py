"""How well a graph can be cut: what K parts keep, against random ones, as figures and as a picture.

The picture is plain SVG, one panel for the kept weight and one for the balance, over K on a
logarithmic scale; an HTML page is the picture with its table.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from partition.balance import SLACK
from partition.mincut import CoplayEdges, Cutter, cut_edges, random_parts

WIDTH, PANEL, LEFT, TOP, BOTTOM = 640, 240, 64, 40, 44  # pixels
INK, SOFT, RULE, CUT, RANDOM = "#1d232b", "#66707d", "#d9dde3", "#0a8f82", "#858c98"


@dataclass(frozen=True, slots=True)
class Quality:
    """One cut beside random parts.

    Attributes:
        parts: K.
        kept: share of the co-play weight inside parts.
        random_kept: the same of titles dealt at random.
        balance: size of the largest part over the mean.
        seconds: of the cut.
    """

    parts: int
    kept: float
    random_kept: float
    balance: float
    seconds: float

    def record(self) -> dict[str, Any]:
        """As JSON; `against_random` is left out where random parts keep nothing."""
        told: dict[str, Any] = asdict(self)
        if self.random_kept > 0:
            told["against_random"] = round(self.kept / self.random_kept, 3)
        return told


def measure(
    edges: CoplayEdges,
    parts: Sequence[int],
    *,
    seed: int,
    cutter: Cutter = "auto",
    threads: int = 1,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> list[Quality]:
    """Cut into each number of parts.

    Args:
        told: called with the cuts made, and the cuts to make.

    Raises:
        ValueError: a number of parts is < 1.
    """
    found = []
    for count in parts:
        made = cut_edges(edges, count, seed=seed, cutter=cutter, threads=threads)
        dealt = random_parts(edges, count, seed=seed)
        found.append(
            Quality(count, made.kept_weight, dealt.kept_weight, made.balance, made.seconds)
        )
        told(len(found), len(parts))
    return found


def picture(found: Sequence[Quality], title: str) -> str:
    """The SVG of both panels.

    Args:
        found: at least one cut.
    """
    most = max(1.01 + SLACK, *(one.balance for one in found))
    body = [
        _panel(
            found,
            0,
            f"{title}: share of co-play weight kept inside parts",
            (0.0, 1.0),
            [
                (CUT, "min-cut", [one.kept for one in found]),
                (RANDOM, "random", [one.random_kept for one in found]),
            ],
        ),
        _panel(
            found,
            PANEL + TOP + BOTTOM,
            f"Largest part over the mean (limit {1 + SLACK:.2f})",
            (1.0, most),
            [(CUT, "min-cut", [one.balance for one in found])],
            limit=1 + SLACK,
        ),
    ]
    height = 2 * (PANEL + TOP + BOTTOM)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13">{"".join(body)}</svg>'
    )


def page(found: Sequence[Quality], title: str) -> str:
    """The HTML page: picture and table."""
    head = "".join(f"<th>{name}</th>" for name in ("parts", "kept", "random", "balance", "seconds"))
    rows = "".join(
        f"<tr><td>{one.parts}</td><td>{one.kept:.3f}</td><td>{one.random_kept:.3f}</td>"
        f"<td>{one.balance:.3f}</td><td>{one.seconds:.2f}</td></tr>"
        for one in found
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        "<style>body{font:16px system-ui,sans-serif;max-width:44rem;margin:2rem auto;"
        f"padding:0 1rem;color:{INK};background:#fff}}table{{border-collapse:collapse}}"
        f"td,th{{padding:.3rem .9rem;text-align:right;border-bottom:1px solid {RULE}}}</style>"
        f"<h1>Parts of {html.escape(title)}</h1>{picture(found, title)}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></html>\n"
    )


def _panel(
    found: Sequence[Quality],
    top: int,
    title: str,
    span: tuple[float, float],
    lines: list[tuple[str, str, list[float]]],
    limit: float | None = None,
) -> str:
    low, high = span
    first, last = (math.log2(pick(one.parts for one in found)) for pick in (min, max))
    right = WIDTH - 96

    def x(parts: int) -> float:
        share = (math.log2(parts) - first) / (last - first) if last > first else 0.5
        return LEFT + share * (right - LEFT)

    def y(value: float) -> float:
        return top + TOP + PANEL * (high - value) / (high - low)

    out = [_text(LEFT, top + 22, title, INK, "start", "bold")]
    for step in range(5):
        value = low + (high - low) * step / 4
        out.append(_rule(y(value), right))
        out.append(_text(LEFT - 8, y(value) + 4, f"{value:.2f}", SOFT, "end"))
    out.extend(
        _text(x(one.parts), top + TOP + PANEL + 20, str(one.parts), SOFT, "middle") for one in found
    )
    out.append(_text(right + 14, top + TOP + PANEL + 20, "parts", SOFT, "start"))
    if limit is not None:
        out.append(_rule(y(limit), right, dashes="4 4", colour=SOFT))
    for colour, name, values in lines:
        at = [(x(one.parts), y(value)) for one, value in zip(found, values, strict=True)]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in at)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.extend(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in at)
        out.append(_text(at[-1][0] + 10, at[-1][1] + 4, name, colour, "start"))
    return "".join(out)


def _rule(y: float, right: float, *, dashes: str = "none", colour: str = RULE) -> str:
    return (
        f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" '
        f'stroke-dasharray="{dashes}"/>'
    )


def _text(x: float, y: float, words: str, colour: str, anchor: str, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{html.escape(words)}</text>'
    )
