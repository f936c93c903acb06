"""Checkpoints: whole or not at all, and damage is never loaded in silence."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from streams import checkpoint
from streams.checkpoint import CheckpointError, NewerFormatError


def fill_with(value: int):
    def fill(folder: Path) -> None:
        (folder / "graph").mkdir()
        np.save(folder / "graph" / "edges.npy", np.full(100, value))
        (folder / "state.json").write_text(json.dumps({"value": value}))

    return fill


def value_in(one: checkpoint.Checkpoint) -> int:
    return json.loads((one.folder / "state.json").read_text())["value"]


def test_the_newest_is_read_back_with_its_offsets(tmp_path):
    for value in (1, 2):
        checkpoint.write(tmp_path, fill_with(value), {"offsets": {"coplays": [value, 0]}})

    found, damaged = checkpoint.newest(tmp_path)

    assert (value_in(found), found.meta, damaged) == (2, {"offsets": {"coplays": [2, 0]}}, [])


def test_only_the_newest_are_kept(tmp_path):
    for value in range(5):
        checkpoint.write(tmp_path, fill_with(value), {}, keep=3)

    assert [value_in(one) for _, one in checkpoint.every(tmp_path)] == [2, 3, 4]


def test_a_folder_without_any_gives_none(tmp_path):
    assert checkpoint.newest(tmp_path / "nothing") == (None, [])


def test_every_cut_and_every_flipped_bit_is_found_and_the_one_before_is_used(tmp_path):
    checkpoint.write(tmp_path, fill_with(1), {})
    last = checkpoint.write(tmp_path, fill_with(2), {})
    files = [path for path in last.folder.rglob("*") if path.is_file()]
    draw = random.Random(5)  # noqa: S311

    for turn in range(120):
        path = draw.choice(files)
        good = path.read_bytes()
        at = draw.randrange(len(good))
        if turn % 2:
            path.write_bytes(good[:at])
        else:
            bad = bytearray(good)
            bad[at] ^= 1 << draw.randrange(8)
            path.write_bytes(bytes(bad))
            if path.name == checkpoint.MANIFEST and json_equal(good, bytes(bad)):
                path.write_bytes(good)
                continue
        found, damaged = checkpoint.newest(tmp_path)
        assert value_in(found) == 1, (path, at)
        assert len(damaged) == 1
        path.write_bytes(good)

    assert value_in(checkpoint.newest(tmp_path)[0]) == 2


def json_equal(one: bytes, other: bytes) -> bool:
    """White space, or a number of the same value: the manifest then still says the same."""
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def test_a_file_that_was_added_or_lost_is_damage(tmp_path):
    one = checkpoint.write(tmp_path, fill_with(1), {})
    (one.folder / "graph" / "more.npy").write_bytes(b"")

    with pytest.raises(CheckpointError, match=r"more\.npy is unknown"):
        checkpoint.verify(one.folder)

    (one.folder / "graph" / "more.npy").unlink()
    (one.folder / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"state\.json is missing"):
        checkpoint.verify(one.folder)


def test_a_later_format_is_refused_not_skipped(tmp_path):
    checkpoint.write(tmp_path, fill_with(1), {})
    one = checkpoint.write(tmp_path, fill_with(2), {})
    manifest = json.loads((one.folder / checkpoint.MANIFEST).read_text())
    del manifest["sum"]
    manifest["format"] = 99
    manifest["sum"] = checkpoint._sum(manifest)
    (one.folder / checkpoint.MANIFEST).write_text(json.dumps(manifest))

    with pytest.raises(NewerFormatError, match="has format 99"):
        checkpoint.newest(tmp_path)


def test_a_state_that_cannot_be_written_leaves_what_stood(tmp_path):
    checkpoint.write(tmp_path, fill_with(1), {})

    def full(folder: Path) -> None:
        (folder / "half").write_bytes(b"x")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.write(tmp_path, full, {})

    assert value_in(checkpoint.newest(tmp_path)[0]) == 1
    checkpoint.write(tmp_path, fill_with(3), {})  # sweeps the half-written one away
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001", "00000002"]
