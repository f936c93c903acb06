"""Random numbers that depend on seed, row and number of the draw alone: SplitMix64 as a counter.

So the draws are the same however rows are dealt to threads, and any of them can be had alone.

Source: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014.
"""

import numpy as np

from store.jit import inlined
from store.words import single

GOLDEN = 0x9E3779B97F4A7C15


@inlined
def mix(value: int) -> int:
    """64 well-mixed bits of a counter; uint64."""
    x = np.uint64(value)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))  # type: ignore[return-value]


@inlined
def row_key(seed: int, row: int) -> int:
    """The start of a row's counter; uint64."""
    start = np.uint64(mix(np.uint64(seed) + np.uint64(GOLDEN)))
    return mix(start + np.uint64(row) * np.uint64(GOLDEN))


@inlined
def number(key: int, draw: int) -> int:
    """Random bits number `draw` of a row; uint64."""
    return mix(np.uint64(key) + np.uint64(draw + 1) * np.uint64(GOLDEN))


@inlined
def upper(bits: int) -> float:
    """A uniform in [0, 1) of the upper 24 bits; float32."""
    return single(np.int32(np.uint64(bits) >> np.uint64(40))) * single(2.0**-24)


@inlined
def lower(bits: int) -> float:
    """A uniform in [0, 1) of the next 24 bits; float32."""
    part = (np.uint64(bits) >> np.uint64(16)) & np.uint64(0xFFFFFF)
    return single(np.int32(part)) * single(2.0**-24)


@inlined
def onward(bits: int) -> int:
    """Fresh bits of bits that are spent; uint64."""
    return mix(np.uint64(bits) + np.uint64(GOLDEN))
