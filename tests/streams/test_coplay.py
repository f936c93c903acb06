"""The pairing rule: by hand, and the fast form over a history against the one play at a time."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.coplay import Pairing, Recent, add_play, load_recent, pair_history
from streams.events import CoPlay, Play

MINUTE = 60_000
HOUR = 60 * MINUTE


def feed(plays: list[Play], rule: Pairing | None = None) -> list[CoPlay]:
    """Pairs of plays, through the stored form of each user's memory."""
    memory: dict[str, bytes] = {}
    pairs = []
    for play in plays:
        recent = load_recent(memory.get(play.user))
        pairs += add_play(recent, play, rule or Pairing())
        memory[play.user] = msgspec.json.encode(recent)
    return pairs


def names(pairs: list[CoPlay]) -> list[str]:
    return [pair.a + pair.b for pair in pairs]


def plays_of(titles: str, step_ms: int = MINUTE, user: str = "u") -> list[Play]:
    return [Play(user, title, HOUR + i * step_ms) for i, title in enumerate(titles)]


def test_a_play_is_paired_with_the_ones_before_it():
    assert names(feed(plays_of("abcd"), Pairing(previous=2))) == ["ab", "ac", "bc", "bd", "cd"]


def test_a_pair_weighs_less_by_gap_and_by_what_was_watched_least():
    plays = [
        Play("u", "a", HOUR, 600.0),
        Play("u", "b", HOUR, 150.0),
        Play("u", "c", HOUR + 15 * MINUTE),
        Play("u", "d", HOUR + 30 * MINUTE, 1.0),
    ]

    weights = {pair.a + pair.b: pair.weight for pair in feed(plays)}

    assert weights == pytest.approx(
        {"ab": 0.5, "ac": 0.75, "bc": 0.375, "ad": 0.05, "bd": 0.05, "cd": 0.075}
    )


def test_plays_too_far_apart_or_of_another_user_make_no_pair():
    apart = [Play("u", "a", HOUR), Play("u", "b", HOUR + 30 * MINUTE + 1)]
    others = [Play("u", "a", HOUR), Play("v", "b", HOUR)]

    assert feed(apart) == feed(others) == []


def test_a_title_makes_no_pair_with_itself_and_takes_a_place_all_the_same():
    assert names(feed(plays_of("abb"), Pairing(previous=1))) == ["ab"]


def test_a_duplicate_makes_nothing():
    plays = plays_of("abc")

    assert feed([plays[0], plays[0], plays[1], plays[0], plays[1], plays[2]]) == feed(plays)


def test_a_robot_does_not_flood_the_graph():
    plays = [Play("u", f"t{i:05}", HOUR + i * 360) for i in range(10_000)]

    pairs = feed(plays, Pairing(max_per_hour=20))

    assert len(pairs) == sum(min(i, 5) for i in range(20))
    assert feed([*plays, *plays_of("ab", user="v")])[-1].a == "a"


def test_a_robot_counts_again_in_the_next_hour():
    hours = [Play("u", title, hour * HOUR) for hour in (1, 2) for title in "abc"]

    assert names(feed(hours, Pairing(max_per_hour=2))) == ["ab", "ab"]


def test_a_late_play_takes_its_place_among_the_others():
    a, b, c, d = plays_of("abcd")

    pairs = feed([a, c, d, b], Pairing(previous=1))

    assert names(pairs) == ["ac", "cd", "ab", "bc"]
    assert [pair.time_ms for pair in pairs] == [c.time_ms, d.time_ms, b.time_ms, c.time_ms]


def test_a_play_whose_session_is_over_makes_nothing():
    late = [Play("u", "a", 2 * HOUR), Play("u", "b", HOUR)]

    assert feed(late) == []


def test_memory_stays_small():
    recent = Recent()
    for i in range(5000):
        add_play(recent, Play("u", str(i), i), Pairing(max_per_hour=10_000))
    assert len(recent.plays) == 1024

    add_play(recent, Play("u", "x", 5 * HOUR), Pairing())
    assert len(recent.plays) == 1


@pytest.mark.parametrize("raw", [None, b"", b"[1]", b"{}", b'[1,2,[["x"]]]'])
def test_a_memory_that_cannot_be_read_is_none(raw):
    assert load_recent(raw).plays == []


@pytest.mark.parametrize("wrong", [{"previous": 0}, {"gap_s": 0.0}, {"max_per_hour": -1}])
def test_a_rule_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*: want more than 0"):
        Pairing(**wrong)


PLAYS = st.lists(
    st.tuples(
        st.integers(0, 2),  # user
        st.integers(0, 4),  # title
        st.integers(0, 90),  # minute: ties are common, hours and gaps are crossed
        st.one_of(st.none(), st.sampled_from([0.0, 30.0, 100.0, 300.0, 9000.0])),
    ),
    max_size=60,
)


@given(
    PLAYS, st.integers(1, 6), st.sampled_from([60.0, 600.0, 1800.0]), st.sampled_from([1, 3, 200])
)
def test_the_pairs_of_a_history_are_those_of_its_plays_one_by_one(drawn, previous, gap_s, robot):
    rule = Pairing(previous, gap_s, robot)
    in_order = sorted(range(len(drawn)), key=lambda row: drawn[row][2])
    plays = [Play(str(u), str(t), m * MINUTE, s) for u, t, m, s in (drawn[i] for i in in_order)]

    history = pair_history(
        np.array([one[0] for one in drawn], np.int64),
        np.array([str(one[1]) for one in drawn], "U8"),
        np.array([one[2] * MINUTE for one in drawn], np.int64),
        np.array([np.nan if one[3] is None else one[3] for one in drawn], np.float64),
        rule,
    )

    def row(a: str, b: str, weight: float, time_ms: int) -> tuple:
        return (time_ms, min(a, b), max(a, b), round(float(weight), 5))

    rows = [
        row(*one) for one in zip(history.a, history.b, history.weight, history.time_ms, strict=True)
    ]
    want = [row(pair.a, pair.b, pair.weight, pair.time_ms) for pair in feed(plays, rule)]
    assert sorted(rows) == sorted(want)
    assert history.time_ms.tolist() == sorted(history.time_ms.tolist())


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="2 users, 1 titles"):
        pair_history(np.zeros(2), np.zeros(1), np.zeros(2, np.int64))
