"""Parts that know their titles by name.

A dense id is given out again once its title is retired, and a graph that is built anew numbers its
titles as they come. A cut that outlives a moment, in memory or in a checkpoint, goes by names.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from partition.mincut import Partition
from partition.neighbourhood import vertices
from store.graph import DynamicGraph


@dataclass(frozen=True, slots=True)
class NamedParts:
    """A partition, and whose parts they are.

    Attributes:
        titles: name of each dense id when the partition was made, "" where none was live.
    """

    partition: Partition
    titles: list[str]

    @classmethod
    def of(cls, graph: DynamicGraph, partition: Partition) -> "NamedParts":
        """Of the dense ids that `graph` has now."""
        return cls(partition, dense_names(graph, "title"))

    def on(self, graph: DynamicGraph) -> Partition:
        """The same parts by the dense ids that `graph` has now; a title that is new has none."""
        now = dense_names(graph, "title")
        if now == self.titles:
            return self.partition
        rows = rows_of(self.titles, now)
        part = np.full(len(now), -1, np.int32)
        part[rows >= 0] = self.partition.part[rows[rows >= 0]]
        return replace(self.partition, part=part)


def rows_of(old: list[str], new: list[str]) -> npt.NDArray[np.int64]:
    """Where each name of `new` stands in `old`, -1 where it does not, or is ""; shape (N,)."""
    at = {name: row for row, name in enumerate(old) if name}
    return np.array([at.get(name, -1) for name in new], np.int64)


def dense_names(graph: DynamicGraph, vertex_type: str) -> list[str]:
    """Name of each dense id, "" where a slot is free."""
    table = vertices(graph, vertex_type)
    live = table.live_ids()
    names = [""] * table.capacity
    for row, name in zip(live.tolist(), table.names(live), strict=True):
        names[row] = name
    return names
