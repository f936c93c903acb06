"""Wire formats: what is good comes through as it was, what is bad is set aside with its reason."""

import json

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.ids import IdTable
from streams.arrow import CONTENT_TYPE, encode_columns
from streams.columns import Names, find, intern
from streams.events import (
    CatalogEntry,
    CoPlay,
    Message,
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

NOW = 1_700_000_000_000
ARROW = [("content-type", CONTENT_TYPE.encode())]

GOOD = {"a": "1", "b": "2", "weight": 0.5, "time_ms": NOW}


def message(value, *, key=b"k", offset=0, headers=None, at=NOW) -> Message:
    if isinstance(value, dict):
        value = json.dumps(value).encode()
    return Message("t", 0, offset, key, value, at, headers)


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


def test_an_arrow_message_carries_many_coplays():
    value = encode_columns({"a": ["1", "3"], "b": ["2", "4"], "time_ms": [NOW, 7]})

    got = decode_coplays([message(GOOD), message(value, headers=ARROW, at=NOW + 1), message(GOOD)])

    assert list(got.pairs.a) == ["1", "1", "3", "1"]
    assert list(got.pairs.b) == ["2", "2", "4", "2"]
    assert got.pairs.row.tolist() == [0, 1, 1, 2]
    assert got.append_ms.tolist() == [NOW, NOW + 1, NOW + 1, NOW]
    assert got.pairs.weight.tolist() == [0.5, 1.0, 1.0, 0.5]


def test_an_arrow_column_may_be_a_dictionary_and_its_time_a_timestamp():
    value = encode_columns(
        {
            "a": pa.array(["1", "1"]).dictionary_encode(),
            "b": pa.array(["2", "3"], pa.large_string()),
            "time_ms": pa.array([NOW * 1000, 7_000], pa.timestamp("us", tz="UTC")),
            "weight": pa.array([2, 1], pa.int8()),
        }
    )

    got = decode_coplays([message(value, headers=ARROW)])

    assert got.dead == []
    assert list(got.pairs.a) == ["1", "1"]
    assert got.pairs.time_ms.tolist() == [NOW, 7]
    assert got.pairs.weight.tolist() == [2.0, 1.0]


NAMES = st.sampled_from(
    ["1", "2", "\u00e9", "x" * 256, "x" * 257, "\u00e9" * 256, "", "\n", "\u2028"]
)
WEIGHTS = st.sampled_from([1.0, 0.25, 1e-6, 1e6, 1e-7, 2e6, -1.0, 0.0])
TIMES = st.sampled_from([0, NOW, NOW + 3_600_000, NOW + 3_600_001, -1, 2**60])
STRINGS = st.sampled_from(
    [
        lambda names: pa.array(names, pa.string()),
        lambda names: pa.array(names, pa.large_string()),
        lambda names: pa.array(names, pa.string()).dictionary_encode(),
        lambda names: pa.array(["?", *names, "?"], pa.string())[1 : len(names) + 1],
        lambda names: pa.array(["?", *names, "?"], pa.string()).dictionary_encode()[1:-1],
        lambda names: pa.DictionaryArray.from_arrays(
            pa.array(range(len(names)), pa.int8()), pa.array(names, pa.large_string())
        ),
    ]
)


@given(
    st.lists(st.tuples(NAMES, NAMES, WEIGHTS, TIMES), max_size=4), st.booleans(), STRINGS, STRINGS
)
def test_an_arrow_message_holds_what_json_messages_of_its_rows_would(rows, weighted, left, right):
    columns = {
        "a": left([a for a, _, _, _ in rows]),
        "b": right([b for _, b, _, _ in rows]),
        "time_ms": pa.array([time_ms for _, _, _, time_ms in rows], pa.int64()),
    }
    if weighted:
        columns["weight"] = pa.array([weight for _, _, weight, _ in rows], pa.float64())
    alone = [
        message(
            json.dumps(
                {"a": a, "b": b, "time_ms": t} | ({"weight": w} if weighted else {})
            ).encode()
        )
        for a, b, w, t in rows
    ]

    got = decode_coplays([message(encode_columns(columns), headers=ARROW)])
    want = decode_coplays(alone)

    assert bool(got.dead) == bool(want.dead)
    if not got.dead:
        assert (list(got.pairs.a), list(got.pairs.b)) == (want.pairs.a, want.pairs.b)
        assert got.pairs.weight.tolist() == want.pairs.weight.tolist()
        assert got.pairs.time_ms.tolist() == want.pairs.time_ms.tolist()
        assert got.append_ms.tolist() == want.append_ms.tolist()


def test_a_dictionary_gives_ids_to_names_that_occur_and_to_no_other():
    names = pa.DictionaryArray.from_arrays(pa.array([2, 2], pa.int32()), pa.array(["x", "", "a"]))
    value = encode_columns({"a": names, "b": ["b", "c"], "time_ms": [NOW, NOW]})
    state = State.empty(GraphSettings())

    got = decode_coplays([message(value, headers=ARROW), message({**GOOD, "a": "d"})])
    state.apply_coplays(got.pairs, got.append_ms)

    assert got.dead == []
    assert sorted(state.graph.ids["title"].names(np.arange(5))) == ["2", "a", "b", "c", "d"]


def test_a_null_inside_a_dictionary_is_dead():
    names = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(["a", None]))
    value = encode_columns({"a": names, "b": ["b", "c"], "time_ms": [NOW, NOW]})

    got = decode_coplays([message(value, headers=ARROW)])

    assert len(got.pairs) == 0
    assert "null" in got.dead[0].reason


def test_an_arrow_stream_of_several_batches_is_one_column():
    batches = [
        pa.RecordBatch.from_pydict({"a": ["x", f"y{n}"], "b": ["b", "b"], "time_ms": [n, n]})
        for n in range(3)
    ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)

    got = decode_coplays([message(sink.getvalue().to_pybytes(), headers=ARROW)])

    assert list(got.pairs.a) == ["x", "y0", "x", "y1", "x", "y2"]
    assert got.pairs.time_ms.tolist() == [0, 0, 1, 1, 2, 2]


def test_an_arrow_stream_without_a_batch_is_no_event():
    schema = pa.schema({"a": pa.string(), "b": pa.string(), "time_ms": pa.int64()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema):
        pass

    got = decode_coplays([message(sink.getvalue().to_pybytes(), headers=ARROW)])

    assert (len(got.pairs), got.dead) == (0, [])


BAD_ARROWS = {
    "not Arrow": (b"abc", "no Arrow stream"),
    "JSON": (json.dumps(GOOD).encode(), "no Arrow stream"),
    "cut short": (encode_columns({"a": ["1"], "b": ["2"], "time_ms": [1]})[:300], ""),
    "a row with NaN": (
        encode_columns(
            {"a": ["1", "1"], "b": ["2", "2"], "time_ms": [1, 1], "weight": [1, np.nan]}
        ),
        "not finite",
    ),
    "a negative row": (
        encode_columns({"a": ["1", "1"], "b": ["2", "2"], "time_ms": [1, 1], "weight": [1.0, -1]}),
        "$[1].weight",
    ),
    "a null": (encode_columns({"a": ["1", None], "b": ["2", "2"], "time_ms": [1, 1]}), "1 nulls"),
    "a pair of one": (encode_columns({"a": ["1", "5"], "b": ["2", "5"], "time_ms": [1, 1]}), "5"),
    "no column": (encode_columns({"a": ["1"], "time_ms": [1]}), "'b'"),
    "wrong type": (encode_columns({"a": ["1"], "b": [2], "time_ms": [1]}), "'b' is int64"),
    "future": (encode_columns({"a": ["1"], "b": ["2"], "time_ms": [2 * NOW]}), "after the append"),
}


@pytest.mark.parametrize("kind", BAD_ARROWS)
def test_an_arrow_message_is_taken_or_refused_as_a_whole(kind):
    value, reason = BAD_ARROWS[kind]

    got = decode_coplays([message(value, headers=ARROW), message(GOOD)])

    assert got.pairs.row.tolist() == [1]
    (letter,) = got.dead
    assert reason in letter.reason


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
