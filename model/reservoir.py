"""Pairs of the past, kept for replay: a fair sample over all of time in bounded memory.

Every pair that ever came has the same chance to be in the sample, however long ago it came.

Source: J. Vitter, "Random Sampling with a Reservoir", ACM TOMS 11(1), 1985 (algorithm R).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from model.positives import Positives


class Reservoir:
    """At most `capacity` pairs.

    Attributes:
        seen: pairs that ever came.
        pairs: those that are kept, in no order; replaced by each change, never changed in place.
    """

    def __init__(self, capacity: int, *, seed: int) -> None:
        if capacity < 1:
            raise ValueError(f"reservoir of {capacity} pairs: want at least 1")
        self.capacity = capacity
        self.seen = 0
        self.pairs = Positives.empty()
        self.rng = np.random.default_rng(seed)

    def add(self, more: Positives) -> None:
        """Take in pairs that came later than all before."""
        room = self.capacity - len(self.pairs)
        if room > 0:
            first, more = more[:room], more[room:]
            self.pairs = Positives.join([self.pairs, first])
            self.seen += len(first)
        if not len(more):
            return
        # Pair number s (from 1) takes a random slot of s; it is kept if that slot exists here.
        number = self.seen + 1 + np.arange(len(more))
        slot = np.minimum((self.rng.random(len(more)) * number).astype(np.int64), number - 1)
        self.seen += len(more)
        taken = np.flatnonzero(slot < self.capacity)
        # Of several that take one slot the last stays.
        slots, last = np.unique(slot[taken][::-1], return_index=True)
        rows = taken[::-1][last]
        fields = {}
        for name in ("a", "b", "weight", "time_ms"):
            fields[name] = getattr(self.pairs, name).copy()
            fields[name][slots] = getattr(more, name)[rows]
        self.pairs = Positives(**fields)

    def forget(self, titles: npt.NDArray[np.integer]) -> None:
        """Drop pairs of titles that were retired: their dense ids will mean others."""
        self.pairs = self.pairs.without(titles)

    def restore(self, pairs: Positives, seen: int, rng_state: Mapping[str, Any]) -> None:
        """Go on from what another one held; of more than fit here, a fair sample stays."""
        self.rng.bit_generator.state = rng_state
        if len(pairs) > self.capacity:
            pairs = pairs[np.sort(self.rng.choice(len(pairs), self.capacity, replace=False))]
        self.pairs, self.seen = pairs, seen
