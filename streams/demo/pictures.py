"""The pictures of the demo's page, as SVG text to stand in HTML.

Each is drawn for a wide and for a narrow screen, since text that is scaled down cannot be read. No
colour is fixed: what is drawn in one of `INKS` is turned into the page's CSS variable of that name,
so that a picture follows the page into the dark. Only the many old titles of the map are a bitmap.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from streams.demo.freshness import KINDS
from streams.demo.report import Cycle, DemoResult, Titles, windows

WIDTHS = {"wide": 720, "narrow": 350}  # CSS pixels
# Colours that stand for the page's variables; nothing else may be drawn in them.
INKS = {
    name: f"#0d0e{number:02x}"
    for number, name in enumerate(["ink", "soft", "rule", "catalog", "coplay", "live", "frozen"], 1)
}
_OLD = "#7f8a9c"  # the old titles of the map: legible on light and on dark
_STYLE: Any = {
    "font.size": 11,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a title may have dollar signs
    "text.color": INKS["ink"],
    "axes.edgecolor": INKS["rule"],
    "axes.labelcolor": INKS["soft"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": INKS["rule"],
    "grid.linewidth": 0.8,
    "xtick.color": INKS["rule"],
    "ytick.color": INKS["rule"],
    "xtick.labelcolor": INKS["soft"],
    "ytick.labelcolor": INKS["soft"],
    "ytick.major.size": 0,
    "figure.constrained_layout.h_pad": 0.08,
}
_BINS = 60  # steps of time in the co-plays' freshness
_FEW = 30  # samples below which a step's p99 says nothing
_WINDOWS = 10
_LABELS = 7  # names on the map, of old titles and of new ones each

Floats = npt.NDArray[np.float32]


def freshness(result: DemoResult, width: int) -> str:
    """Seconds from append to visible, over the time of the append, a panel a kind."""
    samples, start = result.samples, result.stream_start_ms
    with _figure(width, 430, f"freshness-{width}") as (figure, finish):
        panels = figure.subplots(2, 1, sharex=True, sharey=True)
        for panel, kind in zip(panels, KINDS, strict=True):
            of_kind = samples[samples["kind"] == KINDS.index(kind)]
            at_s = (of_kind["append_ms"] - start) / 1000
            seconds = np.maximum(of_kind["seconds"].astype(float), 1e-3)
            _training(panel, result.cycles)
            panel.set_title({"catalog": "New titles (catalog events)", "coplay": "Co-plays"}[kind])
            if kind == "catalog":
                panel.scatter(at_s, seconds, s=9, color=INKS[kind], linewidths=0, alpha=0.75)
            elif len(seconds):
                _bands(panel, at_s, seconds, INKS[kind])
            _levels(panel, seconds, INKS[kind])
            panel.grid(axis="y")
        _seconds_axis(panels[0], samples["seconds"].astype(float))
        panels[1].set_xlabel("seconds since the stream began")
        panels[1].set_xlim(left=0)
        return finish()


def recall(result: DemoResult, width: int) -> str:
    """Recall@20 of both arms over the stream, and below it their paired difference."""
    found = windows(result.predictions, _WINDOWS, result.seed)
    found = [window for window in found if window["plays"]]
    middle = np.array([(window["start"] + window["end"]) / 2000 for window in found])
    with _figure(width, 470, f"recall-{width}") as (figure, finish):
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        for arm in ("frozen", "live"):
            mean = _series(found, arm, "recall20")
            low, high = _series(found, arm, "low"), _series(found, arm, "high")
            top.fill_between(middle, low, high, color=INKS[arm], alpha=0.14, linewidth=0)
            top.plot(middle, mean, color=INKS[arm], marker="o", markersize=4, linewidth=2)
        top.set_title("Recall@20: frozen and live embeddings")
        top.grid(axis="y")
        _name_lines(top, middle, found)

        mean = _series(found, "difference", "recall20")
        below = mean - _series(found, "difference", "low")
        above = _series(found, "difference", "high") - mean
        bottom.axhline(0, color=INKS["soft"], linewidth=1)
        bottom.errorbar(
            middle,
            mean,
            np.stack([below, above]),
            fmt="o",
            color=INKS["live"],
            markersize=4,
            capsize=3,
            linewidth=1.5,
        )
        bottom.set_title("Live minus frozen, on the same plays")
        bottom.grid(axis="y")
        bottom.set_xlabel("thousand plays predicted")
        return finish()


def map_of_titles(titles: Titles, places: Floats, width: int) -> str:
    """The titles on the plane, the new ones marked and some of both named.

    Args:
        places: of the known titles, in their order, shape (K, 2).
    """
    rows = np.flatnonzero(titles.known)
    new = titles.new[rows]
    tall = min(round(width * 0.8), 520) if width > 500 else 400
    with _figure(width, tall, f"map-{width}") as (figure, finish):
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        old_x, old_y = places[~new].T
        axes.scatter(
            old_x,
            old_y,
            s=5 if width > 500 else 3,
            color=_OLD,
            linewidths=0,
            alpha=0.6,
            rasterized=True,
        )
        new_x, new_y = places[new].T
        axes.scatter(new_x, new_y, s=20, color=INKS["catalog"], linewidths=0)
        if not len(places):
            axes.text(0.5, 0.5, "no titles", transform=axes.transAxes, ha="center")
            return finish()
        low, high = np.percentile(places, (0.5, 99.5), axis=0)
        margin = 0.06 * (high - low) + 1e-6
        axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
        axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
        _name_titles(axes, (width, tall), titles, rows, places, _LABELS if width > 500 else 4)
        return finish()


def _name_titles(
    axes: Axes,
    size: tuple[int, int],
    titles: Titles,
    rows: npt.NDArray[np.int64],
    places: Floats,
    count: int,
) -> None:
    """Name the most played titles of either kind whose names have room.

    Words over points are of the class `rim`, to which the page's style sheet gives one of paper.
    """
    new = titles.new[rows]
    where = axes.transAxes.inverted().transform(axes.transData.transform(places)) * size
    boxes: list[tuple[float, float, float, float]] = []
    for is_new, ink in ((True, INKS["catalog"]), (False, INKS["ink"])):
        left = count
        of_kind = np.flatnonzero(new == is_new)
        for row in of_kind[np.argsort(-titles.plays[rows[of_kind]], kind="stable")]:
            name = _short(titles.names[rows[row]])
            x, y = where[row]
            wide = 5.6 * len(name)
            to_left = x + wide + 8 > size[0]
            box = (x - wide - 8, y - 7, x, y + 7) if to_left else (x, y - 7, x + wide + 8, y + 7)
            inside = box[0] > 0 and box[1] > 0 and box[2] < size[0] and box[3] < size[1]
            if not inside or any(_overlap(box, other) for other in boxes):
                continue
            boxes.append(box)
            label = axes.annotate(
                name,
                places[row],
                (-5, 0) if to_left else (5, 0),
                textcoords="offset points",
                ha="right" if to_left else "left",
                va="center",
                color=ink,
                fontsize=10,
            )
            label.set_gid("rim")
            at_x, at_y = places[row].tolist()
            axes.scatter(at_x, at_y, s=26, facecolors="none", edgecolors=ink, linewidths=1.2)
            left -= 1
            if not left:
                break


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _short(name: str, longest: int = 32) -> str:
    name = " ".join(name.split())
    return name if len(name) <= longest else name[: longest - 1].rstrip() + "…"


def _training(panel: Axes, cycles: Sequence[Cycle]) -> None:
    for cycle in cycles:
        if cycle.seconds > 0:
            end = cycle.at_s + cycle.seconds
            panel.axvspan(cycle.at_s, end, color=INKS["soft"], alpha=0.1, linewidth=0)


def _bands(
    panel: Axes, at_s: npt.NDArray[np.floating], seconds: npt.NDArray[np.floating], ink: str
) -> None:
    """p50 and p99 of each step of time, and what lies between."""
    edges = np.linspace(at_s.min(), max(at_s.max(), at_s.min() + 1), _BINS + 1)
    step = np.clip(np.digitize(at_s, edges) - 1, 0, _BINS - 1)
    middle, found = [], []
    for number in range(_BINS):
        inside = seconds[step == number]
        if len(inside) >= _FEW:
            middle.append((edges[number] + edges[number + 1]) / 2)
            found.append(np.percentile(inside, (50, 99)))
    if not found:
        panel.scatter(at_s, seconds, s=9, color=ink, linewidths=0, alpha=0.75)
        return
    p50, p99 = np.array(found).T
    panel.fill_between(middle, p50, p99, color=ink, alpha=0.16, linewidth=0)
    panel.plot(middle, p50, color=ink, linewidth=2)
    panel.plot(middle, p99, color=ink, linewidth=1)


def _seconds_axis(panel: Axes, seconds: npt.NDArray[np.floating]) -> None:
    panel.set_yscale("log")
    top = max(float(seconds.max(initial=0.0)) * 1.3, 1.0)
    bottom = min(float(seconds.min(initial=0.02)) / 1.3, 0.02)
    panel.set_ylim(max(bottom, 1e-3), top)
    panel.yaxis.set_major_locator(FixedLocator([0.001, 0.01, 0.1, 1, 10, 100, 1000]))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: in_words(value)))


def _levels(panel: Axes, seconds: npt.NDArray[np.floating], ink: str) -> None:
    """p50 and p99 over all, with their names."""
    if not len(seconds):
        panel.text(0.5, 0.5, "no samples", transform=panel.transAxes, ha="center", va="center")
        return
    p50, p99 = np.percentile(seconds, (50, 99))
    for name, value in (("p50", p50), ("p99", p99)):
        panel.axhline(value, color=ink, linewidth=1, linestyle=(0, (4, 3)))
        label = panel.annotate(
            f"{name} {in_words(value)}",
            (1, value),
            (-2, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
        )
        label.set_gid("rim")


def in_words(seconds: float) -> str:
    """'80 ms', '1.2 s': two figures are enough."""
    if seconds < 0.9995:
        return f"{float(f'{seconds * 1000:.2g}'):g} ms"
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"


def _series(found: Sequence[dict[str, Any]], arm: str, name: str) -> npt.NDArray[np.float64]:
    return np.array([window[arm][name] for window in found], np.float64)


def _name_lines(
    axes: Axes, middle: npt.NDArray[np.float64], found: Sequence[dict[str, Any]]
) -> None:
    """The arms' names behind the end of their lines: above and below, lest they meet."""
    if not len(middle):
        axes.text(0.5, 0.5, "no predictions", transform=axes.transAxes, ha="center")
        return
    last = {arm: found[-1][arm]["recall20"] for arm in ("frozen", "live")}
    for arm, value in last.items():
        upper = value >= max(last.values()) and (arm == "live" or value > last["live"])
        axes.annotate(
            arm,
            (middle[-1], value),
            (7, 4 if upper else -4),
            textcoords="offset points",
            color=INKS[arm],
            fontweight="bold",
            va="bottom" if upper else "top",
            annotation_clip=False,
        )


@contextmanager
def _figure(width: int, height: int, salt: str) -> Iterator[tuple[Figure, Callable[[], str]]]:
    """A figure of so many CSS pixels, and what turns it into SVG text."""
    with mpl.rc_context(_STYLE | {"svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser has it, if our font has not
        figure = Figure((width / 72, height / 72), layout="constrained")

        def finish() -> str:
            raw = io.StringIO()
            figure.savefig(raw, format="svg", transparent=True, dpi=200, metadata={"Date": None})
            return _for_the_page(raw.getvalue())

        yield figure, finish


def _for_the_page(svg: str) -> str:
    """Without its prologue, its size and needless ids, and with variables for inks."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, _, body = svg.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    head = re.sub(r' xmlns:(?!xlink)\w+="[^"]*"', "", head)
    svg = f'{head} aria-hidden="true">{body}'
    for name, ink in INKS.items():
        svg = svg.replace(ink, f"var(--{name})")
    # Two pictures would have an `axes_1` each; ids that are referred to are told apart by the salt.
    svg = re.sub(r'<g id="rim[^"]*"', '<g class="rim"', svg)
    return re.sub(r'<g id="[^"]*"', "<g", svg)
