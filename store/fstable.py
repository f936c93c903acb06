"""Weight index as a Fenwick tree, the paper's FSTable: O(log n) to update and to draw.

Layout at `at`: entry j = slot + 1 of the tree at word `at + slot`; it is the sum of the weights of
the slots j - lowbit(j) .. j - 1, where lowbit(j) = j & -j. A weight is a difference of sums in
float32: after many changes it is off by some rounding, 0.4 % after ten million reweights of one
leaf. Where that matters, take store/sums16.py.

Source: the FSTable and its sampling (FTS) are from X. Huang et al., "PlatoD2GL: An Efficient
Dynamic Deep Graph Learning System for Graph Neural Network Training on Billion-Scale Graphs",
ICDE 2024; the tree from P. M. Fenwick, "A new data structure for cumulative frequency tables",
Software: Practice and Experience 24(3), 1994.
"""

from store.blocks import Words
from store.jit import step
from store.words import load_float, single, store_float


@step
def get(words: Words, at: int, slot: int) -> float:
    """Weight of a slot."""
    j = slot + 1
    stop = j - (j & -j)
    weight = load_float(words, at + slot)
    k = j - 1
    while k > stop:
        weight -= load_float(words, at + k - 1)
        k -= k & -k
    return max(weight, single(0))


@step
def add(words: Words, at: int, count: int, slot: int, change: float) -> None:
    """Add `change` to the weight of a slot."""
    j = slot + 1
    while j <= count:
        store_float(words, at + j - 1, load_float(words, at + j - 1) + change)
        j += j & -j


@step
def push(words: Words, at: int, count: int, weight: float) -> None:
    """Append a weight to `count` others."""
    j = count + 1
    stop = j - (j & -j)
    k = j - 1
    entry = single(weight)
    while k > stop:
        entry += load_float(words, at + k - 1)
        k -= k & -k
    store_float(words, at + count, entry)


@step
def total(words: Words, at: int, count: int) -> float:
    """Sum of `count` weights."""
    result = single(0)
    k = count
    while k > 0:
        result += load_float(words, at + k - 1)
        k -= k & -k
    return result


@step
def pick(words: Words, at: int, count: int, uniform: float) -> int:
    """A slot drawn in proportion to its weight, up to rounding: descend the tree (FTS)."""
    mass = single(uniform) * total(words, at, count)
    step = 1
    while step * 2 <= count:
        step *= 2
    position = 0  # slots known to lie wholly below `mass`
    while step > 0:
        ahead = position + step
        if ahead <= count:
            entry = load_float(words, at + ahead - 1)
            if entry <= mass:
                position = ahead
                mass -= entry
        step >>= 1
    return min(position, count - 1)
