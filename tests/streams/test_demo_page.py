"""The demo's page: one file, safe, and whole even where little was measured."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from streams.demo import pictures
from streams.demo.freshness import KINDS, RECORD
from streams.demo.page import build_page, write_page
from streams.demo.reader import Progress
from streams.demo.report import (
    Cycle,
    DemoResult,
    Neighbour,
    NewTitle,
    Predictions,
    Titles,
    build_report,
)

EVIL = '</text></svg><script>alert("$x_1$")</script> & "Amélie" 千と千尋'


@pytest.fixture(scope="module")
def full() -> DemoResult:
    rng = np.random.default_rng(0)
    samples = np.zeros(3000, RECORD)
    samples["append_ms"] = 5e12 + np.sort(rng.random(3000)) * 60_000
    samples["seconds"] = rng.lognormal(-1, 0.5, 3000)
    samples["kind"] = rng.random(3000) < 0.95
    users, titles = rng.integers(50, size=500), rng.integers(80, size=500)
    ranks = rng.integers(1, 80, size=(2, 500)).astype(float)
    near = [Neighbour(EVIL, 0.91, {"genre": ["War"], "actor": ["m.1", "m.2"], "writer": ["m.3"]})]
    return DemoResult(
        seconds=160.0,
        events={"coplays": {"in": 2851, "applied": 2850, "dead": 1}, EVIL: {"in": 1, "dead": 1}},
        coplays_per_s=1834.0,
        samples=samples,
        stream_start_ms=5e12,
        reader=Progress(updates=12, reads=12, waiting={"catalog": 0, "coplay": 7}),
        predictions=Predictions(users, titles, *ranks),
        titles=Titles(
            [EVIL] + [f"Title {n}" for n in range(79)],
            rng.normal(size=(80, 8)).astype(np.float32),
            np.arange(80) < 70,
            np.arange(80) % 9 == 0,
            rng.integers(100, size=80),
        ),
        titles_new=9,
        new_titles=[NewTitle(EVIL, 0.08, 1234, {"genre": ["War", EVIL], "actor": ["m.1"]}, near)],
        cycles=[Cycle(2.0, "passed", seconds=6.0, loss=2.5), Cycle(9.0, "refused", EVIL)],
        steps={"stream": 60.0},
        facts={"Data": EVIL},
    )


@pytest.fixture(scope="module")
def empty(full: DemoResult) -> DemoResult:
    none = np.empty(0, np.int64)
    return replace(
        full,
        events={},
        coplays_per_s=0.0,
        samples=np.empty(0, RECORD),
        reader=Progress(),
        predictions=Predictions(none, none, none.astype(float), none.astype(float)),
        titles=Titles([], np.empty((0, 8), np.float32), none.astype(bool), none.astype(bool), none),
        new_titles=[],
        cycles=[],
    )


class Reader(HTMLParser):
    """Notes what a browser would: each element with its attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def page_of(result: DemoResult) -> Reader:
    return Reader(build_page(result, build_report(result)))


def test_titles_are_text_and_never_markup(full):
    seen = page_of(full)

    assert "script" not in {tag for tag, _ in seen.tags}
    assert seen.text.count(EVIL) >= 5
    assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on")]


def test_the_page_asks_nobody_for_anything(full):
    seen = page_of(full)

    for tag, attributes in seen.tags:
        assert tag not in {"link", "iframe", "object", "embed"}
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    policies = [a["content"] for t, a in seen.tags if t == "meta" and "http-equiv" in a]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert not re.search(r"url\((?!#)", build_page(full, build_report(full)))


def test_every_id_stands_once_and_every_reference_has_its_goal(full):
    seen = page_of(full)

    ids = [attributes["id"] for _, attributes in seen.tags if "id" in attributes]
    wanted = {a["xlink:href"][1:] for _, a in seen.tags if a.get("xlink:href", "").startswith("#")}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", str(seen.tags)))
    assert wanted <= set(ids)
    assert len(ids) == len(set(ids))


def test_pictures_have_the_pages_colours_and_no_size_of_their_own(full):
    drawn = pictures.freshness(full, 350)

    assert drawn.startswith("<svg ")
    assert "width=" not in drawn.partition(">")[0]
    assert "var(--catalog)" in drawn
    assert not any(ink in drawn for ink in pictures.INKS.values())
    assert drawn == pictures.freshness(full, 350)


def test_the_page_says_what_was_measured(full):
    text = page_of(full).text

    assert "1\u202f834" in text
    assert "War, 2 same actors, same writer" in text
    assert "Events that never became visible: 7" in text
    assert "goal met: p50\xa0<\xa00.5\xa0s" in text


def test_a_goal_that_is_missed_is_said_to_be(full):
    samples = full.samples.copy()
    samples["seconds"] += 9

    text = page_of(replace(full, samples=samples)).text

    assert "goal missed: p50" in text
    assert "goal missed: p99\xa0<\xa05\xa0s" in text


def test_a_demo_that_measured_nothing_has_a_page_all_the_same(empty, tmp_path):
    write_page(empty, build_report(empty), tmp_path / "page.html")

    text = Reader((tmp_path / "page.html").read_text()).text
    assert "no samples" in text
    assert "no predictions" in text
    assert "None was run." in text
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_samples_make_a_picture(full, kind):
    few = full.samples[full.samples["kind"] == KINDS.index(kind)][:3]

    assert "var(--" in pictures.freshness(replace(full, samples=few), 720)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0123, "12 ms"), (0.3456, "350 ms"), (0.9999, "1.0 s"), (1.26, "1.3 s"), (61.0, "61 s")],
)
def test_seconds_in_words(seconds, words):
    assert pictures.in_words(seconds) == words
