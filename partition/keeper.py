"""Keeps the cut that training works on: follows the graph, and has the cut made anew in time.

Before a cycle every live title has a part (partition/streaming.py). After it, what the parts keep
is measured against what they kept when they were cut; where a set share of that is lost, a new cut
starts in another process, on a copy of the co-plays, and a later cycle's end switches over to it.
Between two calls titles may come and go: what is kept goes by names (partition/named.py).
"""

import logging
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt

from partition.balance import balance_of
from partition.mincut import Cutter, Partition, coplay_edges, cut_edges
from partition.named import NamedParts, dense_names
from partition.neighbourhood import vertices
from partition.recut import CutFailed, Recut
from partition.streaming import follow, kept_share
from store.graph import DynamicGraph

log = logging.getLogger(__name__)

Lock = AbstractContextManager[object]

SMALL = 100_000  # co-plays that are cut faster than a process starts


class Keeper:
    """One thread calls.

    Args:
        num_parts: >= 1.
        cutter, threads: see `cut_edges`.
        recut_loss: share of the weight kept at the cut whose loss asks for a new one.

    Attributes:
        parts: those in force; replaced, never changed; None before the first `prepare`, and where
            there is but one.
        kept: share of the co-play weight inside parts when it was last measured.
        cuts: cuts made so far.
    """

    def __init__(
        self,
        num_parts: int,
        *,
        cutter: Cutter = "auto",
        threads: int = 1,
        recut_loss: float = 0.1,
    ) -> None:
        self.num_parts, self.cutter, self.threads = num_parts, cutter, threads
        self.recut_loss = recut_loss
        self.parts: NamedParts | None = None
        self.kept = 1.0
        self.cuts = 0
        self._recut: Recut | None = None
        self._recut_titles: list[str] = []  # by dense id, as the cut under way has them

    def prepare(
        self, graph: DynamicGraph, lock: Lock, touched: npt.NDArray[np.integer], *, seed: int
    ) -> Partition:
        """The parts for a cycle: the first call cuts, later ones follow.

        Args:
            touched: titles whose edges changed since the last call.
            seed: of a cut, and of the deal.

        Raises:
            CutFailed: the first cut did not end.
        """
        if self.num_parts == 1:
            with lock:
                return _undivided(graph)
        if self.parts is None:
            with lock:
                edges, titles = coplay_edges(graph), dense_names(graph, "title")
            if len(edges.heads) <= 2 * SMALL:
                made = cut_edges(
                    edges, self.num_parts, seed=seed, cutter=self.cutter, threads=self.threads
                )
            else:
                made = Recut(
                    edges, self.num_parts, seed=seed, cutter=self.cutter, threads=self.threads
                ).result()
            self.parts = NamedParts(made, titles)
            self.kept = made.kept_weight
            self.cuts += 1
        else:
            with lock:
                known = self.parts.on(graph)
                followed = follow(graph, known, touched, seed=seed).partition
                self.parts = NamedParts.of(graph, followed)
        return self.parts.partition

    def settle(self, graph: DynamicGraph, lock: Lock, *, seed: int) -> bool:
        """At a cycle's end: take over a cut that is done, or see whether one is due.

        A cut that failed is told of, and asked for again.

        Returns:
            Whether the parts were switched.
        """
        if self.num_parts == 1 or self.parts is None:
            return False
        if self._recut is not None:
            return self._recut.done and self._take_over(self._recut)
        with lock:
            now = self.parts.on(graph)
            self.kept = kept_share(graph, now.part)
        if self.kept < now.kept_weight * (1 - self.recut_loss):
            with lock:
                edges, self._recut_titles = coplay_edges(graph), dense_names(graph, "title")
            self._recut = Recut(
                edges, self.num_parts, seed=seed, cutter=self.cutter, threads=self.threads
            )
        return False

    def close(self) -> None:
        """Stop a cut that is under way."""
        if self._recut is not None:
            self._recut.stop()
            self._recut = None

    def _take_over(self, recut: Recut) -> bool:
        self._recut = None
        try:
            made = recut.result()
        except (CutFailed, OSError, ValueError) as error:
            log.warning("no new cut, the old one stays: %s", error)
            return False
        was, self.parts = self.kept, NamedParts(made, self._recut_titles)
        self.kept = made.kept_weight
        self.cuts += 1
        log.info("new cut: it keeps %.3f of the co-play weight, the old one %.3f", self.kept, was)
        return True


def _undivided(graph: DynamicGraph) -> Partition:
    titles = vertices(graph, "title")
    part = np.full(titles.capacity, -1, np.int32)
    part[titles.live_ids()] = 0
    return Partition(part, 1, 1.0, balance_of(part, 1), 0.0)
