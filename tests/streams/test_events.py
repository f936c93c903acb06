"""Wire formats: what is good comes through as it was, what is bad is set aside with its reason."""

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.ids import IdTable
from streams.arrow import encode_columns
from streams.columns import Names, find, intern
from streams.events import (
    CatalogEntry,
    CoPlay,
    Play,
    Retirement,
    check_entry,
    decode_catalog,
    decode_coplays,
    decode_plays,
    encode,
)
from streams.settings import GraphSettings
from streams.state import State
from tests.streams.sent import ARROW, GOOD, NOW, message


def entry(**changes) -> dict:
    return {"title": "k", "time_ms": NOW, "concepts": {"genre": ["Comedy"]}, **changes}


BAD_COPLAYS = {
    "not JSON": (b"{", "truncated"),
    "nothing": (None, "no value"),
    "empty": (b"", "empty value"),
    "a number": (b"17", "Expected `object`"),
    "valid only when joined": (b'{"a":"1","b":"2","time_ms":1},{', "malformed"),
    "two in one": (b'{"a":"1","b":"2","time_ms":1}{"a":"1","b":"2","time_ms":1}', "malformed"),
    "deep": (b'{"x":' * 100_000, "recursion"),
    "UTF-16": (json.dumps(GOOD).encode("utf-16"), "malformed"),
    "Latin-1": (b'{"a":"\xe9","b":"2","time_ms":1}', "not UTF-8"),
    "wrong type": ({**GOOD, "a": 1}, "Expected `str`, got `int` - at `$.a`"),
    "missing field": ({"a": "1", "b": "2"}, "missing required field `time_ms`"),
    "NaN": (b'{"a":"1","b":"2","time_ms":1,"weight":NaN}', "malformed"),
    "Infinity": (b'{"a":"1","b":"2","time_ms":1,"weight":1e999}', "out of range"),
    "negative weight": ({**GOOD, "weight": -1}, ">= "),
    "no weight": ({**GOOD, "weight": 0}, ">= "),
    "huge weight": ({**GOOD, "weight": 1e9}, "<= "),
    "huge number": (b'{"a":"1","b":"2","time_ms":' + b"9" * 400 + b"}", "Expected `int`"),
    "before 1970": ({**GOOD, "time_ms": -1}, ">= 0"),
    "far future": ({**GOOD, "time_ms": NOW + 3_601_000}, "3601 s after the append"),
    "huge id": ({**GOOD, "b": "x" * 10_000_000}, "length <= 256"),
    "empty id": ({**GOOD, "a": ""}, "length >= 1"),
    "control character": ({**GOOD, "b": "2\n"}, r"control character '\n'"),
    "a pair of one": ({**GOOD, "b": "1"}, "both '1'"),
}


@pytest.mark.parametrize("kind", BAD_COPLAYS)
def test_a_bad_coplay_is_set_aside_with_its_reason_and_its_neighbours_are_not(kind):
    value, reason = BAD_COPLAYS[kind]
    good = message(GOOD)

    got = decode_coplays([good, message(value, offset=1), good])

    assert got.pairs.row.tolist() == [0, 2]
    (letter,) = got.dead
    assert letter.message.offset == 1
    assert reason in letter.reason


def test_coplays_come_through_as_columns():
    messages = [message(GOOD, at=NOW + 5), message({"a": "x", "b": "y", "time_ms": 3, "new": [1]})]

    got = decode_coplays(messages)

    assert (got.pairs.a, got.pairs.b) == (["1", "x"], ["2", "y"])
    assert got.pairs.weight.dtype == np.float32
    assert got.pairs.weight.tolist() == [0.5, 1.0]
    assert got.pairs.time_ms.tolist() == [NOW, 3]
    assert got.append_ms.tolist() == [NOW + 5, NOW]
    assert got.dead == []


def test_no_messages_are_no_events():
    assert len(decode_coplays([]).pairs) == 0
    assert decode_catalog([]).entries == []
    assert decode_plays([]).plays == []


@given(st.binary(max_size=200), st.integers(0, 400), st.booleans())
def test_no_bytes_make_decoding_raise(noise, at, arrow):
    whole = encode_columns({"a": ["1"], "b": ["2"], "time_ms": [1]})
    value = whole[:at] + noise + whole[at + len(noise) :] if arrow else noise
    batch = [message(value, headers=ARROW if arrow else None)]

    for decode in (decode_coplays, decode_plays, decode_catalog):
        decode(batch)


FIELDS = st.sampled_from(
    [
        b'{"a":"1","b":"2","time_ms":1}',
        b"{",
        b"}",
        b",",
        b'"a":"1"',
        b'"b":"2","time_ms":1}',
        b"[",
        b"]",
    ]
)


@given(st.lists(st.lists(FIELDS, max_size=4).map(b"".join), max_size=8))
def test_a_batch_decodes_as_its_messages_one_by_one(values):
    messages = [message(value, offset=i) for i, value in enumerate(values)]

    got = decode_coplays(messages)

    alone = [len(decode_coplays([one]).pairs) for one in messages]
    assert got.pairs.row.tolist() == [i for i, good in enumerate(alone) if good]
    assert [letter.message.offset for letter in got.dead] == [
        i for i, good in enumerate(alone) if not good
    ]


def test_what_we_encode_we_decode():
    pair, play = CoPlay("a", "b", 5, 0.25), Play("u", "t", 7)
    title = CatalogEntry("k", 9, {"genre": ["Comedy"]}, name="Heat")

    assert decode_plays([message(encode(play))]).plays == [play]
    assert decode_catalog([message(encode(title))]).entries == [title]
    assert decode_coplays([message(encode(pair))]).pairs.weight.tolist() == [0.25]


def test_a_play_may_come_by_arrow_or_be_dead():
    arrow = encode_columns({"user": ["u", "v"], "title": ["1", "2"], "time_ms": [1, 2]})
    bad = {"user": "u", "title": "\x00", "time_ms": 1}

    got = decode_plays(
        [message(arrow, headers=ARROW), message(bad), message({**bad, "title": "3"})]
    )

    assert [play.title for play in got.plays] == ["1", "2", "3"]
    assert got.row == [0, 0, 2]
    assert "control character" in got.dead[0].reason


BAD_ENTRIES = {
    "another key": (entry(title="other"), "key 'k' is not the title"),
    "relation of ours": (entry(concepts={"coplay": ["x"]}), "reserved"),
    "relation with a colon": (entry(concepts={"a:b": ["x"]}), "regex"),
    "relation with an end of line": (entry(concepts={"genre\n": ["x"]}), "regex"),
    "empty concept": (entry(concepts={"genre": [""]}), "length >= 1"),
    "control character": (entry(concepts={"genre": ["\t"]}), "control character"),
    "control character in its name": (entry(name="\x1b[2J"), "control character"),
    "no concepts": ({"title": "k", "time_ms": 1}, "missing required field `concepts`"),
    "too many relations": (entry(concepts={f"r{i}": [] for i in range(65)}), "length <= 64"),
    "too many values": (entry(concepts={"r": ["x"] * 1025}), "length <= 1024"),
    "features as text": (entry(features=["1"]), "Expected `float`"),
    "future": (entry(time_ms=NOW * 2), "after the append"),
}


@pytest.mark.parametrize("kind", BAD_ENTRIES)
def test_a_bad_catalog_event_is_set_aside_with_its_reason(kind):
    value, reason = BAD_ENTRIES[kind]

    got = decode_catalog([message(value), message(entry())])

    assert [one.title for one in got.entries] == ["k"]
    assert reason in got.dead[0].reason


@pytest.mark.parametrize("key", [None, b"", b"\xff", b"a\n", b"x" * 257])
def test_a_catalog_event_needs_a_readable_key(key):
    got = decode_catalog([message(None, key=key)])

    assert got.entries == []
    assert len(got.dead) == 1


def test_a_null_value_retires_the_title_at_its_append_time():
    got = decode_catalog([message(None, key=b"m1", at=NOW + 3)])

    assert got.entries == [Retirement("m1", NOW + 3)]
    assert isinstance(got.entries[0], Retirement)
    assert got.append_ms.tolist() == [NOW + 3]


def test_a_clock_that_runs_ahead_does_not_freeze_a_title():
    state = State.empty(GraphSettings())
    skewed = message(entry(time_ms=NOW + 3_600_000, concepts={"genre": ["Crime"]}))
    right = message(entry(time_ms=NOW + 1, concepts={"genre": ["Drama"]}), at=NOW + 1)

    got = decode_catalog([skewed, right])
    state.apply_catalog(got.entries, got.append_ms)

    assert [one.time_ms for one in got.entries] == [NOW, NOW + 1]
    assert got.ahead == 1
    assert state.graph.num_edges(1) == 1
    assert state.graph.ids["concept"].names(state.graph.neighbors(1, [0])[1]) == ["genre:Drama"]


@pytest.mark.parametrize("arrow", [False, True])
def test_a_coplay_of_a_clock_that_runs_ahead_counts_as_of_its_append(arrow):
    times = [NOW - 5, NOW + 3_600_000, NOW]
    columns = {"a": ["1"] * 3, "b": ["2", "3", "4"], "time_ms": times}
    batch = [message(encode_columns(columns), headers=ARROW)]
    if not arrow:
        batch = [message({"a": "1", "b": "2", "time_ms": time_ms}) for time_ms in times]

    got = decode_coplays(batch)

    assert got.pairs.time_ms.tolist() == [NOW - 5, NOW, NOW]
    assert (got.ahead, got.dead) == (1, [])


def test_a_play_of_a_clock_that_runs_ahead_does_not_end_its_users_session():
    ahead = {"user": "u", "title": "1", "time_ms": NOW + 3_599_000}

    got = decode_plays([message(ahead), message({**ahead, "time_ms": NOW})])

    assert [play.time_ms for play in got.plays] == [NOW, NOW]
    assert got.ahead == 1


@pytest.mark.parametrize("decode", [decode_coplays, decode_plays, decode_catalog])
def test_a_message_that_its_writer_stamped_years_ahead_is_dead_and_its_neighbours_are_not(decode):
    good = {**GOOD, **entry(), "user": "u"}
    later = NOW + 3_601_000
    batch = [message(good), message({**good, "time_ms": later}, at=later, offset=1), message(good)]

    got = decode(batch, now_ms=NOW)

    assert [letter.message.offset for letter in got.dead] == [1]
    assert "3601 s after the reader's clock" in got.dead[0].reason
    rows = got.pairs.row if decode is decode_coplays else np.array(got.row)
    assert rows.tolist() == [0, 2]
    assert decode(batch, now_ms=later).dead == []


def test_what_would_be_dead_can_be_refused_before_it_is_sent():
    with pytest.raises(ValueError, match="reserved"):
        check_entry(CatalogEntry("k", 1, {"coplay": ["x"]}))
    with pytest.raises(msgspec.ValidationError, match="length"):
        check_entry(CatalogEntry("", 1, {}))


COLUMNS = st.lists(st.sampled_from(["", "a", "b", "\u00e9\u00e9", "abc"]), max_size=6)


@given(st.lists(st.tuples(COLUMNS, st.booleans()), min_size=1, max_size=4), st.data())
def test_a_column_of_bytes_is_the_list_of_its_strings(parts, data):
    columns, want = [], []
    for values, coded in parts:
        column = Names.of(values)
        if coded and values:
            code = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=6))
            column = column.keep(np.array(code, np.int64))
            values = [values[at] for at in code]
        columns.append(column)
        want += values

    joined = Names.join(columns)

    assert list(joined) == want
    assert list(joined.compact()) == want
    assert [joined[at] for at in range(len(joined))] == want
    assert list(joined[1:3]) == want[1:3]
    table = IdTable()
    ids = intern(table, joined)
    assert table.names(ids) == want
    assert len(table) == len(set(want))
    assert find(table, joined).tolist() == ids.tolist()
