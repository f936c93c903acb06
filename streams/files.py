"""Rows of a file: JSON lines, CSV, TSV or Parquet, each but Parquet also as .gz.

Rows are numbered from 1: a line of JSON lines (empty ones count, and are passed over), a record of
a CSV below its header, a row of Parquet. A row that cannot be read is handed on as its error: the
next one may be right.
"""

import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet

SUFFIXES: Final = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
PARQUET_ROWS: Final = 8192  # read at once


class FileFailed(ValueError):
    """A file that cannot be read: its name, why, and where it is known the row."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        number: from 1.
        fields: by column; those of a CSV are strings. None where there is an error.
        error: why it cannot be read, or None.
    """

    number: int
    fields: dict[str, Any] | None
    error: str | None = None


class RowFile:
    """A file of rows, to be read once from its beginning.

    Args:
        path: its suffix says what it is, before a `.gz`.

    Attributes:
        size: what `read_so_far` has reached when all is read: bytes, or rows of Parquet.

    Raises:
        FileFailed: it is not there, or of no kind that is known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        suffixes = [one.lower() for one in path.suffixes]
        self._packed = suffixes[-1:] == [".gz"]
        self.kind = next(reversed(suffixes[:-1] if self._packed else suffixes), "")
        if self.kind not in SUFFIXES or (self._packed and self.kind == ".parquet"):
            raise FileFailed(
                f"{path}: want a name that ends in {', '.join(SUFFIXES)}, "
                "or one of these but .parquet and .gz"
            )
        try:
            self.size = max(path.stat().st_size, 1)
            if self.kind == ".parquet":
                self.size = max(pa.parquet.read_metadata(path).num_rows, 1)
            else:
                path.open("rb").close()
        except pa.ArrowException as error:
            raise FileFailed(f"{path} is no Parquet file: {error}") from error
        except OSError as error:
            raise FileFailed(f"{path}: {error.strerror or error}") from error
        self.read_so_far = 0

    def rows(self) -> Iterator[Row]:
        """All rows.

        Raises:
            FileFailed: the rest of the file is broken.
        """
        read = {".parquet": self._parquet_rows, ".csv": self._csv_rows, ".tsv": self._csv_rows}
        try:
            with self.path.open("rb") as raw:
                yield from read.get(self.kind, self._json_rows)(raw)
        except (OSError, EOFError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
            raise FileFailed(f"{self.path} is broken: {error}") from error
        self.read_so_far = self.size

    def _stream(self, raw: IO[bytes]) -> IO[bytes]:
        return cast("IO[bytes]", gzip.open(raw)) if self._packed else raw

    def _json_rows(self, raw: IO[bytes]) -> Iterator[Row]:
        decode = msgspec.json.decode
        for number, line in enumerate(self._stream(raw), start=1):
            self.read_so_far = raw.tell()
            if not line.strip():
                continue
            try:
                fields = decode(line)
            except (ValueError, RecursionError) as error:
                yield Row(number, None, str(error))
                continue
            if isinstance(fields, dict):
                yield Row(number, fields)
            else:
                yield Row(number, None, f"a {type(fields).__name__}: want an object")

    def _csv_rows(self, raw: IO[bytes]) -> Iterator[Row]:
        with io.TextIOWrapper(self._stream(raw), "utf-8-sig", newline="") as text:
            reader = csv.reader(text, delimiter="\t" if self.kind == ".tsv" else ",")
            header = next(reader, None)
            if header is None:
                raise FileFailed(f"{self.path} is empty: want a header and rows")
            if len(set(header)) < len(header):
                raise FileFailed(f"{self.path}: the header names a column twice: {header}")
            for number, cells in enumerate(reader, start=1):
                self.read_so_far = raw.tell()
                if len(cells) == len(header):
                    yield Row(number, dict(zip(header, cells, strict=True)))
                elif cells:
                    yield Row(number, None, f"{len(cells)} cells, the header has {len(header)}")

    def _parquet_rows(self, raw: IO[bytes]) -> Iterator[Row]:
        number = 0
        for batch in pa.parquet.ParquetFile(raw).iter_batches(batch_size=PARQUET_ROWS):
            for fields in batch.to_pylist():
                number += 1
                yield Row(number, fields)
            self.read_so_far = number
