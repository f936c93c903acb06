"""What was played together in the last cycles, fading: what is learnt as being of late.

The pairs of one cycle alone are few, and a poor guess at what is played together these days. So
those of the cycles before still count, each cycle's for less than the next's.

Source: ours.
"""

import numpy as np
import numpy.typing as npt

from model.positives import Positives

FAINT = 0.1  # a cycle whose pairs count for less is forgotten
LEAST = np.finfo(np.float32).tiny  # a weight that fades stays one


class Recent:
    """Pairs of the last cycles.

    Args:
        fade: what a pair counts for in one cycle over what it did in the cycle before; 0: a cycle
            learns from its own pairs only.
        capacity: at most so many pairs are kept, the newest.

    Attributes:
        cycles: pairs of each cycle, the newest first; replaced by each change, never changed.
    """

    def __init__(self, fade: float, capacity: int) -> None:
        self.fade, self.capacity = fade, capacity
        self.cycles: tuple[Positives, ...] = ()

    def faded(self) -> Positives:
        """All of them, oldest first, by what they count for in the cycle to come."""
        counted = [
            Positives(pairs.a, pairs.b, np.maximum(pairs.weight * factor, LEAST), pairs.time_ms)
            for pairs, factor in zip(self.cycles, self._factors(), strict=False)
        ]
        return Positives.join(counted[::-1])

    def add(self, fresh: Positives) -> None:
        """Take in the pairs of a cycle, in time order."""
        self.restore((fresh, *self.cycles))

    def restore(self, cycles: tuple[Positives, ...]) -> None:
        """Go on from what another one held; what does not fit here, or is too faint, is dropped."""
        kept: list[Positives] = []
        room = self.capacity
        for pairs, _ in zip(cycles, self._factors(), strict=False):
            kept.append(pairs[max(len(pairs) - room, 0) :])
            room -= len(kept[-1])
        self.cycles = tuple(kept)

    def forget(self, titles: npt.NDArray[np.integer]) -> None:
        """Drop pairs of titles that were retired: their dense ids will mean others."""
        self.cycles = tuple(pairs.without(titles) for pairs in self.cycles)

    def _factors(self) -> list[np.float32]:
        """Of the last cycle, of the one before, and so on, as long as they are not faint."""
        factors: list[np.float32] = []
        factor = self.fade
        while factor >= FAINT:
            factors.append(np.float32(factor))
            factor *= self.fade
        return factors
