"""Checkpoints: the whole state as one unit on disk, and the newest good one read back.

    <root>/<number>/manifest.json   format, meta, size and SHA-256 of each file, and its own sum
    <root>/<number>/...             what the state's parts wrote: .npy, safetensors, JSON; no pickle

A checkpoint is written beside its place, synced, and renamed into it, so that one which can be seen
is whole; the manifest's sums find what was damaged later. The state is a fold over offsets: `meta`
holds the next offset of every partition, and whoever loads replays from there.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams import failpoints

FORMAT = 1
MANIFEST = "manifest.json"
_CHUNK = 1 << 20


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read: which, and why."""


class NewerFormatError(CheckpointError):
    """Written by a later version of this program: never skipped in silence for an older one."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One whole checkpoint.

    Attributes:
        number: grows by one a checkpoint.
        folder: where its files are.
        meta: what `write` was given.
    """

    number: int
    folder: Path
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Damage:
    """A checkpoint that was passed over, and why."""

    folder: Path
    reason: str


def write(
    root: Path, fill: Callable[[Path], None], meta: dict[str, Any], *, keep: int = 3
) -> Checkpoint:
    """Write one checkpoint and delete all but the newest `keep`.

    Args:
        root: made where it is missing.
        fill: writes the files of the state into the folder that it is handed.
        meta: JSON: offsets and counters.

    Raises:
        CheckpointError: the disk refused. Checkpoints that stood before still stand.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        number = max((one for one, _ in _numbered(root)), default=0) + 1
        _sweep(root)
        draft = root / f".draft-{number}-{os.getpid()}"
        draft.mkdir()
        fill(draft)
        files = {str(path.relative_to(draft)): _seal(path) for path in _files(draft)}
        manifest = {"format": FORMAT, "number": number, "meta": meta, "files": files}
        (draft / MANIFEST).write_text(json.dumps({**manifest, "sum": _sum(manifest)}, indent=1))
        _sync_file(draft / MANIFEST)
        for folder in (draft, *(path for path in draft.rglob("*") if path.is_dir())):
            _sync_folder(folder)
        failpoints.reach("checkpoint.drafted")
        place = root / f"{number:08d}"
        draft.rename(place)
        _sync_folder(root)
        failpoints.reach("checkpoint.placed")
        for _, old in sorted(_numbered(root))[:-keep]:
            shutil.rmtree(old)
        failpoints.reach("checkpoint.after")
    except OSError as error:
        raise CheckpointError(
            f"no checkpoint could be written under {root}: {error.strerror or error}; "
            "free space or name another folder (checkpoint.folder)"
        ) from error
    return Checkpoint(number, place, meta)


def newest(root: Path) -> tuple[Checkpoint | None, list[Damage]]:
    """The newest checkpoint whose files are all as they were written, and those passed over.

    Raises:
        NewerFormatError: the newest readable manifest is of a later format.
    """
    damaged: list[Damage] = []
    for _, folder in sorted(_numbered(root), reverse=True):
        try:
            return verify(folder), damaged
        except NewerFormatError:
            raise
        except CheckpointError as error:
            damaged.append(Damage(folder, str(error)))
    return None, damaged


def verify(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, every byte checked.

    Raises:
        NewerFormatError: it is of a later format.
        CheckpointError: a file is missing, added, cut short or changed.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        own_sum = manifest.pop("sum")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder}: no readable {MANIFEST} ({error})") from error
    if own_sum != _sum(manifest):
        raise CheckpointError(f"{folder}: {MANIFEST} was changed after it was written")
    if manifest["format"] != FORMAT:
        raise NewerFormatError(
            f"{folder} has format {manifest['format']!r}, this program reads {FORMAT}; "
            "start the version that wrote it, or name another folder"
        )
    listed: dict[str, Any] = manifest["files"]
    there = {str(path.relative_to(folder)): path for path in _files(folder)}
    there.pop(MANIFEST, None)
    if there.keys() != listed.keys():
        odd = sorted(there.keys() ^ listed.keys())[0]
        raise CheckpointError(f"{folder}: {odd} is {'missing' if odd in listed else 'unknown'}")
    for name, path in there.items():
        size, want = path.stat().st_size, listed[name]["bytes"]
        if size != want:
            raise CheckpointError(f"{folder}: {name} has {size} bytes, not {want}")
        if _digest(path) != listed[name]["sha256"]:
            raise CheckpointError(f"{folder}: {name} was changed after it was written")
    return Checkpoint(int(manifest["number"]), folder, manifest["meta"])


def every(root: Path) -> Iterator[tuple[Path, Checkpoint | Damage]]:
    """Each checkpoint under `root`, oldest first, whole or damaged."""
    for _, folder in sorted(_numbered(root)):
        try:
            yield folder, verify(folder)
        except CheckpointError as error:
            yield folder, Damage(folder, str(error))


def _numbered(root: Path) -> list[tuple[int, Path]]:
    if not root.is_dir():
        return []
    return [(int(path.name), path) for path in root.iterdir() if path.name.isdigit()]


def _sweep(root: Path) -> None:
    """Remove drafts that a killed process left."""
    for draft in root.glob(".draft-*"):
        shutil.rmtree(draft)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _seal(path: Path) -> dict[str, Any]:
    _sync_file(path)
    return {"bytes": path.stat().st_size, "sha256": _digest(path)}


def _sum(manifest: dict[str, Any]) -> str:
    """Of the manifest's meaning, not of its bytes: the sum stands in the same file."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    sum_ = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            sum_.update(chunk)
    return sum_.hexdigest()


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
