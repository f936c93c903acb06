"""Vectors on a plane: neighbours stay neighbours, as far as two dimensions allow.

A k-nearest-neighbour graph by cosine, drawn by forces: along its edges titles attract each other,
and each is pushed away by some others that are drawn at random. It begins with the two directions
of largest variance. Distances between far groups, and the axes, mean nothing.

Source: Tang et al.: Visualizing large-scale and high-dimensional data (LargeVis), WWW 2016, with
the kernel 1 / (1 + d^2). We move all points at once, each by the mean of its forces.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_PUSH = 30.0  # weight of being pushed: the more, the wider apart are the groups
_BLOCK = 1024  # rows whose cosines stand in memory at once


def plane(
    vectors_TD: Floats,
    *,
    seed: int,
    neighbours: int = 12,
    pushes: int = 8,
    rounds: int = 400,
) -> Floats:
    """Places on the plane, shape (T, 2), centred.

    Args:
        vectors_TD: shape (T, D); only directions count.
        neighbours: edges of each title.
        pushes: titles that push each title away, drawn anew each round.
    """
    count = len(vectors_TD)
    unit = vectors_TD / np.maximum(np.linalg.norm(vectors_TD, axis=1, keepdims=True), 1e-12)
    if count < 3:
        return np.stack([np.arange(count), np.zeros(count)], 1).astype(np.float32)
    place = _principal(unit)
    head, tail = _edges(unit, min(neighbours, count - 1))
    degree = np.maximum(np.bincount(head, minlength=count), 1)[:, None]
    rng = np.random.default_rng(seed)
    rows = np.repeat(np.arange(count), pushes)
    for done in range(rounds):
        pull = place[tail] - place[head]
        pull /= 1.0 + (pull**2).sum(1, keepdims=True)
        push = place[rows] - place[rng.integers(count, size=len(rows))]
        square = (push**2).sum(1, keepdims=True)
        push /= (0.05 + square) * (1.0 + square)
        force = _sums(head, pull, count) / degree + _PUSH * _sums(rows, push, count) / pushes
        length = np.linalg.norm(force, axis=1, keepdims=True)
        force *= np.minimum(1.0, 1.0 / np.maximum(length, 1e-12))
        place += (2.0 * (1.0 - done / rounds) * force).astype(np.float32)
    place -= place.mean(0)
    return place


def _principal(unit: Floats) -> Floats:
    """The two directions of largest variance, spread to about 10 units, shape (T, 2)."""
    centred = unit - unit.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    first = vectors[:, ::-1][:, :2]
    # The sign of an eigenvector is arbitrary: let its largest entry be positive.
    first = first * np.sign(first[np.abs(first).argmax(0), np.arange(first.shape[1])])
    place = np.zeros((len(unit), 2), np.float32)
    place[:, : first.shape[1]] = centred @ first
    return (10.0 * place / max(float(np.abs(place).max(initial=0.0)), 1e-6)).astype(np.float32)


def _edges(unit: Floats, k: int) -> tuple[Ints, Ints]:
    """Each title with its `k` nearest, both ways; a pair that is near both ways stands twice."""
    near = np.empty((len(unit), k), np.int64)
    for start in range(0, len(unit), _BLOCK):
        cosine = unit[start : start + _BLOCK] @ unit.T
        rows = np.arange(len(cosine))
        cosine[rows, start + rows] = -np.inf
        near[start : start + _BLOCK] = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
    head, tail = np.repeat(np.arange(len(unit)), k), near.ravel()
    return np.concatenate([head, tail]), np.concatenate([tail, head])


def _sums(rows: Ints, values: Floats, count: int) -> npt.NDArray[np.float64]:
    """The sum of `values` by row, shape (count, 2)."""
    return np.stack([np.bincount(rows, values[:, axis], count) for axis in (0, 1)], 1)
