"""Damage to checkpoint files: each cut and each flipped bit is found, and the one before is used.

Two checkpoints of different states are written as a worker writes them. Then one file of the newer
one is damaged at a time: cut at a random byte, or with one to eight bits flipped. Files are drawn
evenly, so that small ones (the manifest, the table of names) are hit as often as large ones. What
counts is what a worker does: `load_snapshot` on the folder must give the older state, and say why.
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from streams import checkpoint
from streams.settings import GraphSettings
from streams.snapshot import load_snapshot, save_snapshot
from tests.faults.feed import Progress
from tests.faults.rig import first_checkpoint

TITLES = 50
OLD, NEW = 41, 42  # the seq that tells one state from the other
KINDS: Final = ("cut", "flip", "flip many", "emptied", "grown", "gone")


@dataclass(slots=True)
class Outcome:
    """`undetected`: damage after which the newer state was loaded, or the older one was not."""

    corruptions: int = 0
    undetected: int = 0
    harmless: int = 0
    files: int = 0
    wrong: list[str] = field(default_factory=list)


def run(folder: Path, *, seed: int, corruptions: int, progress: Progress) -> Outcome:
    """Damage the newer of two checkpoints `corruptions` times, each time in one place."""
    rng = np.random.default_rng(seed)
    outcome = Outcome()
    root = folder / "checkpoints"
    newer = _two_checkpoints(root)
    files = sorted(path for path in newer.rglob("*") if path.is_file())
    outcome.files = len(files)
    noise = logging.getLogger("streams.snapshot")
    level, noise.level = noise.level, logging.CRITICAL
    try:
        while outcome.corruptions < corruptions:
            path = files[int(rng.integers(len(files)))]
            kind = str(rng.choice(KINDS[:2] if rng.random() < 0.8 else KINDS[2:]))
            good = path.read_bytes()
            bad = _damaged(good, kind, rng)
            if bad == good or (path.name == checkpoint.MANIFEST and _says_the_same(good, bad)):
                outcome.harmless += 1
                continue
            if bad is None:
                path.unlink()
            else:
                path.write_bytes(bad)
            outcome.corruptions += 1
            if why := _loaded_wrongly(root):
                outcome.undetected += 1
                outcome.wrong.append(f"{path.relative_to(newer)}, {kind}: {why}")
            path.write_bytes(good)
            if outcome.corruptions % 50 == 0:
                progress("corruption", outcome.corruptions, corruptions, "")
    finally:
        noise.level = level
    if load_snapshot(root, GraphSettings()).state.seq != NEW:
        outcome.wrong.append("mended, the newer checkpoint is not loaded")
    return outcome


def _two_checkpoints(root: Path) -> Path:
    """Write both; returns the folder of the newer."""
    first_checkpoint(root, TITLES)
    snapshot = load_snapshot(root, GraphSettings())
    for seq in (OLD, NEW):
        snapshot.state.seq = seq
        save_snapshot(root, snapshot, keep=2)
    return max(path for path in root.iterdir() if path.name.isdigit())


def _damaged(good: bytes, kind: str, rng: np.random.Generator) -> bytes | None:
    """The file after the damage; None: it is gone."""
    if kind == "gone":
        return None
    if kind == "emptied" or not good:
        return b""
    if kind == "grown":
        return good + bytes(rng.integers(0, 256, int(rng.integers(1, 64)), np.uint8))
    if kind == "cut":
        return good[: int(rng.integers(len(good)))]
    bad = bytearray(good)
    for _ in range(1 if kind == "flip" else int(rng.integers(2, 9))):
        bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
    return bytes(bad)


def _loaded_wrongly(root: Path) -> str:
    """Empty where the older state is loaded."""
    try:
        found = load_snapshot(root, GraphSettings())
    except Exception as error:  # noqa: BLE001 -- a worker would not start: whatever it is, it counts
        return f"{type(error).__name__}: {error}"
    return "" if found.state.seq == OLD else f"seq {found.state.seq} was loaded"


def _says_the_same(good: bytes, bad: bytes | None) -> bool:
    """White space, or a number of the same value: such a manifest is whole for all that it says."""
    try:
        return bad is not None and json.loads(good) == json.loads(bad)
    except ValueError:
        return False
