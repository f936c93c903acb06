"""`upwell evaluate` on small folders of data."""

import gzip
import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.cli_common import Failure


def write(folder, name, header, rows):
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(header), *("\t".join(map(str, row)) for row in rows)]
    with gzip.open(folder / name, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def make_data(folder, *, events=400, years=True):
    """Bursts of ratings with tied times; titles 20-23 come out while the stream runs."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(events):
        new = 4 if number > events // 2 else 0
        title = rng.integers(20 + new)
        rows.append((number // 25 % 9, f"t{title}", 4.0, 1_000_000_000 + number // 3 * 60_000))
    write(folder, "events.tsv.gz", ("user_id", "title_id", "rating", "ts"), rows)
    write(
        folder,
        "titles.tsv.gz",
        ("title_id", "title", "year"),
        [
            (f"t{n}", f"Title <{n}>", (2001 if n >= 20 else 1990) if years else "")
            for n in range(24)
        ],
    )
    write(
        folder,
        "triples.tsv.gz",
        ("title_id", "relation", "concept"),
        [(f"t{n}", "genre", n % 4) for n in range(24)],
    )
    return folder


def run(*args):
    return CliRunner().invoke(app, ["evaluate", *map(str, args)], catch_exceptions=False)


CHEAP = ("--arms", "popularity_fresh,cocount_fresh,kg_cosine", "--windows", "3", "--quick")


def test_it_writes_figures_and_a_page_that_asks_nobody(tmp_path):
    data = make_data(tmp_path / "data")
    file, page = tmp_path / "out.json", tmp_path / "out.html"

    done = run("--data", data, "--json", file, "--page", page, *CHEAP)

    assert done.exit_code == 0, done.output
    found = json.loads(file.read_text())
    assert found["arms"].keys() == {"popularity_fresh", "cocount_fresh", "kg_cosine"}
    assert found["protocol"]["windows"] == 3
    html = page.read_text()
    assert html.count("<svg") == 2
    assert "<script" not in html
    assert not re.findall(r'(?:src|href)="(?!#|data:)', html)


def test_two_runs_give_the_same_figures(tmp_path):
    data = make_data(tmp_path / "data")
    found = []
    for name in ("a.json", "b.json"):
        assert run("--data", data, "--json", tmp_path / name, *CHEAP).exit_code == 0
        arms = json.loads((tmp_path / name).read_text())["arms"]
        found.append([(arm["e1"], arm["e2"], arm["cold_pool"]) for arm in arms.values()])

    assert found[0] == found[1]


def test_data_without_arrival_get_titles_held_back(tmp_path):
    data = make_data(tmp_path / "data", years=False)
    file = tmp_path / "out.json"

    done = run("--data", data, "--json", file, "--new-titles", 3, *CHEAP)

    assert done.exit_code == 0
    assert json.loads(file.read_text())["protocol"]["held_back_titles"] == 3


@pytest.mark.parametrize("missing", ["events.tsv.gz", "titles.tsv.gz", "triples.tsv.gz"])
def test_a_missing_file_is_named(tmp_path, missing):
    data = make_data(tmp_path / "data")
    (data / missing).unlink()

    with pytest.raises(RuntimeError, match=missing):
        run("--data", data, *CHEAP)


def test_a_missing_column_is_named(tmp_path):
    data = make_data(tmp_path / "data")
    write(data, "events.tsv.gz", ("user_id", "title_id", "rating"), [("u", "t1", 4.0)])

    with pytest.raises(RuntimeError, match="ts"):
        run("--data", data, *CHEAP)


def test_a_folder_for_the_figures_that_is_not_there_is_named_before_the_work(tmp_path):
    data = make_data(tmp_path / "data")

    with pytest.raises(Failure, match="nowhere"):
        run("--data", data, "--json", tmp_path / "nowhere" / "out.json", *CHEAP)


@pytest.mark.parametrize("seeds", ["", "x", "-1", "0,,1"])
def test_wrong_seeds_are_wrong_use(tmp_path, seeds):
    done = run("--data", make_data(tmp_path / "data"), "--seeds", seeds, *CHEAP)

    assert done.exit_code == 2


def test_models_trained_on_parts_stand_beside_the_whole_graphs(tmp_path):
    data, file = make_data(tmp_path / "data"), tmp_path / "out.json"
    whole = ("--arms", "frozen_fresh_graph", "--windows", "2", "--quick")

    done = run("--data", data, "--json", file, *whole, "--parts", "2")

    assert done.exit_code == 0, done.output
    assert json.loads(file.read_text())["parts"].keys() == {"hasp_2", "random_2"}
    assert "random_2" in done.output


@pytest.mark.parametrize("parts", ["1", "2,x", "4096"])
def test_parts_that_are_no_numbers_of_parts_are_refused(tmp_path, parts):
    done = run("--data", tmp_path, *CHEAP, "--parts", parts)

    assert done.exit_code == 2
