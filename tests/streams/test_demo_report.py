"""The demo's report: its keys, its counts and its intervals."""

import json

import numpy as np
import pytest

from streams.demo.freshness import KINDS, RECORD
from streams.demo.reader import Progress
from streams.demo.report import (
    Cycle,
    DemoResult,
    Predictions,
    Titles,
    build_report,
    nearest,
    quality,
    windows,
    write_report,
)


def predictions(users, titles, frozen, live):
    ids = np.array(users, np.int64), np.array(titles, np.int64)
    return Predictions(*ids, np.array(frozen, float), np.array(live, float))


NONE = predictions([], [], [], [])


def result(**changes):
    samples = [(0.0, 0.1, KINDS.index("catalog")), (0.0, 0.3, KINDS.index("catalog"))]
    given = {
        "seconds": 100.26,
        "events": {
            "coplays": {"in": 10, "applied": 9, "dead": 1},
            "catalog": {"in": 2, "applied": 2, "dead": 0},
        },
        "coplays_per_s": 123.456,
        "samples": np.array(samples, RECORD),
        "stream_start_ms": 0.0,
        "reader": Progress(waiting={"catalog": 0, "coplay": 3}),
        "predictions": predictions([0, 0, 1], [0, 1, 1], [np.inf, 1, 21], [20, 1, 20.5]),
        "titles": Titles(["a", "b"], np.eye(2, dtype="f4"), *np.array([[1, 1], [0, 1]], bool), [1]),
        "titles_new": 1,
        "new_titles": [],
        "cycles": [Cycle(1.0, "passed"), Cycle(2.0, "refused", "worse"), Cycle(3.0, "passed")],
    }
    return DemoResult(**(given | changes))


def test_the_report_has_the_keys_that_later_checks_read():
    report = build_report(result())

    assert (report["events_in"], report["events_applied"], report["events_dead"]) == (12, 11, 1)
    assert report["events_by_topic"]["coplays"] == {"in": 10, "applied": 9, "dead": 1}
    assert report["coplays_per_s"] == 123.5
    assert report["freshness_s"]["catalog"]["p50"] == pytest.approx(0.2)
    assert report["freshness_s"]["catalog"]["p99"] == pytest.approx(0.298)
    assert report["quality"]["frozen"]["recall20"] == pytest.approx(1 / 3, abs=1e-5)
    assert report["quality"]["live"]["recall20"] == pytest.approx(2 / 3, abs=1e-5)
    assert (report["titles_new"], report["cycles"], report["seconds"]) == (1, 3, 100.3)
    assert report["cycles_by_verdict"] == {"passed": 2, "refused": 1}
    assert report["reader"]["never_visible"] == {"catalog": 0, "coplay": 3}


def test_a_figure_without_samples_is_null_and_not_a_number_that_JSON_lacks(tmp_path):
    report = build_report(result(predictions=NONE, coplays_per_s=float("nan")))
    write_report(report, tmp_path / "report.json")

    read = json.loads((tmp_path / "report.json").read_text())
    nothing = {"p50": None, "p90": None, "p99": None, "max": None, "count": 0}
    assert read["freshness_s"]["coplay"] == nothing
    assert read["quality"]["live"] == {"recall20": None, "low": None, "high": None}
    assert read["coplays_per_s"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_titles_that_frozen_embeddings_lack_are_told_apart():
    found = quality(
        predictions([0, 1, 2, 3], [0, 0, 1, 1], [1, 50, np.inf, np.inf], [1, 50, 1, 50]),
        new=np.array([False, True]),
        seed=0,
    )

    assert found["difference"]["recall20"] == 0.25
    assert found["old_titles"]["difference"] == {"recall20": 0.0, "low": 0.0, "high": 0.0}
    assert found["new_titles"]["difference"]["recall20"] == 0.5
    assert (found["plays"], found["old_titles"]["plays"], found["users"]) == (4, 2, 4)


def test_the_difference_is_paired_so_that_what_both_find_makes_it_no_wider():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(200), 10)
    frozen = np.where(rng.random(2000) < 0.5, 1.0, 99.0)
    live = np.where(rng.random(2000) < 0.05, 1.0, frozen)

    found = quality(Predictions(users, users * 0, frozen, live), np.array([False]), seed=0)

    gain, live_arm = found["difference"], found["live"]
    assert 0 < gain["low"] < gain["recall20"] < gain["high"]
    assert gain["high"] - gain["low"] < 0.5 * (live_arm["high"] - live_arm["low"])


def test_windows_share_the_stream_out_in_its_order():
    ranks = [1.0] * 5 + [99.0] * 5

    first, second = windows(predictions(range(10), [0] * 10, ranks, [99.0] * 10), 2, seed=0)

    assert (first["start"], first["end"], second["start"], second["end"]) == (0, 5, 5, 10)
    assert (first["frozen"]["recall20"], second["frozen"]["recall20"]) == (1.0, 0.0)
    assert sum(window["plays"] for window in windows(NONE, 3, seed=0)) == 0


def test_the_nearest_titles_come_with_what_they_share():
    rows = np.array([[1, 0], [2, 0.1], [0, 1], [9, 9], [1, 0.01]], np.float32)
    known = np.array([True, True, True, True, False])
    concepts = [{"genre": ["Comedy", "War"], "actor": ["x"]}, {"genre": ["War"]}, {}, {}, {}]

    first, second = nearest(0, rows, known, list("abcde"), concepts, k=2)

    assert (first.name, first.shared) == ("b", {"genre": ["War"]})
    assert first.cosine == pytest.approx(2 / np.hypot(2, 0.1), abs=1e-4)
    assert (second.name, second.shared) == ("d", {})
    assert [near.name for near in nearest(0, rows, known, list("abcde"), concepts)] == list("bdc")
    assert nearest(4, rows, known, list("abcde"), concepts) == []


def test_the_workers_histogram_stands_beside_what_the_reader_saw():
    reader = Progress(by_title_s={"catalog": {"mean": 0.2, "count": 4}})
    told = build_report(result(reader=reader, histogram={"catalog": {"mean": 0.21, "count": 4}}))[
        "histogram_s"
    ]

    assert told["catalog"] == {"worker": 0.21, "reader": 0.2, "ratio": 1.05}
    assert told["coplay"] == {"worker": None, "reader": None, "ratio": None}
