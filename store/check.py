"""What a batch must be before any of it is applied."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from store.edges import EdgeBatch, Op

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
    _refuse(
        ~(batch.weight >= 0) | np.isinf(batch.weight),
        "weight",
        batch.weight,
        "want a finite weight >= 0",
    )
    for number in np.unique(batch.relation).tolist():
        relation = graph.relations[number]
        here = batch.relation == number
        for name, column, vertex_type in (
            ("head", batch.head, relation.head),
            ("tail", batch.tail, relation.tail),
        ):
            table = graph.ids[vertex_type]
            _refuse(
                here & ~table.is_live(column),
                name,
                column,
                f"relation {relation.name!r} wants a live {vertex_type!r}, below {table.capacity}",
            )


def _refuse(
    bad: npt.NDArray[np.bool_], name: str, column: npt.NDArray[np.generic], want: str
) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        more = int(np.count_nonzero(bad))
        raise ValueError(f"{name}[{row}] is {column[row]} ({more} such): {want}")
