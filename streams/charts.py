"""Curves of an evaluation over its windows, as SVG text to stand in HTML.

Colours are the page's: an arm's line is drawn in a colour of `_LINES`, and all else in marks that
are turned into CSS variables, so that a chart follows the page into the dark.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

WIDTH, HEIGHT = 720, 330  # CSS pixels
_INK, _SOFT, _RULE = "#0c0d01", "#0c0d02", "#0c0d03"  # stand for the page's variables
_STYLE: Any = {
    "font.size": 11,
    "svg.fonttype": "none",
    "svg.hashsalt": "evaluation",
    "text.color": _INK,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": _RULE,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _SOFT,
    "ytick.labelcolor": _SOFT,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
# Legible on light and on dark; ours stand out, what is counted is warm, what is trained is cold.
_LINES = {
    "incremental": "#0a8f82",
    "retrain": "#7b61c9",
    "frozen": "#858c98",
    "frozen_fresh_graph": "#4f86c6",
    "cocount_fresh": "#d9772b",
    "cocount_frozen": "#b89a7a",
    "popularity_fresh": "#a8853a",
    "kg_cosine": "#c25b7c",
    "transe": "#9a6fb0",
    "lightgcn": "#6f9a4a",
}


def curves(arms: Mapping[str, Sequence[float | None]], title: str) -> str:
    """A line an arm over the windows; a window without questions is a gap.

    Args:
        arms: name of each arm -> its figure by window.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure((WIDTH / 72, HEIGHT / 72), layout="constrained")
        axes = figure.subplots()
        for name, values in arms.items():
            axes.plot(
                range(1, len(values) + 1),
                [float("nan") if value is None else value for value in values],
                label=name,
                color=_LINES.get(name, "#858c98"),
                linewidth=2.4 if name == "incremental" else 1.3,
                linestyle="--" if "frozen" in name else "-",
                marker="o" if len(values) < 2 else None,
            )
        axes.set_title(title)
        axes.set_xlabel("window")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", linewidth=0.8)
        if arms:
            figure.legend(loc="outside right upper")
        raw = io.StringIO()
        figure.savefig(raw, format="svg", transparent=True, metadata={"Date": None})
    return _for_the_page(raw.getvalue())


def _for_the_page(svg: str) -> str:
    """Without prologue, size and metadata, and with the page's variables for marks."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, _, body = svg.partition(">")
    svg = re.sub(r' (width|height)="[^"]*"', "", head) + ' role="img">' + body
    for mark, name in ((_INK, "ink"), (_SOFT, "soft"), (_RULE, "rule")):
        svg = svg.replace(mark, f"var(--{name})")
    return svg
