"""What a batch must be before any of it is applied."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from store.edges import EdgeBatch, Op

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

if TYPE_CHECKING:
    from store.graph import DynamicGraph


def check_batch(graph: "DynamicGraph", batch: EdgeBatch) -> None:
    """Look at every row.

    Raises:
        ValueError: names the first row of the first fault, and its value.
    """
    count = len(graph.relations)
    _refuse(
        (batch.relation < 0) | (batch.relation >= count),
        "relation",
        batch.relation,
        f"the graph has relations 0..{count - 1}",
    )
    _refuse(batch.op > max(Op), "op", batch.op, f"want {', '.join(f'{op} {op.name}' for op in Op)}")
    _check_weights(batch.weight)
    present = np.unique(batch.relation).tolist()
    for number in present:
        here = batch.relation == number if len(present) > 1 else None
        _check_ends(graph, number, batch.head, batch.tail, here)


def check_columns(
    graph: "DynamicGraph", number: int, heads: Ints, tails: Ints, weights: Floats
) -> None:
    """As `check_batch`, for edges of one relation.

    Raises:
        ValueError: names the first row of the first fault, and its value.
    """
    if not len(heads) == len(tails) == len(weights) or weights.ndim != 1:
        raise ValueError(
            f"{len(heads)} heads, {len(tails)} tails and weights of shape {weights.shape}"
        )
    _check_weights(weights)
    _check_ends(graph, number, heads, tails, None)


def _check_weights(weights: Floats) -> None:
    bad = ~(weights >= 0) | np.isinf(weights)
    _refuse(bad, "weight", weights, "want a finite weight >= 0")


def _check_ends(
    graph: "DynamicGraph",
    number: int,
    heads: Ints,
    tails: Ints,
    here: npt.NDArray[np.bool_] | None,
) -> None:
    relation = graph.relations[number]
    for name, column, kind in (("head", heads, relation.head), ("tail", tails, relation.tail)):
        table = graph.ids[kind]
        bad = ~table.is_live(column)
        want = f"relation {relation.name!r} wants a live {kind!r}, below {table.capacity}"
        _refuse(bad if here is None else bad & here, name, column, want)


def _refuse(
    bad: npt.NDArray[np.bool_], name: str, column: npt.NDArray[np.generic], want: str
) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        more = int(np.count_nonzero(bad))
        raise ValueError(f"{name}[{row}] is {column[row]} ({more} such): {want}")
