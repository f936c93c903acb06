"""The contract with every reader: which keys there are, and which bytes stand in them.

    upwell:current            STRING  the live embedding space; one write switches all readers
    upwell:spaces             SET     every space that there is
    upwell:{space}:meta       HASH    dim, dtype, schema, step, created_ms, relations (JSON list);
                                      seq: the highest published; epoch: a token of this filling;
                                      filled_ms, live_ms: when it was complete, and last made live
    upwell:{space}:t:<title>  HASH    vec: dim float32, little-endian, without a header
                                      seq: grows with every publish; an older one never wins
                                      step: training step of the weights that made it
                                      time_ms: newest event that it has seen
                                      name: for the eye (may be absent)
    upwell:{space}:updates    STREAM  title, seq, time_ms; gone=1 where the title is retired
    upwell:worker:<id>        STRING  JSON heartbeat, which expires
    upwell:workers            SET     ids of workers that have ever sent one

Numbers are decimal text, times milliseconds since the Unix epoch. `{space}` stands for the id
itself: braces in a key would bind a whole space to one slot of a cluster. A title is there if and
only if its hash has `vec`: a retired one leaves a hash of `seq`, `time_ms` and `gone` for a while,
so that a late write cannot bring it back. Vectors of one space can be compared, of two not.

A title whose id begins with `RESERVED` is no title of the catalogue: the canary's heartbeat. It is
written like any other, and whoever offers titles to people leaves it out.

docs/redis-contract.md says the same to readers in any language.
"""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SCHEMA = 1
DTYPE = np.dtype("<f4")
CURRENT = "upwell:current"
SPACES = "upwell:spaces"
WORKERS = "upwell:workers"
MAX_SEQ = 2**53 - 1  # the server compares in float64, as Lua does
MAX_TITLE_BYTES = 1024
RESERVED = "upwell-canary:"

_SPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_RESERVED = {"worker"}


def meta_key(space: str) -> str:
    return f"upwell:{space}:meta"


def updates_key(space: str) -> str:
    return f"upwell:{space}:updates"


def title_prefix(space: str) -> str:
    """What stands before a title in its key."""
    return f"upwell:{space}:t:"


def title_key(space: str, title: str) -> str:
    return f"upwell:{space}:t:{title}"


def worker_key(worker: str) -> str:
    return f"upwell:worker:{worker}"


def check_space(space: str) -> str:
    """`space`, where it can be a space's id.

    Raises:
        ValueError: it is not 1 to 64 letters, digits, `_`, `.` or `-`, or is reserved.
    """
    if not _SPACE.fullmatch(space) or space in _RESERVED:
        raise ValueError(
            f"space {space!r}: use 1 to 64 letters, digits, '_', '.' or '-', but not 'worker'"
        )
    return space


def encode(vectors: npt.NDArray[np.float32]) -> bytes:
    """The bytes of a vector, or of rows one after the other."""
    return vectors.astype(DTYPE, copy=False).tobytes()


def decode(raw: bytes, dim: int) -> npt.NDArray[np.float32]:
    """The inverse of `encode` for one vector; raises ValueError where `raw` has another length."""
    want = dim * DTYPE.itemsize
    if len(raw) != want:
        raise ValueError(f"a vector of {dim} float32 has {want} bytes, but this has {len(raw)}")
    return np.frombuffer(raw, dtype=DTYPE).astype(np.float32)


def decode_rows(
    raws: Sequence[bytes | None], dim: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Vectors as rows.

    Args:
        raws: `vec` of N titles; None where there is none.

    Returns:
        matrix: shape (N, dim); a row of zeros where there is none.
        found: shape (N,).

    Raises:
        ValueError: one has another length than `dim` says: the row, and both lengths.
    """
    found = np.fromiter((raw is not None for raw in raws), np.bool_, len(raws))
    matrix = np.zeros((len(raws), dim), np.float32)
    blob = b"".join([raw for raw in raws if raw is not None])
    width = dim * DTYPE.itemsize
    if any(len(raw) != width for raw in raws if raw is not None):
        row, length = next(
            (row, len(raw)) for row, raw in enumerate(raws) if raw is not None and len(raw) != width
        )
        raise ValueError(
            f"vector {row} of {len(raws)} has {length} bytes, but {dim} float32 have {width}; "
            "its writer and this space's meta disagree on dim"
        )
    matrix[found] = np.frombuffer(blob, DTYPE).reshape(-1, dim)
    return matrix, found
