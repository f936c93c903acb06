"""Forward decay: old edges fade, and no edge is touched for it.

A weight that enters at time t is stored as w * 2**((t - t0) / half-life): instead of all old
weights shrinking, new ones grow. Draws see ratios only. What is read is scaled back to the newest
time that the graph has seen. Before the numbers grow too large, the landmark t0 moves on by whole
half-lives: all weights are multiplied by a power of two, which float32 does exactly.

Source: G. Cormode, V. Shkapenyuk, D. Srivastava, B. Xu, "Forward decay: A practical time decay
model for streaming systems", ICDE 2009.
"""

import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

MOST = 24  # half-lives that the newest event may be past the landmark: 2**24 is still a fine weight
FAR = 96  # half-lives by which an event may precede the landmark before it counts as nothing


class Clock:
    """Event time of a graph whose edges fade.

    Args:
        half_life_s: seconds in which a weight halves.

    Attributes:
        half_life_ms: the same in milliseconds.
        landmark_ms: weights are stored as of this time; None before the first event.
        now_ms: the newest event time seen.

    Raises:
        ValueError: the half-life is not above 0, or below a millisecond.
    """

    def __init__(self, half_life_s: float) -> None:
        if not 0.001 <= half_life_s < 1e12:
            raise ValueError(f"half_life_s is {half_life_s}: want seconds, 0.001 or more")
        self.half_life_ms = round(half_life_s * 1000)
        self.landmark_ms: int | None = None
        self.now_ms: int | None = None

    def advance(self, time_ms: Longs) -> int:
        """See new events; returns by how many half-lives the landmark moves.

        The caller multiplies all stored weights by 2 to the minus that.
        """
        if not len(time_ms):
            return 0
        newest = int(time_ms.max())
        if self.landmark_ms is None or self.now_ms is None:
            # A whole number of half-lives since the epoch: the same for any batches.
            self.landmark_ms = newest // self.half_life_ms * self.half_life_ms
            self.now_ms = newest
            return 0
        self.now_ms = max(self.now_ms, newest)
        ahead = (self.now_ms - self.landmark_ms) // self.half_life_ms
        if ahead <= MOST:
            return 0
        self.landmark_ms += ahead * self.half_life_ms
        return ahead

    def grow(self, weights: Floats, time_ms: Longs) -> Floats:
        """Weights of events as they are stored, shape (E,)."""
        whole, rest = np.divmod(time_ms - (self.landmark_ms or 0), self.half_life_ms)
        # The fraction is taken alone: so it is the same, bit by bit, for any landmark.
        grown = weights * np.exp2(rest / self.half_life_ms).astype(np.float32)
        return np.ldexp(grown, np.clip(whole, -FAR, FAR).astype(np.int32)).astype(np.float32)

    def today(self) -> np.float32:
        """What stored weights are multiplied by, to be as of `now_ms`."""
        if self.landmark_ms is None or self.now_ms is None:
            return np.float32(1)
        return np.float32(2.0 ** ((self.landmark_ms - self.now_ms) / self.half_life_ms))
