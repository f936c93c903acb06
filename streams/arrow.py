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
    """Two columns of names and any of numbers, N rows, with each name once.

    Attributes:
        names: each one that occurs, M strings.
        first, second: rows of `names`, shape (N,), int32.
        numbers: the other columns by name, shape (N,), int64 or float64.
    """

    names: list[str]
    first: npt.NDArray[np.int32]
    second: npt.NDArray[np.int32]
    numbers: dict[str, npt.NDArray[Any]]


def read_packed(
    value: bytes | None, first: str, second: str, numbers: Mapping[str, type], optional: str
) -> Packed:
    """The columns of an Arrow stream without a Python object a row: several times faster.

    Args:
        value: the stream's bytes.
        first, second: names of the columns of names.
        numbers: the columns of numbers -> `int` or `float`; the one called `optional` may be
            missing. A null is an error in all of them.

    Raises:
        ArrowError: as for `read_columns`.
    """
    required: dict[str, type] = {first: str, second: str}
    required |= {name: kind for name, kind in numbers.items() if name != optional}
    columns = _read(value, required, {optional: numbers[optional]})
    nulls = [name for name, column in columns.items() if column.null_count]
    if nulls:
        raise ArrowError(f"column {nulls[0]!r} has {columns[nulls[0]].null_count} nulls")
    both = pa.chunked_array([*columns.pop(first).chunks, *columns.pop(second).chunks], pa.string())
    encoded = both.combine_chunks().dictionary_encode()
    index = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
    rows = len(index) // 2
    found = {name: column.to_numpy() for name, column in columns.items()}
    return Packed(encoded.dictionary.to_pylist(), index[:rows], index[rows:], found)


def _read(
    value: bytes | None, required: Mapping[str, type], optional: Mapping[str, type]
) -> dict[str, Any]:
    """The named columns, checked and of the types that are wanted, as Arrow's chunked arrays."""
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
            columns[name] = _column(name, table.column(found[0]), kind, name in optional)
    except (pa.ArrowException, OSError) as error:
        raise ArrowError(f"no Arrow stream: {error}") from error
    return columns


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
