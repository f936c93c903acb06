"""The demo's page: one HTML file with all that the demo measured, which asks nobody for anything.

Titles and concepts are text of others: all text goes through `escape`, and the page's own policy
lets nothing in but its styles and the bitmaps inside it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from streams.demo import pictures
from streams.demo.layout import plane
from streams.demo.report import GOALS_S, Cycle, DemoResult, NewTitle

_STYLE = Path(__file__).with_name("page.css")
_SHOWN = 4  # shared concepts of a neighbour that are named
_READABLE = ("genre", "keyword")  # relations whose concepts are words, and not ids
_MOST_CYCLES = 40
_NONE = "\u2013"  # a figure that there is no sample for


def write_page(result: DemoResult, report: Mapping[str, Any], file: Path) -> None:
    """Write the page, whole or not at all."""
    part = file.with_name(file.name + ".part")
    part.write_text(build_page(result, report), encoding="utf-8")
    part.replace(file)


def build_page(result: DemoResult, report: Mapping[str, Any]) -> str:
    """The page's HTML.

    Args:
        report: what `streams.demo.report.build_report` made of `result`.
    """
    titles = result.titles
    places = plane(titles.rows_TD[titles.known], seed=result.seed)
    sections = [
        _head(result, report),
        _section(
            "Freshness",
            "From the moment an event was appended to Kafka to the moment its embedding was read "
            "back from Redis, by a process of its own. Every event is a sample; a co-play counts "
            "once <em>both</em> its titles show it. Of co-plays the lines are p50 and p99 of each "
            "moment; dashed is what all of a kind come to. Where it is shaded, a training cycle "
            "ran.",
            _picture(
                "Seconds from append to visible over the time of the stream, by kind of event.",
                {name: pictures.freshness(result, w) for name, w in pictures.WIDTHS.items()},
            ),
        ),
        _section(
            "Do live embeddings predict better?",
            "Each play is predicted from the one before it, and only then streamed: all titles are "
            "ranked, and a hit is a play among the first 20. <em>Frozen</em> embeddings are those "
            "that stood when the stream began, <em>live</em> ones are what Redis held just then. "
            "Bands and bars are 95 % intervals, for which users are drawn anew.",
            _picture(
                "Recall at 20 of frozen and of live embeddings over the stream.",
                {name: pictures.recall(result, w) for name, w in pictures.WIDTHS.items()},
            ),
            _quality_table(report["quality"]),
        ),
        _section(
            "New titles, before anyone had played them",
            "The nearest titles in Redis, as they stood between a title's catalog event and its "
            "first play: the embedding knew its concepts, and nothing else. Shown are those that "
            "were played most afterwards, not those that came out best.",
            "".join(map(_new_title, result.new_titles)) or "<p>None came in.</p>",
        ),
        _section(
            "All titles on a plane",
            f"{_whole(titles.known.sum())} titles at the end, near where their embeddings are "
            f'near; <span class="new">{_whole((titles.known & titles.new).sum())} of them came in '
            "mid-stream</span>. Named are some of the most played. The axes, and the distance "
            "between far groups, mean nothing.",
            _picture(
                "Map of the titles' embeddings, with new titles marked.",
                {
                    name: pictures.map_of_titles(titles, places, w)
                    for name, w in pictures.WIDTHS.items()
                },
            ),
        ),
        _section(
            "Every event accounted for",
            "What the worker read from Kafka was applied, or set aside as a dead letter with its "
            "reason.",
            _events_table(report),
            _reader_line(report["reader"]),
        ),
        _section(
            "Training cycles",
            "The weights are fine-tuned while events come in. A gate holds new weights against "
            "co-plays that were kept back, and against drift (the mean cosine of new vectors to "
            "those before); those that fail are dropped. Recall@20 is that of the co-plays kept "
            "back, before and after.",
            _cycles_table(result.cycles),
        ),
        _section("This run", "", _facts(result, report)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>Upwell: the demo's figures</title>\n<style>\n{_STYLE.read_text()}</style>\n"
        f"</head>\n<body>\n{''.join(sections)}</body>\n</html>\n"
    )


def _head(result: DemoResult, report: Mapping[str, Any]) -> str:
    quality = report["quality"]
    live, frozen, gain = (quality[arm] for arm in ("live", "frozen", "difference"))
    tiles = [_freshness_tile(report["freshness_s"], kind) for kind in ("catalog", "coplay")]
    tiles.append(
        _tile(
            "Recall@20, live",
            _plain(live["recall20"], 4),
            f"frozen {_plain(frozen['recall20'], 4)}; difference {_signed(gain)}",
            _verdict(gain["low"] is not None and gain["low"] > 0, "interval above 0"),
        )
    )
    tiles.append(
        _tile(
            "Co-plays a second",
            _whole(report["coplays_per_s"]),
            f"{_whole(report['events_in'])} events in {_whole(report['seconds'])} s of demo, "
            f"{_whole(report['titles_new'])} new titles, {_whole(report['cycles'])} cycles",
        )
    )
    return (
        "<header><h1>Upwell</h1><p>Plays and catalog events went in through Kafka; fresh "
        "embeddings came out in Redis, where a process that knows nothing else watched for them."
        f'</p></header>\n<div class="tiles">{"".join(tiles)}</div>\n'
    )


def _freshness_tile(freshness: Mapping[str, Any], kind: str) -> str:
    found = freshness[kind]
    label = {"catalog": "New title visible after", "coplay": "Co-play visible after"}[kind]
    goals = {name: goal for (of, name), goal in GOALS_S.items() if of == kind}
    met = all(found[name] is not None and found[name] < goal for name, goal in goals.items())
    words = ", ".join(f"{name}\u00a0<\u00a0{goal:g}\u00a0s" for name, goal in goals.items())
    return _tile(
        label,
        _seconds(found["p50"]),
        f"in half of {_whole(found['count'])} cases; p99 {_seconds(found['p99'])}",
        _verdict(met, words),
    )


def _tile(label: str, figure: str, more: str, verdict: str = "") -> str:
    return (
        f'<div class="tile"><div class="label">{escape(label)}</div>'
        f'<div class="figure">{escape(figure)}</div><div class="more">{escape(more)}</div>'
        f"{verdict}</div>"
    )


def _verdict(met: bool, goal: str) -> str:
    word = "met" if met else "missed"
    return f'<div class="goal {word}">goal {word}: {escape(goal)}</div>'


def _section(title: str, lead: str, *parts: str) -> str:
    """A section; `title` and `lead` are ours, and may hold markup."""
    said = f'<p class="lead">{lead}</p>' if lead else ""
    return f"<section><h2>{title}</h2>{said}\n{''.join(parts)}</section>\n"


def _picture(words: str, by_width: Mapping[str, str]) -> str:
    drawn = "".join(f'<div class="{name}">{svg}</div>' for name, svg in by_width.items())
    return f'<figure role="img" aria-label="{escape(words)}">{drawn}</figure>\n'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A table whose cells are text; its first `words` columns are words, the others numbers."""
    top = "".join(_cell("th", text, number >= words) for number, text in enumerate(head))
    body = "".join(
        "<tr>" + "".join(_cell("td", text, n >= words) for n, text in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
        "</div>\n"
    )


def _cell(tag: str, text: str, number: bool) -> str:
    kind = ' class="number"' if number else ""
    return f"<{tag}{kind}>{escape(text)}</{tag}>"


def _quality_table(quality: Mapping[str, Any]) -> str:
    groups = {
        "all plays": quality,
        "of titles that frozen embeddings know": quality["old_titles"],
        "of titles that came in mid-stream": quality["new_titles"],
    }
    rows = [
        (
            name,
            _whole(arms["plays"]),
            _plain(arms["frozen"]["recall20"], 4),
            _plain(arms["live"]["recall20"], 4),
            _signed(arms["difference"]),
        )
        for name, arms in groups.items()
    ]
    return _table(["plays predicted", "plays", "frozen", "live", "difference (95 %)"], rows)


def _new_title(title: NewTitle) -> str:
    waited = f"visible after {_seconds(title.visible_s)}" if title.visible_s is not None else ""
    counts = ", ".join(
        f"{len(values)} {_relation(relation, len(values))}"
        for relation, values in title.concepts.items()
        if relation not in _READABLE
    )
    words = [value for name in _READABLE for value in title.concepts.get(name, ())]
    known = "; ".join(part for part in (", ".join(words[:6]), counts) if part)
    facts = "; ".join(part for part in (waited, f"{_whole(title.plays)} plays afterwards") if part)
    rows = [(near.name, f"{near.cosine:.3f}", _shared(near.shared)) for near in title.neighbours]
    table = "".join(
        f'<tr><td>{escape(name)}<div class="shared">{escape(shared)}</div></td>'
        f'<td class="number">{cosine}</td></tr>'
        for name, cosine, shared in rows
    )
    return (
        f'<article><h3>{escape(title.name)}</h3><p class="known">{escape(known)}</p>'
        f"<p>{escape(facts)}</p><table><thead><tr><th>nearest titles; what both have</th>"
        f'<th class="number">cosine</th></tr></thead><tbody>{table}</tbody></table></article>\n'
    )


def _shared(shared: Mapping[str, Sequence[str]]) -> str:
    """Words where the concepts are words; else 'same director', '2 same actors'."""
    words = [value for name in _READABLE for value in shared.get(name, ())]
    parts = words[:_SHOWN] + (["…"] if len(words) > _SHOWN else [])
    for relation, values in shared.items():
        if relation not in _READABLE and values:
            name = _relation(relation, len(values))
            parts.append(f"{len(values)} same {name}" if len(values) > 1 else f"same {name}")
    return ", ".join(parts) or "no concept in common"


def _relation(relation: str, count: int) -> str:
    """The relation's name, for one concept or many."""
    name = {"maturity": "rating"}.get(relation, relation.replace("_", " "))
    if count == 1:
        return name
    return name[:-1] + "ies" if name.endswith("y") else name + "s"


def _events_table(report: Mapping[str, Any]) -> str:
    outcomes = ("in", "applied", "dead")
    rows = [
        (topic, *(_whole(counts.get(outcome, 0)) for outcome in outcomes))
        for topic, counts in sorted(report["events_by_topic"].items())
    ]
    rows.append(("all", *(_whole(report[f"events_{outcome}"]) for outcome in outcomes)))
    return _table(["topic", "read", "applied", "dead letters"], rows)


def _reader_line(reader: Mapping[str, Any]) -> str:
    never = sum(reader["never_visible"].values())
    return (
        f"<p>The outside reader read {_whole(reader['reads'])} vectors back after "
        f"{_whole(reader['updates'])} updates. Torn or not finite: <b>{reader['torn']}</b>. Older "
        f"after newer: <b>{reader['seq_regressions']}</b>. Events that never became visible: "
        f"<b>{_whole(never)}</b>. It took {_plain(reader['cpu_s'], 1)} s of CPU time.</p>\n"
    )


def _cycles_table(cycles: Sequence[Cycle]) -> str:
    if not cycles:
        return "<p>None was run.</p>"
    rows = [
        (
            f"{cycle.at_s:.0f} s",
            f"{cycle.verdict}: {cycle.reason}" if cycle.reason else cycle.verdict,
            _whole(cycle.fresh),
            _whole(cycle.steps),
            _plain(cycle.loss, 3),
            _plain(cycle.drift_cosine, 4),
            _plain(cycle.recall_before, 4),
            _plain(cycle.recall_after, 4),
            _plain(cycle.seconds, 1),
        )
        for cycle in cycles[:_MOST_CYCLES]
    ]
    head = ["began", "gate", "pairs", "steps", "loss", "cosine", "recall@20", "after", "took, s"]
    more = len(cycles) - _MOST_CYCLES
    rest = f"<p>And {more} more.</p>" if more > 0 else ""
    return _table(head, rows, words=2) + rest


def _facts(result: DemoResult, report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    steps = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in result.steps.items())
    facts = {
        **result.facts,
        "Time": f"{_plain(report['seconds'], 0)} s" + (f": {steps}" if steps else ""),
        "Machine": f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {machine['python']}",
        "Seed": str(report["seed"]),
    }
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<dl>{rows}</dl><p>docs/demo.md says how each figure is measured.</p>"


def _seconds(value: float | None) -> str:
    return _NONE if value is None else pictures.in_words(value)


def _whole(value: float | None) -> str:
    """1 234 567, with thin spaces that do not break."""
    return _NONE if value is None else f"{value:,.0f}".replace(",", "\u202f")


def _plain(value: float | None, digits: int) -> str:
    return _NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _signed(found: Mapping[str, float | None]) -> str:
    """+0.0046 (+0.0031 to +0.0061)"""
    mean, low, high = found["recall20"], found["low"], found["high"]
    if mean is None or low is None or high is None:
        return _NONE
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})".replace("-", "\u2212")
