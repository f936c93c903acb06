"""The questions of a window, and the rank that a scorer gives to each answer.

    E1   from the play just before, which title comes next?
    E2   from all plays that it pairs with, their scores' mean, which title comes next?

The partners of a play are the plays that it makes co-plays with: of the same user, not long before.
Candidates are the titles of the catalogue, less those that the user has played already. A title
that nobody had played when the window began is *strict-cold*; it is also ranked apart, among its
like. Ties count half (model/quality.py).

Shape suffixes: Q questions, T titles of the stream.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from model.evaluation.stream import Int64s, Stream
from model.evaluation.world import World

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

CHUNK = 512  # questions scored at once
COOL = 10  # a title with fewer plays is cool

# From a matrix that mixes titles, shape (Q, T), rows summing to 1, to scores, shape (Q, T).
Scorer = Callable[[sparse.csr_array], Float32s]


@dataclass(frozen=True, slots=True)
class Questions:
    """Those of one window.

    Attributes:
        row: row of the play, shape (Q,).
        user, target: who played what, shape (Q,).
        first: E1: the title of the play before, as a mix, (Q, T).
        mean: E2: likewise of all partners.
        seen: 1 where the user has played a title before, (Q, T).
        plays: of the target before the window, shape (Q,).
    """

    row: Int64s
    user: Int64s
    target: Int64s
    first: sparse.csr_array
    mean: sparse.csr_array
    seen: sparse.csr_array
    plays: Int64s

    def __len__(self) -> int:
        return len(self.row)


class Asker:
    """Makes the questions of one window after the other, and remembers who has played what."""

    def __init__(self, stream: Stream, *, most: int, seed: int) -> None:
        """Start before the first play.

        Args:
            most: questions a window; of more, as many are drawn. Those for strict-cold titles stay.
            seed: of that draw.
        """
        self._stream = stream
        self._most = most
        self._rng = np.random.default_rng(seed)
        order = np.lexsort((np.arange(len(stream)), stream.users))
        self._order = order
        self._place = np.empty(len(stream), np.int64)
        self._place[order] = np.arange(len(stream))
        self._start = np.searchsorted(stream.users[order], stream.users)

    def ask(self, rows: slice, world: World) -> Questions:
        """The questions of the plays `rows`, as the world stands before them."""
        stream = self._stream
        low, high = np.searchsorted(stream.pair_row, [rows.start, rows.stop])
        row, at, count = np.unique(stream.pair_row[low:high], return_index=True, return_counts=True)
        plays = world.plays_T[stream.plays[row]]
        if len(row) > self._most:
            keep = plays == 0
            warm = np.flatnonzero(~keep)
            drawn = self._rng.choice(warm, min(self._most, len(warm)), replace=False)
            keep[drawn] = True
            row, at, count, plays = row[keep], at[keep], count[keep], plays[keep]
        shape = (len(row), len(stream.titles))
        each = np.repeat(np.arange(len(row)), count)
        offset = np.arange(len(each)) - np.repeat(np.cumsum(count) - count, count)
        partner = stream.pair_earlier[low + np.repeat(at, count) + offset]
        share = np.repeat(1.0 / np.maximum(count, 1), count).astype(np.float32)
        ones = np.ones(len(row), np.float32)
        first = sparse.coo_array(
            (ones, (np.arange(len(row)), stream.pair_earlier[low + at])), shape
        )
        mean = sparse.coo_array((share, (each, partner)), shape)
        return Questions(
            row,
            stream.users[row],
            stream.plays[row],
            sparse.csr_array(first),
            sparse.csr_array(mean),
            self._seen(row, shape),
            plays,
        )

    def _seen(self, row: Int64s, shape: tuple[int, int]) -> sparse.csr_array:
        """What the user of each play had played before it, in this window too."""
        start, place = self._start[row], self._place[row]
        count = place - start
        each = np.repeat(np.arange(len(row)), count)
        offset = np.arange(len(each)) - np.repeat(np.cumsum(count) - count, count)
        titles = self._stream.plays[self._order[np.repeat(start, count) + offset]]
        ones = np.ones(len(each), np.float32)
        return sparse.csr_array(sparse.coo_array((ones, (each, titles)), shape))


@dataclass(frozen=True, slots=True)
class Answers:
    """Ranks, from 1, shape (Q,) or, of the cold pool, (Q0,): one a question for a cold title.

    Attributes:
        e1, e2: among the catalogue.
        cold: which questions are for strict-cold titles, shape (Q0,).
        cold_rank: E2 among the cold titles of the catalogue.
        cold_pool: how many those were.
    """

    e1: Float64s
    e2: Float64s
    cold: Int64s
    cold_rank: Float64s
    cold_pool: Float64s


def answer(questions: Questions, scorer: Scorer, known_T: Bools, plays_T: Int64s) -> Answers:
    """Rank the targets of all questions.

    Args:
        known_T: titles in the catalogue: the candidates.
        plays_T: plays of each before the window.
    """
    pool_T = known_T & (plays_T == 0)
    e1, e2 = np.empty(len(questions)), np.empty(len(questions))
    cold = np.flatnonzero(questions.plays == 0)
    cold_rank, cold_pool = np.empty(len(questions)), np.empty(len(questions))
    for start in range(0, len(questions), CHUNK):
        part = slice(start, start + CHUNK)
        target, seen = questions.target[part], questions.seen[part]
        e1[part], _ = _ranks(scorer(questions.first[part]), target, seen, known_T)
        scores = scorer(questions.mean[part])
        e2[part], _ = _ranks(scores, target, seen, known_T)
        here = np.flatnonzero(questions.plays[part] == 0)
        if len(here):
            found = _ranks(scores[here], target[here], seen[here], pool_T)
            cold_rank[start + here], cold_pool[start + here] = found
    return Answers(e1, e2, cold, cold_rank[cold], cold_pool[cold])


def _ranks(
    scores_QT: Float32s, target: Int64s, seen: sparse.csr_array, among_T: Bools
) -> tuple[Float64s, Float64s]:
    """Expected rank of each target among the titles in `among_T` and itself, and their number."""
    row = np.arange(len(target))
    wanted_Q = scores_QT[row, target].copy()
    # Counted over all, less what is out: a mask of all pairs would cost more than the scores.
    inside_QT = scores_QT[:, among_T]
    above = (inside_QT > wanted_Q[:, None]).sum(1)
    level = (inside_QT == wanted_Q[:, None]).sum(1) - among_T[target]
    out, title = seen.nonzero()
    there = among_T[title] & (title != target[out])
    out, score = out[there], scores_QT[out[there], title[there]]
    count = len(target)
    above -= np.bincount(out[score > wanted_Q[out]], minlength=count)
    level -= np.bincount(out[score == wanted_Q[out]], minlength=count)
    others = int(among_T.sum()) - among_T[target] - np.bincount(out, minlength=count)
    rank: Float64s = 1.0 + above + level / 2.0
    return rank, (1 + others).astype(np.float64)
