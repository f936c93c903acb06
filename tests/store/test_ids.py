"""The id table against a dictionary."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.ids import IdTable

names = st.lists(st.text(max_size=6), max_size=30)


@given(steps=st.lists(st.tuples(names, st.integers(0, 5)), max_size=8))
def test_a_table_holds_what_a_dictionary_holds(steps) -> None:
    table, oracle = IdTable(), {}

    for new, releases in steps:
        numbers = table.intern(new).tolist()
        for name, number in zip(new, numbers, strict=True):
            assert oracle.setdefault(name, number) == number
        gone = list(oracle)[:releases]
        table.release(np.array([oracle.pop(name) for name in gone], np.int32))

    assert len(set(oracle.values())) == len(oracle) == len(table)
    assert table.find(list(oracle)).tolist() == list(oracle.values())
    assert table.names(np.array(list(oracle.values()), np.int32)) == list(oracle)
    assert table.live_ids().tolist() == sorted(oracle.values())


def test_a_released_id_is_given_out_before_a_new_one() -> None:
    table = IdTable()
    table.intern(["a", "b", "c"])

    table.release(np.array([1]))

    assert "b" not in table
    assert table.find(["b"]).tolist() == [-1]
    assert table.intern(["d", "e"]).tolist() == [1, 3]
    assert table.capacity == 4


def test_names_that_were_released_give_their_bytes_back() -> None:
    table = IdTable()
    for turn in range(50):
        table.release(table.intern([f"{turn}-{i}" * 10 for i in range(100)]))

    assert len(table) == 0
    assert table.nbytes() < 100_000


def test_a_copy_made_of_arrays_goes_on_alike() -> None:
    table = IdTable()
    table.intern([f"title:{i}" for i in range(1000)])
    table.release(np.arange(0, 1000, 7))

    copy = IdTable.from_arrays(table.arrays())

    assert copy.live_ids().tolist() == table.live_ids().tolist()
    assert copy.intern(["x", "y"]).tolist() == table.intern(["x", "y"]).tolist()


def test_ids_that_are_not_live_and_names_that_are_no_strings_are_refused() -> None:
    table = IdTable()
    table.intern(["a"])

    with pytest.raises(ValueError, match=r"ids\[1\] is 3"):
        table.names(np.array([0, 3]))
    with pytest.raises(ValueError, match=r"ids\[0\] is -1"):
        table.release(np.array([-1]))
    with pytest.raises(ValueError, match="no string"):
        table.intern([b"a"])
    with pytest.raises(ValueError, match="want a list"):
        table.find("a")


@given(
    known=st.lists(st.text(max_size=3), max_size=5),
    column=st.lists(st.sampled_from(["", "a", "b", "\u00e9", "ab", "c" * 300]), max_size=40),
    part=st.integers(1, 7),
)
def test_names_as_bytes_get_the_ids_that_strings_would(known, column, part) -> None:
    by_text, by_bytes = IdTable(), IdTable()
    by_text.intern(known)
    by_bytes.intern(known)
    text = "".join(column).encode()
    ends = np.cumsum([len(name.encode()) for name in column], dtype=np.int64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("store.ids._PART", part)
        got = by_bytes.intern_bytes(np.frombuffer(text, np.uint8), ends)

    assert got.tolist() == by_text.intern(column).tolist()
    assert by_bytes.find_bytes(np.frombuffer(text, np.uint8), ends).tolist() == got.tolist()


def test_a_long_column_of_few_names_makes_no_large_table() -> None:
    table = IdTable()

    table.intern(["a", "b"] * 200_000)

    assert len(table) == 2
    assert table.nbytes() < 1_000_000
