"""The page of an evaluation: one HTML file with its tables and curves, which asks nobody for more.

It shares the demo page's styles. All text goes through `escape`.
"""

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from streams.charts import curves

_STYLE = Path(__file__).parent / "demo" / "page.css"
_NONE = "\u2013"  # a figure that there is no sample for

Figures = Mapping[str, Any]


def build_page(figures: Figures) -> str:
    """The page's HTML, from what `model.evaluation.run.evaluate` gave."""
    protocol, arms = figures["protocol"], figures["arms"]
    lead = (
        f"{protocol['plays']:,} plays of {protocol['titles']:,} titles by "
        f"{protocol['users']:,} users; the first {protocol['cut']:,} are history, the rest "
        f"{protocol['windows']} windows. Each window is predicted, and only then learnt from. "
        f"{protocol['questions']:,} questions, {protocol['cold_questions']:,} of them for titles "
        f"that nobody had played; {protocol['held_back_titles']} titles were held back. Seeds "
        f"{', '.join(map(str, protocol['seeds']))}. Intervals: {protocol['intervals']}. The full "
        f"retraining runs every {protocol['retrain_every']} windows, {protocol['retrain_steps']} "
        "steps each; its seconds are those of a window in which it does."
    )
    sections = [
        f"<header><h1>What the embeddings are worth</h1><p>{escape(str(protocol['data']))}</p>"
        f"<p>{escape(lead)}</p></header>",
        *(
            _section(
                f"{task.upper()}: {words}",
                curves(
                    {name: arm[task]["windows"] for name, arm in arms.items()},
                    f"Recall@20, {task.upper()}, by window",
                ),
                _quality(arms, task),
            )
            for task, words in (
                ("e1", "one co-played title, which comes next?"),
                ("e2", "the mean of the titles just played, which comes next?"),
            )
        ),
        _section("Titles that nobody has played, among themselves", _cold(arms)),
        _section("Differences, question by question", _differences(figures["differences"])),
        _section("Drift and cost", _costs(arms)),
    ]
    if figures["ablations"]:
        sections.append(
            _section("The incremental arm without one thing", _ablations(figures["ablations"]))
        )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>Upwell: evaluation</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}"
        f"</style>\n</head>\n<body>\n{''.join(sections)}</body>\n</html>\n"
    )


def number(value: float | None, digits: int = 4) -> str:
    """A figure; a dash where there is none."""
    return _NONE if value is None else f"{value:.{digits}f}"


def interval(figure: Figures, digits: int = 4, sign: str = "") -> str:
    """'0.0712 (0.0650 to 0.0774)'."""
    if figure["value"] is None:
        return _NONE
    value, low, high = (f"{figure[name]:{sign}.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _quality(arms: Figures, task: str) -> str:
    head = ("arm", "Recall@20", "NDCG@20", "MRR", "warm", "cool", "strict-cold")
    rows = []
    for name, arm in arms.items():
        found = arm[task]
        strata = (found["strata"][one]["recall20"]["value"] for one in ("warm", "cool", "cold"))
        rows.append(
            [
                name,
                interval(found["recall20"]),
                number(found["ndcg20"]["value"]),
                number(found["mrr"]["value"]),
                *map(number, strata),
            ]
        )
    return _table(head, rows)


def _cold(arms: Figures) -> str:
    rows = [
        [name, interval(arm["cold_pool"]["auc"], 3), interval(arm["cold_pool"]["recall20"])]
        for name, arm in arms.items()
    ]
    chance = next((arm["cold_pool"]["chance_recall20"] for arm in arms.values()), None)
    rows.append(["chance", "0.500", number(chance)])
    return _table(("arm", "AUC", "Recall@20"), rows)


def _differences(found: Figures) -> str:
    head = ("less", "E1 Recall@20", "E2 Recall@20", "cold AUC", "cold Recall@20")
    return _table(head, [[name, *_compared(one)] for name, one in found.items()])


def _compared(one: Figures) -> list[str]:
    return [
        interval(one["e1"]["recall20"], sign="+"),
        interval(one["e2"]["recall20"], sign="+"),
        interval(one["cold_pool"]["auc"], 3, "+"),
        interval(one["cold_pool"]["recall20"], sign="+"),
    ]


def _costs(arms: Figures) -> str:
    head = ("arm", "drift: mean cosine", "least", "s a window", "s at the cut", "peak MB")
    rows = [
        [
            name,
            number(arm["drift_cosine"]),
            number(arm["drift_cosine_least"]),
            number(arm["seconds_per_window"], 2),
            number(arm["seconds_at_cut"], 1),
            number(arm["peak_mb"], 0),
        ]
        for name, arm in arms.items()
    ]
    return _table(head, rows)


def _ablations(found: Figures) -> str:
    head = ("without", "E1 Recall@20", "E2 Recall@20", "cold AUC", "cold R@20", "drift", "s")
    rows = [
        [
            name,
            *_compared(one["difference"]),
            number(one["drift_cosine"]),
            number(one["seconds_per_window"], 2),
        ]
        for name, one in found.items()
    ]
    return _table(head, rows)


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>\n"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div style="overflow-x:auto"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
