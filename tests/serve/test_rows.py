"""A mapping against a dictionary, under a busy writer, and after writers that were killed."""

import multiprocessing
import os
import signal
import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.rows import Full, Rows, Text, Unusable
from serve.updates import Mark
from tests.servers import wait_until

PROCESSES = multiprocessing.get_context("spawn")
DIM = 5
MARK = Mark("main", b"e", 7, b"1700000000000-3")


def made(path: Path | None, *, rows: int = 8, heap: int = 1000, dim: int = DIM) -> Rows:
    return Rows.create(path, MARK, dim, rows, heap)


def at(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def vectors(*values: float, dim: int = DIM) -> np.ndarray:
    return np.repeat(np.array(values, np.float32)[:, None], dim, axis=1)


def content(rows: Rows) -> dict[str, tuple[str | None, list[float]]]:
    """What a search would see: name and vector by title."""
    basis = [rows.scores(unit) for unit in np.eye(rows.dim, dtype=np.float32)]
    places = basis[0][1]
    return {
        rows.text(int(places[row])).title: (
            rows.text(int(places[row])).name,
            [float(scores[row]) for scores, _ in basis],
        )
        for row in np.flatnonzero(places).tolist()
    }


@given(
    changes=st.lists(
        st.dictionaries(
            st.integers(0, 7),
            st.one_of(
                st.none(),
                st.tuples(
                    st.text(min_size=1, max_size=5),
                    st.none() | st.text(max_size=9),
                    st.floats(-1, 1, width=16),
                ),
            ),
            max_size=8,
        ),
        max_size=8,
    ),
    in_file=st.booleans(),
)
def test_rows_hold_what_was_put_into_them_last(changes, in_file: bool) -> None:
    folder = tempfile.TemporaryDirectory() if in_file else nullcontext()
    with folder as name:
        rows = made(Path(name, "x") if name else None, heap=10_000)
        want: dict[int, tuple[str, str | None, float]] = {}

        for change in changes:
            there = {row: value for row, value in change.items() if value is not None}
            rows.put(
                at(*there),
                vectors(*(value for _, _, value in there.values())).reshape(-1, DIM),
                # The row stands in the title, as no two rows are of one title.
                [Text(f"{row}{title}", name) for row, (title, name, _) in there.items()],
            )
            gone = [row for row, value in change.items() if value is None and row in want]
            rows.free(at(*gone))
            want = {row: value for row, value in (want | there).items() if row not in gone}

            for seen in [rows, Rows.open(rows.path)] if rows.path else [rows]:
                assert content(seen) == {
                    f"{row}{title}": (name, [value] * DIM)
                    for row, (title, name, value) in want.items()
                }


def test_a_text_may_stay_while_the_vector_changes() -> None:
    rows = made(None)
    rows.put(at(2), vectors(1), [Text("a", "A")])

    rows.put(at(2), vectors(2), [None])

    assert content(rows) == {"a": ("A", [2.0] * DIM)}


@pytest.mark.parametrize("put", [(at(8), [Text("b", None)]), (at(1), [Text("b" * 90, None)])])
def test_what_has_no_room_is_refused_whole(put) -> None:
    rows = made(None, heap=64)
    rows.put(at(0), vectors(1), [Text("a", None)])
    where, texts = put

    with pytest.raises(Full):
        rows.put(where, vectors(2), texts)

    assert content(rows) == {"a": (None, [1.0] * DIM)}


def test_a_mark_is_found_again_and_an_uncommitted_one_is_not(tmp_path: Path) -> None:
    rows = made(tmp_path / "x")
    assert Rows.open(tmp_path / "x").mark() == MARK
    later = MARK._replace(seq=9, position=b"1700000000001-0")

    rows.commit(later)
    assert Rows.open(tmp_path / "x").mark() == later

    killed = Rows.open(tmp_path / "x")
    killed._pass = Killed(1)
    with pytest.raises(Killed.Now):
        killed.commit(MARK)
    assert Rows.open(tmp_path / "x").mark() == later


def test_files_of_other_kinds_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "x"
    made(path)
    whole = path.read_bytes()

    for other in (b"", b"upwell", whole[:-1], b"x" * len(whole), whole + b"\0"):
        path.write_bytes(other)
        with pytest.raises(Unusable, match="x"):
            Rows.open(path)


class Killed:
    """Stands in for a row's fence, and ends the writer at its n-th call."""

    class Now(BaseException):
        pass

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self) -> None:
        self.left -= 1
        if not self.left:
            raise Killed.Now


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("act", ["put", "free"])
def test_a_row_that_a_killed_writer_left_is_out_until_it_is_repaired(
    tmp_path: Path, step: int, act: str
) -> None:
    rows = made(tmp_path / "x")
    rows.put(at(0, 1), vectors(1, 2), [Text("a", None), Text("b", None)])
    killed = Rows.open(tmp_path / "x")
    killed._pass = Killed(step)
    with pytest.raises(Killed.Now):
        killed.put(at(1), vectors(9), [None]) if act == "put" else killed.free(at(1))

    assert content(rows) == {"a": (None, [1.0] * DIM)}
    assert rows.vector(1)[1] == 0

    rows.repair()
    assert content(rows) == {"a": (None, [1.0] * DIM)}
    rows.put(at(1), vectors(3), [Text("c", None)])
    assert content(rows) == {"a": (None, [1.0] * DIM), "c": (None, [3.0] * DIM)}
    assert not (rows.versions() & 1).any()


def write_for_ever(path: Path) -> None:
    """Turn all vectors round, again and again."""
    rows = Rows.open(path)
    count = len(rows.versions())
    sign = 1.0
    while True:
        sign = -sign
        rows.put(np.arange(count), np.full((count, rows.dim), sign, np.float32), [None] * count)


def test_no_reader_sees_half_a_vector_of_another_process(tmp_path: Path) -> None:
    count, dim = 1000, 512
    rows = made(tmp_path / "x", rows=count, heap=100_000, dim=dim)
    texts = [Text(f"m{row}", None) for row in range(count)]
    rows.put(np.arange(count), np.ones((count, dim), np.float32), texts)
    writer = PROCESSES.Process(target=write_for_ever, args=(tmp_path / "x",))
    before = rows.versions()
    query = np.ones(dim, np.float32)
    seen: set[float] = set()
    both = turn = 0

    def look() -> bool:
        nonlocal both, turn
        scores, places = rows.scores(query)
        found = set(scores[places > 0].tolist())
        seen.update(found)
        both += len(found) == 2
        vector, place = rows.vector(turn % count)
        assert not place or set(vector.tolist()) in ({1.0}, {-1.0})
        turn += 1
        return turn > 10 and both > 0 and len(seen) == 2

    writer.start()
    try:
        wait_until(lambda: (rows.versions() != before).any(), "a write", within_s=120)
        wait_until(look, "both signs, in one look", within_s=60)
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()

    assert seen == {float(dim), -float(dim)}  # and nothing between, though it was written meanwhile
