"""Keep parts of equal size: deal titles that nothing binds, and move some out of a part too large.

A part may hold `largest(titles, parts)` titles: `SLACK` above the mean, and in small graphs always
the mean rounded up, without which no partition would do.
"""

import numpy as np
import numpy.typing as npt

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]

SLACK = 0.03


def largest(titles: int, num_parts: int, slack: float = SLACK) -> int:
    """How many of `titles` one part may hold."""
    return max(-(-titles // num_parts), int(titles / num_parts * (1 + slack)))


def balance_of(part: Int32s, num_parts: int) -> float:
    """Size of the largest part over the mean size; 1 where there is no title.

    Args:
        part: part of each title, -1: none, shape (T,).
    """
    sizes = np.bincount(part[part >= 0], minlength=num_parts)
    return float(sizes.max() * num_parts / sizes.sum()) if sizes.sum() else 1.0


def deal(sizes: npt.NDArray[np.integer], count: int, seed: int) -> Int32s:
    """Parts for `count` more titles, at random; the smallest parts are filled first.

    Args:
        sizes: titles that each part has already.
    """
    rng = np.random.default_rng(seed)
    low, high = int(sizes.min()), int(sizes.max()) + count  # the level that all can be filled to
    while low < high:
        level = (low + high + 1) // 2
        if int(np.maximum(level - sizes, 0).sum()) <= count:
            low = level
        else:
            high = level - 1
    room = np.maximum(low - sizes, 0)
    left = count - int(room.sum())
    room[rng.permutation(np.flatnonzero(sizes <= low))[:left]] += 1
    return rng.permutation(np.repeat(np.arange(len(sizes), dtype=np.int32), room)).astype(np.int32)


def bonds(
    rows: npt.NDArray[np.integer], others: Int32s, weights: Float32s, count: int, num_parts: int
) -> Float32s:
    """Weight that binds each of `count` titles to each part, shape (count, K).

    Args:
        rows: which of the titles an edge is at, 0..count - 1, shape (E,).
        others: part of the edge's other end, -1: none, shape (E,).
        weights: shape (E,).
    """
    known = others >= 0
    cell = rows[known].astype(np.int64) * num_parts + others[known]
    summed = np.bincount(cell, weights[known], minlength=count * num_parts)
    return summed.reshape(count, num_parts).astype(np.float32)


def level(bond: Float32s, part: Int32s, sizes: Int64s, limit: int) -> Int32s:
    """New parts of the titles so that no part is above `limit`; moves as little as it can.

    Of a part that is too large those go whose move costs least, each to the part, among those with
    room, that it is bound to most.

    Args:
        bond: of each title that may move to each part, shape (N, K).
        part: where it is, shape (N,).
        sizes: titles that each part has, movable or not, shape (K,); left as it is.
        limit: a size that all titles fit in.
    """
    part, sizes = part.copy(), sizes.copy()
    here = np.arange(len(part))
    for full in np.flatnonzero(sizes > limit).tolist():
        at = here[part == full]
        best = np.where(np.arange(len(sizes)) == full, -np.inf, bond[at]).max(1, initial=-np.inf)
        cost = bond[at, full] - best
        for title in at[np.argsort(cost, kind="stable")][: int(sizes[full] - limit)].tolist():
            room = sizes < limit
            if not room.any():
                break
            # Among parts that bind it alike, the one with the most room.
            wish = np.where(room, bond[title], -np.inf)
            to = int(np.lexsort((sizes, -wish))[0])
            part[title] = to
            sizes[to] += 1
            sizes[full] -= 1
    return part
