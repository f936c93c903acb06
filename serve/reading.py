"""What a reader asks and how it understands the answer, without a connection: for all readers.

There are two ways to ask for the same. The publisher's server-side function answers for a hundred
titles in four strings, which Python reads several times faster than a hundred arrays; plain
commands serve where the function is not there or not granted. Either way one round trip also brings
the live space and its epoch, so that a reader sees afterwards whether its answer is of the live
space.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serve import script, vectors

Command = tuple[Any, ...]


class Versions(NamedTuple):
    """Where each vector of a batch comes from. Where nothing was found, the number is -1.

    seq: of the publish that wrote it, shape (N,).
    step: training step of the weights that made it, shape (N,).
    time_ms: newest event that it has seen, shape (N,).
    """

    space: str
    seq: npt.NDArray[np.int64]
    step: npt.NDArray[np.int64]
    time_ms: npt.NDArray[np.int64]


class Batch(NamedTuple):
    """Vectors of N titles, all of one space.

    matrix: shape (N, dim); zeros where there is none.
    found: shape (N,).
    """

    matrix: npt.NDArray[np.float32]
    found: npt.NDArray[np.bool_]
    versions: Versions


class Live(NamedTuple):
    """The space that a reader reads: one filling (`epoch`) of it."""

    space: str
    epoch: bytes
    dim: int


class Answer(NamedTuple):
    """A batch, and the live space and epoch as they stood then (None: there was none).

    batch: None where the epoch is not the one that was asked for: the space was made anew.
    """

    current: bytes | None
    epoch: bytes | None
    batch: Batch | None

    def valid(self, live: Live, *, pinned: bool) -> Batch | None:
        """The batch, where what was read is still what is to be read: else ask anew."""
        same = pinned or self.current == live.space.encode()
        return self.batch if same else None


def live_of(space: str, meta: Sequence[bytes | None]) -> Live | None:
    """From the answer to `HMGET meta epoch dim`; None where the space does not exist."""
    epoch, dim = meta
    return None if epoch is None or dim is None else Live(space, epoch, int(dim))


def one_command(live: Live, titles: Sequence[str]) -> Command:
    """The read in one call of the server-side function."""
    prefix = vectors.title_prefix(live.space)
    keys = [prefix + title for title in titles]
    own = (vectors.meta_key(live.space), vectors.CURRENT)
    return ("FCALL_RO", script.GET_FUNCTION, len(keys) + 2, *keys, *own)


def parse_one(answer: Sequence[Any], live: Live, count: int) -> Answer | None:
    """The answer to `one_command`; None where a vector has another length than `dim` says."""
    current, epoch, blob, text = answer
    if epoch != live.epoch:
        return Answer(current, epoch, None)
    lines = text.split(b"\n") if count else []
    found = np.fromiter(map(bool, lines), np.bool_, count)
    written = np.array(text.split(), np.int64).reshape(-1, 4)
    if (written[:, 3] != live.dim * vectors.DTYPE.itemsize).any():
        return None
    matrix = np.zeros((count, live.dim), np.float32)
    matrix[found] = np.frombuffer(blob, vectors.DTYPE).reshape(-1, live.dim)
    numbers = np.full((count, 3), -1, np.int64)
    numbers[found] = written[:, :3]
    return Answer(current, epoch, _batch(matrix, found, numbers, live))


def plain_commands(live: Live, titles: Sequence[str]) -> list[Command]:
    """The read in commands that every server knows; the live space last, see `EmbeddingReader`."""
    prefix = vectors.title_prefix(live.space)
    return [
        *(("HMGET", prefix + title, "vec", "seq", "step", "time_ms") for title in titles),
        ("HGET", vectors.meta_key(live.space), "epoch"),
        ("GET", vectors.CURRENT),
    ]


def parse_plain(answers: Sequence[Any], live: Live) -> Answer:
    """The answers to `plain_commands`; raises ValueError where a vector has a wrong length."""
    *hashes, epoch, current = answers
    if epoch != live.epoch:
        return Answer(current, epoch, None)
    matrix, found = vectors.decode_rows([fields[0] for fields in hashes], live.dim)
    numbers = np.full((len(hashes), 3), -1, np.int64)
    for row in np.flatnonzero(found).tolist():
        numbers[row] = [int(number) for number in hashes[row][1:]]
    return Answer(current, epoch, _batch(matrix, found, numbers, live))


def _batch(
    matrix: npt.NDArray[np.float32],
    found: npt.NDArray[np.bool_],
    numbers: npt.NDArray[np.int64],
    live: Live,
) -> Batch:
    versions = Versions(live.space, numbers[:, 0], numbers[:, 1], numbers[:, 2])
    return Batch(matrix, found, versions)
