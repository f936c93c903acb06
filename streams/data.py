"""Data sets of plays: fetching MovieLens-1M once, and reading one from its folder.

A folder holds three gzipped, tab-separated files with a header, in UTF-8:

    events.tsv.gz   user_id  title_id  rating  ts       ts in seconds since the Unix epoch
    titles.tsv.gz   title_id  title  year               year may be empty
    triples.tsv.gz  title_id  relation  concept

MovieLens-1M comes by pip from the package index (streams/ml1m.py says from where, and its terms),
by hash, and is kept under the user's cache folder. It is made beside its place and moved there
whole, so that a folder that is there is complete.
"""

import errno
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv  # pa.csv is there once it is imported

from streams.ml1m import CONCEPTS, PLAYS, BadArchive, DataFailed, Progress, Row, Wheel, read_wheels

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

__all__ = [
    "BadArchive",
    "DataFailed",
    "Dataset",
    "NoNetwork",
    "NoSpace",
    "WrongHash",
    "fetch_ml1m",
    "load_ml1m",
    "user_cache",
]

_FORM = 1  # of the folder: one of another form is made anew
_ABOUT = "about.json"
_NEEDED = 64 << 20  # bytes: the wheels, pip's copies of them, and what is made of them
_MIN_TITLES = 2  # a concept of a single title ties it to nothing
_TITLES = {"title_id": pa.string(), "title": pa.string(), "year": pa.int64()}
_TRIPLES = {"title_id": pa.string(), "relation": pa.string(), "concept": pa.string()}
_EVENTS = {
    "user_id": pa.string(),
    "title_id": pa.string(),
    "rating": pa.float32(),
    "ts": pa.int64(),
}
_OFFLINE = (
    "Where there is no network, bring the wheels ({files}) in a folder and set PIP_NO_INDEX=1 "
    "PIP_FIND_LINKS=FOLDER."
)


class NoNetwork(DataFailed):
    """The package index was not reached."""


class WrongHash(DataFailed):
    """A file came that is not the one that was asked for: half of it, or another."""


class NoSpace(DataFailed):
    """The disk is full."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Plays in time order, and the catalogue of their titles. Users and titles are numbered.

    Attributes:
        users: id of each user, length U.
        titles: id of each title, length T; some are never played.
        names: of each title, length T.
        years: of each title, 0 where unknown, shape (T,).
        concepts: of each title, relation -> its concepts, sorted; length T.
        play_users: user number, shape (P,).
        play_titles: title number, shape (P,).
        play_ratings: 0.5 to 5, shape (P,).
        play_time_ms: milliseconds since the Unix epoch, ascending; plays at one time stand in
            random order, for what stands in the source is none, shape (P,).
    """

    users: list[str]
    titles: list[str]
    names: list[str]
    years: Int64s
    concepts: list[dict[str, list[str]]]
    play_users: Int64s
    play_titles: Int64s
    play_ratings: Floats
    play_time_ms: Int64s

    def __len__(self) -> int:
        """The number of plays."""
        return len(self.play_users)

    @property
    def num_concepts(self) -> Int64s:
        """Concepts of each title, shape (T,)."""
        counts = [sum(map(len, concepts.values())) for concepts in self.concepts]
        return np.array(counts, np.int64)

    @property
    def relations(self) -> list[str]:
        """The names of all relations between titles and concepts, sorted."""
        return sorted({relation for concepts in self.concepts for relation in concepts})


def user_cache() -> Path:
    """Where we keep what can be had again: `upwell` in XDG_CACHE_HOME, else in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "upwell"


def fetch_ml1m(
    cache: Path, progress: Progress, *, plays: Wheel = PLAYS, concepts: Wheel = CONCEPTS
) -> Path:
    """The folder of MovieLens-1M, which is fetched and made where it is not there yet.

    Args:
        cache: folder under which it is kept; `user_cache()` is the usual one.
        progress: is told step, parts done, parts in all: bytes for `download`, rows for the rest.

    Raises:
        DataFailed: NoNetwork, WrongHash, BadArchive or NoSpace say which; nothing is left behind.
    """
    folder = cache / "data" / "ml-1m"
    about = {"form": _FORM, "wheels": {wheel.file: wheel.sha256 for wheel in (plays, concepts)}}
    if _is_there(folder, about):
        return folder
    with _named_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder.parent).free < _NEEDED:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with tempfile.TemporaryDirectory(prefix=".ml-1m-", dir=folder.parent) as name:
            work = Path(name)
            _download((plays, concepts), work, progress)
            tables = read_wheels(work / plays.file, work / concepts.file, progress)
            made = work / "made"
            made.mkdir()
            _write(made / "titles.tsv.gz", ("title_id", "title", "year"), tables.titles)
            _write(made / "triples.tsv.gz", ("title_id", "relation", "concept"), tables.triples)
            header = ("user_id", "title_id", "rating", "ts")
            _write(made / "events.tsv.gz", header, tables.events, progress)
            _write_durably(made / _ABOUT, json.dumps(about, indent=1).encode())
            _put(made, folder, work / "old", about)
    return folder


def load_ml1m(folder: Path, *, seed: int = 0) -> Dataset:
    """Read a data set in the form above. Concepts that stand at one title only are left out.

    Args:
        seed: of the order of plays at one time.

    Raises:
        DataFailed: a file is missing or cannot be read.
        ValueError: an event or a triple names a title that is not in the catalogue.
    """
    catalogue = _read(folder / "titles.tsv.gz", _TITLES)
    triples = _read(folder / "triples.tsv.gz", _TRIPLES)
    events = _read(folder / "events.tsv.gz", _EVENTS)

    titles: list[str] = catalogue["title_id"].to_pylist()
    users = events["user_id"].combine_chunks().dictionary_encode()
    ts = events["ts"].to_numpy()
    shuffled = np.random.default_rng(seed).permutation(len(ts))
    order = shuffled[np.argsort(ts[shuffled], kind="stable")]

    return Dataset(
        users=users.dictionary.to_pylist(),
        titles=titles,
        names=catalogue["title"].to_pylist(),
        years=pc.fill_null(catalogue["year"], 0).to_numpy(),
        concepts=_concepts(titles, triples, folder),
        play_users=users.indices.to_numpy().astype(np.int64)[order],
        play_titles=_numbers(events, catalogue, folder / "events.tsv.gz")[order],
        play_ratings=events["rating"].to_numpy()[order],
        play_time_ms=ts[order] * 1000,
    )


def _is_there(folder: Path, about: object) -> bool:
    """Whether the folder was made from these wheels in this form."""
    try:
        found: object = json.loads((folder / _ABOUT).read_bytes())
    except (OSError, ValueError):
        return False
    return found == about


@contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    """Say of an error of the disk where it was, and what helps."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(
                f"no space in {folder}: MovieLens-1M takes {_NEEDED >> 20} MB while it is made and "
                "10 MB after; free some, or set XDG_CACHE_HOME to another disk"
            ) from error
        raise DataFailed(
            f"{folder} cannot be written ({error.strerror}); set XDG_CACHE_HOME to a folder of "
            "this user"
        ) from error


def _download(wheels: Sequence[Wheel], folder: Path, progress: Progress) -> None:
    """Fetch the wheels into the folder by pip, and hold them against their hashes."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += [
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--retries",
        "2",
        "--timeout",
        "10",
    ]
    command += ["--dest", str(folder), *(wheel.requirement for wheel in wheels)]
    total = sum(wheel.size for wheel in wheels)
    temporary = folder / "pip"  # pip keeps here what has come so far
    temporary.mkdir()
    said = folder / "pip.log"
    with said.open("wb") as output:
        pip = subprocess.Popen(  # noqa: S603 -- the names are ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        try:
            while pip.poll() is None:
                progress("download", min(_size(folder), total - 1), total)
                try:
                    pip.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            pip.kill()
            pip.wait()
    if pip.returncode:
        raise _pip_failed(said.read_text(errors="replace"), wheels)
    for wheel in wheels:
        _check(folder / wheel.file, wheel)
    shutil.rmtree(temporary)
    progress("download", total, total)


def _pip_failed(said: str, wheels: Sequence[Wheel]) -> Exception:
    """What pip's last words mean."""
    if os.strerror(errno.ENOSPC) in said:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "(it said nothing)"
    names = " and ".join(wheel.requirement for wheel in wheels)
    remedy = _OFFLINE.format(files=", ".join(wheel.file for wheel in wheels))
    unreached = ("Retrying", "connection", "timed out", "resolve", "proxy")
    if any(word.lower() in said.lower() for word in unreached):
        return NoNetwork(
            f"{names} could not be fetched: the package index was not reached. {remedy}"
        )
    if "No module named pip" in said:
        return DataFailed(f"{sys.executable} has no pip; `{sys.executable} -m ensurepip` brings it")
    return DataFailed(f"pip could not fetch {names}: {last}. {remedy}")


def _check(file: Path, wheel: Wheel) -> None:
    if not file.exists():
        raise WrongHash(f"pip brought no {wheel.file}; look at its settings (`pip config list`)")
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != wheel.sha256:
        raise WrongHash(
            f"{wheel.file} has sha256 {found} and {file.stat().st_size} bytes; want "
            f"{wheel.sha256} and {wheel.size}. Nothing of it is kept: `pip cache remove "
            f"{wheel.name}`, and try again"
        )


def _size(folder: Path) -> int:
    """Bytes of all files under a folder, though they may go while we look."""
    found = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                found += os.stat(os.path.join(path, name)).st_size
            except OSError:
                continue
    return found


def _write(
    path: Path, header: Row, rows: Sequence[Row], progress: Progress = lambda *_: None
) -> None:
    chunk = 50_000
    with path.open("wb") as raw:
        # Without a time stamp, so that the same rows make the same file.
        with gzip.GzipFile("", "wb", 4, raw, mtime=0) as packed:
            packed.write(("\t".join(header) + "\n").encode())
            for start in range(0, len(rows), chunk):
                lines = ("\t".join(row) for row in rows[start : start + chunk])
                packed.write(("\n".join(lines) + "\n").encode())
                progress("write", min(start + chunk, len(rows)), len(rows))
        raw.flush()
        os.fsync(raw.fileno())


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as raw:
        raw.write(content)
        raw.flush()
        os.fsync(raw.fileno())


def _put(made: Path, folder: Path, aside: Path, about: object) -> None:
    """Move what was made to its place, and what stood there aside."""
    try:
        if folder.exists():
            folder.rename(aside)
        made.rename(folder)
    except OSError:
        if not _is_there(folder, about):  # else another process was first, with the same
            raise


def _read(path: Path, types: Mapping[str, pa.DataType]) -> pa.Table:
    """One file of a folder, with the columns that are named."""
    try:
        with gzip.open(path) as packed:
            table = pa.csv.read_csv(
                packed,
                parse_options=pa.csv.ParseOptions(delimiter="\t", quote_char=False),
                convert_options=pa.csv.ConvertOptions(
                    column_types=types, include_columns=list(types), null_values=[""]
                ),
            )
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise DataFailed(
            f"{path} cannot be read ({error}); delete its folder, and it will be fetched again"
        ) from error
    return table


def _numbers(table: pa.Table, catalogue: pa.Table, path: Path) -> Int64s:
    """Title number of each row, shape (N,)."""
    found = pc.index_in(table["title_id"], catalogue["title_id"])
    if found.null_count:
        row = pc.index(pc.is_null(found), True).as_py()
        raise ValueError(
            f"{path}: row {row + 1} names title {table['title_id'][row].as_py()!r}, which "
            "titles.tsv.gz lacks; add it there, or drop the row"
        )
    numbers: Int64s = found.to_numpy().astype(np.int64)
    return numbers


def _concepts(titles: list[str], triples: pa.Table, path: Path) -> list[dict[str, list[str]]]:
    """The concepts of each title, relation by relation."""
    number = {title: index for index, title in enumerate(titles)}
    columns = (triples[name].to_pylist() for name in ("title_id", "relation", "concept"))
    rows = set(zip(*columns, strict=True))
    holders = Counter((relation, concept) for _, relation, concept in rows)
    found: list[dict[str, list[str]]] = [{} for _ in titles]
    for title, relation, concept in sorted(rows):
        if title not in number:
            raise ValueError(
                f"{path / 'triples.tsv.gz'}: {relation} {concept!r} is of title {title!r}, which "
                "titles.tsv.gz lacks; add it there, or drop the row"
            )
        if holders[relation, concept] >= _MIN_TITLES:
            found[number[title]].setdefault(relation, []).append(concept)
    return found
