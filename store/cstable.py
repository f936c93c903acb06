"""Weight index of running sums, a CSTable: the baseline that the FSTable replaced.

Layout at `at`: word `at + slot` is the sum of the weights of the slots 0..slot. A draw is a binary
search (inverse transform sampling); a change moves every sum after it, O(n).

Source: the table of PlatoGL, as described in X. Huang et al., "PlatoD2GL: An Efficient Dynamic Deep
Graph Learning System for Graph Neural Network Training on Billion-Scale Graphs", ICDE 2024.
"""

from store.blocks import Words
from store.jit import step
from store.words import load_float, single, store_float


@step
def get(words: Words, at: int, slot: int) -> float:
    """Weight of a slot."""
    weight = load_float(words, at + slot)
    if slot > 0:
        weight -= load_float(words, at + slot - 1)
    return max(weight, single(0))


@step
def add(words: Words, at: int, count: int, slot: int, change: float) -> None:
    """Add `change` to the weight of a slot."""
    for k in range(at + slot, at + count):
        store_float(words, k, load_float(words, k) + change)


@step
def push(words: Words, at: int, count: int, weight: float) -> None:
    """Append a weight to `count` others."""
    entry = single(weight)
    if count > 0:
        entry += load_float(words, at + count - 1)
    store_float(words, at + count, entry)


@step
def total(words: Words, at: int, count: int) -> float:
    """Sum of `count` weights."""
    return load_float(words, at + count - 1) if count > 0 else single(0)


@step
def pick(words: Words, at: int, count: int, uniform: float) -> int:
    """A slot drawn in proportion to its weight, up to rounding: first sum above the mass."""
    mass = single(uniform) * total(words, at, count)
    low = 0
    left = count
    while left > 1:
        half = left >> 1
        if load_float(words, at + low + half - 1) <= mass:
            low += half
        left -= half
    return low
