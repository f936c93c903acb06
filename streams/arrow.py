"""Arrow streams as a message's content: many events in one value.

The bytes come from outside: each batch is validated in full before it is read, since a wrong offset
in it would else be a wrong read in C++. Bounds on the values themselves are those of
streams/events.py, which calls this.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from streams.columns import Names

CONTENT_TYPE: Final = "application/vnd.apache.arrow.stream"
MAX_ROWS: Final = 1_000_000

_CAST = {str: pa.string(), int: pa.int64(), float: pa.float64()}


class ArrowError(ValueError):
    """An Arrow stream that cannot be used, and why."""


def read_columns(
    value: bytes | None, required: Mapping[str, type], optional: Mapping[str, type]
) -> dict[str, list[Any]]:
    """The named columns of an Arrow stream as lists of equal length.

    Args:
        value: the stream's bytes.
        required, optional: column name -> `str`, `int` (a timestamp becomes milliseconds) or
            `float`. A null is an error in a required column, and None in an optional one.

    Raises:
        ArrowError: no stream, a column is missing or of another type, a null, too many rows.
    """
    return {name: column.to_pylist() for name, column in _read(value, required, optional).items()}


@dataclass(frozen=True, slots=True)
class Packed:
    """Two columns of names and any of numbers, N rows, without a Python object a row.

    Attributes:
        first, second: N names each, none of them null.
        same: whether a row has the same name in both.
        numbers: the other columns by name, shape (N,), int64 or float64.
    """

    first: Names
    second: Names
    same: bool
    numbers: dict[str, npt.NDArray[Any]]


def read_packed(
    value: bytes | None, first: str, second: str, numbers: Mapping[str, type], optional: str
) -> Packed:
    """The columns of an Arrow stream as they lie in its bytes; nothing is copied that fits.

    Args:
        value: the stream's bytes; the columns are views of them.
        first, second: names of the columns of names.
        numbers: the columns of numbers -> `int` or `float`; the one called `optional` may be
            missing. A null is an error in all of them.

    Raises:
        ArrowError: as for `read_columns`.
    """
    required: dict[str, type] = {first: str, second: str}
    required |= {name: kind for name, kind in numbers.items() if name != optional}
    columns = _read(value, required, {optional: numbers[optional]}, dictionaries=True)
    nulls = [name for name, column in columns.items() if column.null_count]
    if nulls:
        raise ArrowError(f"column {nulls[0]!r} has {columns[nulls[0]].null_count} nulls")
    a, b = _one_chunk(columns.pop(first)), _one_chunk(columns.pop(second))
    same = bool(pa.compute.any(pa.compute.equal(_plain(a), _plain(b))).as_py())
    found = {name: column.to_numpy() for name, column in columns.items()}
    return Packed(_names_of(a), _names_of(b), same, found)


def _one_chunk(column: Any) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _plain(column: Any) -> Any:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _names_of(column: Any) -> Names:
    """A column of strings, or of a dictionary of strings, without nulls."""
    if pa.types.is_dictionary(column.type):
        values = _names_of(column.dictionary)
        return Names(values.text, values.ends, column.indices.cast(pa.int32()).to_numpy())
    _, offsets, text = column.buffers()
    if not len(column):
        return Names(np.empty(0, np.uint8), np.empty(0, np.int64))
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    whole = np.empty(0, np.uint8) if text is None else np.frombuffer(text, np.uint8)
    return Names(whole[ends[0] : ends[-1]], ends[1:].astype(np.int64) - int(ends[0]))


def _read(
    value: bytes | None,
    required: Mapping[str, type],
    optional: Mapping[str, type],
    *,
    dictionaries: bool = False,
) -> dict[str, Any]:
    """The named columns, checked and of the types that are wanted, as Arrow's chunked arrays.

    Args:
        dictionaries: strings may stay a dictionary of them, whose values hold no null.
    """
    if not value:
        raise ArrowError("empty value")
    try:
        with pa.ipc.open_stream(value) as reader:
            batches, rows = [], 0
            for batch in reader:
                batch.validate(full=True)
                rows += batch.num_rows
                if rows > MAX_ROWS:
                    raise ArrowError(f"more than {MAX_ROWS} rows in one message")
                batches.append(batch)
            table = pa.Table.from_batches(batches, reader.schema)
        columns: dict[str, Any] = {}
        for name, kind in {**required, **optional}.items():
            found = table.schema.get_all_field_indices(name)
            if not found and name in optional:
                continue
            if len(found) != 1:
                raise ArrowError(f"{len(found)} columns are named {name!r}: want one")
            column = table.column(found[0])
            if not (dictionaries and kind is str and _is_dictionary_of_strings(column)):
                column = _column(name, column, kind, name in optional)
            columns[name] = column
    except (pa.ArrowException, OSError) as error:
        raise ArrowError(f"no Arrow stream: {error}") from error
    return columns


def _is_dictionary_of_strings(column: Any) -> bool:
    return (
        pa.types.is_dictionary(column.type)
        and column.type.value_type == pa.string()
        and not any(chunk.dictionary.null_count for chunk in column.chunks)
    )


def encode_columns(columns: Mapping[str, Any]) -> bytes:
    """One Arrow stream of one record batch, from lists or numpy arrays of equal length."""
    batch = pa.RecordBatch.from_pydict(dict(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def _column(name: str, column: Any, kind: type, optional: bool) -> Any:
    if column.null_count and not optional:
        raise ArrowError(f"column {name!r} has {column.null_count} nulls")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    source = column.type
    right = {
        str: pa.types.is_string(source) or pa.types.is_large_string(source),
        int: pa.types.is_integer(source) or pa.types.is_timestamp(source),
        float: pa.types.is_floating(source) or pa.types.is_integer(source),
    }[kind]
    if not right:
        raise ArrowError(f"column {name!r} is {source}: want {_CAST[kind]}")
    if pa.types.is_timestamp(source):
        column = column.cast(pa.timestamp("ms", tz=source.tz), safe=False)
    column = column.cast(_CAST[kind])
    if kind is float and pa.compute.any(pa.compute.invert(pa.compute.is_finite(column))).as_py():
        raise ArrowError(f"column {name!r} has values that are not finite")
    return column
