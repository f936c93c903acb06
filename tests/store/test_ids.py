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
