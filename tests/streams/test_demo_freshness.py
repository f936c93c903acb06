"""Events matched with updates, against the plain definition."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.demo.freshness import (
    KINDS,
    RECORD,
    Freshness,
    by_kind,
    percentiles,
    read_samples,
)

CATALOG, COPLAY = KINDS.index("catalog"), KINDS.index("coplay")

titles = st.sampled_from("abc")
times = st.integers(0, 5)
events = st.tuples(st.just("event"), st.lists(titles, min_size=1, max_size=2), times, times)
updates = st.tuples(st.just("update"), titles, times)


def plain(happened: list[tuple]) -> tuple[list[tuple[float, float]], int]:
    """(append, seconds) of each visible event, and how many are not, by the definition."""
    seen = [(wall, *rest) for wall, (what, *rest) in enumerate(happened) if what == "update"]
    done, waiting = [], 0
    for what, *rest in happened:
        if what != "event":
            continue
        names, time_ms, append_ms = rest
        firsts = [
            min(
                (w for w, title, t in seen if title == name and w >= append_ms and t >= time_ms),
                default=None,
            )
            for name in set(names)
        ]
        if None in firsts:
            waiting += 1
        else:
            done.append((append_ms, (max(firsts) - append_ms) / 1000))
    return sorted(done), waiting


@given(st.lists(events | updates, max_size=25))
def test_an_event_is_visible_once_all_its_titles_have_seen_its_time(happened):
    freshness = Freshness()

    for wall, (what, *rest) in enumerate(happened):
        if what == "update":
            freshness.update(rest[0], rest[1], wall)
        else:
            names, time_ms, append_ms = rest
            freshness.event(COPLAY, names, time_ms, append_ms)

    samples = freshness.take()
    got = sorted(zip(samples["append_ms"], samples["seconds"], strict=True))
    want, waiting = plain(happened)
    np.testing.assert_allclose(np.array(got).reshape(-1, 2), np.array(want).reshape(-1, 2))
    assert freshness.waiting() == [0, waiting]
    assert freshness.events[COPLAY] == len(want) + waiting


def test_an_update_may_come_to_the_reader_before_its_event():
    freshness = Freshness()

    freshness.update("a", seen_ms=70, wall_ms=1_250)
    freshness.event(CATALOG, ["a"], time_ms=70, append_ms=1_000)

    assert freshness.take()["seconds"].tolist() == [0.25]
    assert freshness.overtaken == 0


def test_what_a_title_had_seen_before_the_append_does_not_count():
    freshness = Freshness()

    freshness.update("a", seen_ms=90, wall_ms=500)
    freshness.event(CATALOG, ["a"], time_ms=70, append_ms=1_000)
    assert len(freshness.take()) == 0
    freshness.update("a", seen_ms=90, wall_ms=2_000)

    assert freshness.take()["seconds"].tolist() == [1.0]
    assert freshness.overtaken == 1


def test_samples_are_taken_once():
    freshness = Freshness()
    freshness.event(CATALOG, ["a"], 1, 1)
    freshness.update("a", 1, 2)

    assert [len(freshness.take()), len(freshness.take())] == [1, 0]


def test_a_seq_that_goes_back_is_seen():
    freshness = Freshness()

    told = [freshness.update("a", 0, wall, seq) for wall, seq in enumerate([5, 6, 6, 4, 6])]

    assert told == [True, True, True, False, True]


def test_half_a_record_at_the_end_of_a_file_is_left_out(tmp_path: Path):
    samples = np.array([(1.0, 0.5, CATALOG), (2.0, 0.25, COPLAY)], RECORD)
    (tmp_path / "samples").write_bytes(samples.tobytes()[:-3])

    assert read_samples(tmp_path / "samples").tolist() == [(1.0, 0.5, CATALOG)]
    assert len(read_samples(tmp_path / "none")) == 0


def test_a_kind_without_samples_is_left_out_of_the_summary():
    samples = np.array([(0.0, n / 100, COPLAY) for n in range(101)], RECORD)

    assert by_kind(samples) == {
        "coplay": {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0, "count": 101}
    }
    assert percentiles(np.empty(0)) == {}


@given(st.lists(events | updates, max_size=25), st.booleans())
def test_by_title_an_update_counts_for_the_oldest_event_that_it_shows(happened, late):
    freshness = Freshness()
    steps = list(enumerate(happened))
    if late:  # all messages of Kafka come to the reader after the updates
        steps.sort(key=lambda step: step[1][0] == "event")

    for wall, (what, *rest) in steps:
        if what == "update":
            freshness.update(rest[0], rest[1], wall)
        else:
            freshness.event(COPLAY, *rest)

    oldest: dict[tuple[str, int], int] = {}
    for names, time_ms, append_ms in [rest for what, *rest in happened if what == "event"]:
        for name in set(names):
            walls = [
                wall
                for wall, (what, *rest) in enumerate(happened)
                if what == "update" and rest[0] == name
                if wall >= append_ms and rest[1] >= time_ms
            ]
            if walls:
                key = name, min(walls)
                oldest[key] = min(append_ms, oldest.get(key, append_ms))
    found = freshness.by_title().get("coplay", {"mean": 0.0, "count": 0})
    waits = [(wall - append_ms) / 1000 for (_, wall), append_ms in oldest.items()]
    assert found["count"] == len(waits)
    assert np.isclose(found["mean"] * max(len(waits), 1), sum(waits))
