"""Co-plays as Arrow: many in a message, which is taken or refused as a whole."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.arrow import encode_columns
from streams.events import decode_coplays
from streams.settings import GraphSettings
from streams.state import State
from tests.streams.sent import ARROW, GOOD, NOW, message


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
