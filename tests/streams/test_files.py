"""Rows of files, and the events that they become."""

import gzip
import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.events import CatalogEntry, CoPlay, Play
from streams.files import FileFailed, RowFile
from streams.mapping import BadRow, Events, RowMap, parse_columns

NOW = 1_700_000_000_000
PAIRS = [{"a": "1", "b": "2", "time_ms": 5, "weight": 0.5}, {"a": "x", "b": "\u00e9", "time_ms": 6}]


def coplays(path, **options) -> list:
    return list(Events(RowFile(path), RowMap("coplays", NOW, **options)))


def as_csv(rows, delimiter=",") -> str:
    names = ["a", "b", "time_ms", "weight"]
    lines = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
    return "".join(delimiter.join(line) + "\n" for line in lines)


@pytest.fixture
def written(tmp_path):
    """Write rows in the form that a name asks for."""

    def write(name, rows=PAIRS):
        path = tmp_path / name
        if ".parquet" in name:
            pq.write_table(pa.Table.from_pylist(rows), path)
            return path
        if ".jsonl" in name:
            text = "".join(json.dumps(row) + "\n" for row in rows)
        else:
            text = as_csv(rows, "\t" if ".tsv" in name else ",")
        data = text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


@pytest.mark.parametrize(
    "name", ["p.jsonl", "p.ndjson.jsonl.gz", "p.csv", "p.CSV.gz", "p.tsv", "p.parquet"]
)
def test_every_form_holds_the_same_events(written, name):
    path = written(name) if name != "p.CSV.gz" else written("p.csv.gz")
    file = RowFile(path)

    got = list(Events(file, RowMap("coplays", NOW)))

    assert got == [CoPlay("1", "2", 5, 0.5), CoPlay("x", "\u00e9", 6, 1.0)]
    assert file.read_so_far == file.size


def test_a_map_names_columns_and_whole_numbers_are_ids(tmp_path):
    path = tmp_path / "p.parquet"
    rows = [{"src": 17, "dst": 4, "at": datetime(2023, 1, 2, tzinfo=UTC), "w": 2}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    columns = parse_columns("a=src, b=dst,time_ms=at,weight=w", "coplays")

    got = coplays(path, columns=columns)

    assert got == [CoPlay("17", "4", 1_672_617_600_000, 2.0)]


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("ms", "1672617600500"),
        ("s", "1672617600.5"),
        ("us", "1672617600500000"),
        ("iso", "2023-01-02T00:00:00.5Z"),
        ("iso", "2023-01-02 02:00:00.5+02:00"),
    ],
)
def test_a_time_is_read_in_its_unit(tmp_path, unit, text):
    path = tmp_path / "plays.csv"
    path.write_text(f"user,title,time_ms\nu,t,{text}\n")

    (play,) = Events(RowFile(path), RowMap("plays", NOW, time_unit=unit))

    assert play == Play("u", "t", 1_672_617_600_500)


def test_a_title_has_its_concepts_from_cells_and_lists(tmp_path):
    path = tmp_path / "movies.csv"
    path.write_text("movieId,title,genres,year\n7,Heat,Crime| Drama|,1995\n8,,,\n")
    columns = parse_columns(
        "title=movieId,name=title,concepts.genre=genres,concepts.year=year", "catalog"
    )

    got = list(Events(RowFile(path), RowMap("catalog", NOW, columns=columns, untimed_ms=3)))

    assert got == [
        CatalogEntry("7", 3, {"genre": ["Crime", "Drama"], "year": ["1995"]}, name="Heat"),
        CatalogEntry("8", 3, {"genre": [], "year": []}),
    ]


BAD = {
    "no JSON": ("{", "truncated"),
    "a list": ("[1]", "a list: want an object"),
    "no time": ('{"a":"1","b":"2"}', "missing required field `time_ms`"),
    "a pair of one": ('{"a":1,"b":"1","time_ms":1}', "both '1'"),
    "a time to come": (json.dumps({**PAIRS[0], "time_ms": NOW * 2}), "lies"),
    "no number": ('{"a":"1","b":"2","time_ms":"soon"}', "soon"),
    "a weight of nothing": ('{"a":"1","b":"2","time_ms":1,"weight":0}', ">= "),
    "a control character": (json.dumps({**PAIRS[0], "a": "\n"}), "control character"),
    "a true id": ('{"a":true,"b":"2","time_ms":1}', "Expected `str`"),
    "endless time": ('{"a":"1","b":"2","time_ms":1e999}', ""),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_told_by_its_number_or_passed_over(tmp_path, kind):
    line, reason = BAD[kind]
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(PAIRS[0]) + "\n\n" + line + "\n" + json.dumps(PAIRS[1]))

    with pytest.raises(BadRow, match=r"^row 3: ") as caught:
        coplays(path)
    skipping = Events(RowFile(path), RowMap("coplays", NOW), skip=True)

    assert reason in str(caught.value)
    assert len(list(skipping)) == 2
    assert (skipping.row, skipping.good, skipping.bad) == (4, 2, 1)
    assert skipping.first_bad == [str(caught.value)]


def test_rows_before_the_first_one_are_passed_over_unseen(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("a,b,time_ms\nbad\n1,2,3\n4,5,6\n")

    got = Events(RowFile(path), RowMap("coplays", NOW), first_row=3)

    assert list(got) == [CoPlay("4", "5", 6)]
    assert got.row == 3


def test_a_record_with_too_few_cells_is_a_bad_row(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text('a,b,time_ms\n"1\n1",2,3\n1,2\n')

    events = Events(RowFile(path), RowMap("coplays", NOW), skip=True)

    assert list(events) == []
    assert events.first_bad[1] == "row 2: 2 cells, the header has 3"


def test_a_column_that_is_not_there_is_told_with_those_that_are(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("x,y,t\n1,2,3\n")

    with pytest.raises(BadRow, match="no column 'src': there are x, y, t"):
        coplays(path, columns={"a": "src", "b": "y", "time_ms": "t"})


@pytest.mark.parametrize("text", ["a", "a=", "=b", "a=b,", "c=d", "concepts.genre=g", ""])
def test_a_map_that_says_nothing_is_refused(text):
    with pytest.raises(ValueError, match=r"column map|no field of coplays"):
        parse_columns(text, "coplays")


def test_files_that_are_none_are_told_by_name(tmp_path, written):
    with pytest.raises(FileFailed, match="No such file"):
        RowFile(tmp_path / "absent.csv")
    with pytest.raises(FileFailed, match=r"ends in \.jsonl"):
        RowFile(tmp_path / "plays.xlsx")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    with pytest.raises(FileFailed, match="no Parquet file"):
        RowFile(broken)
    cut = written("cut.jsonl.gz")
    cut.write_bytes(cut.read_bytes()[:-9])
    with pytest.raises(FileFailed, match="is broken"):
        coplays(cut)
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"a,b,time_ms\n\xe9,2,3\n")
    with pytest.raises(FileFailed, match="is broken"):
        coplays(latin)
    empty = tmp_path / "empty.csv"
    empty.touch()
    with pytest.raises(FileFailed, match="want a header"):
        coplays(empty)


CELLS = st.text(max_size=5)


@given(st.lists(st.fixed_dictionaries({"a": CELLS, "b": CELLS, "time_ms": CELLS}), max_size=5))
def test_no_row_makes_reading_fail(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("any") / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    events = Events(RowFile(path), RowMap("coplays", NOW, time_unit="iso"), skip=True)

    assert len(list(events)) + events.bad == len(rows)
