"""Link prediction over the stream, frozen against live embeddings: predict, then ingest.

A play is predicted from the play that the same user made just before it: all titles are ranked by
the dot product of their vector with that title's, less those that the user has played already. The
live vectors are read from Redis before the play is sent to Kafka, so that they cannot have seen it.
A title without a vector cannot be found, which is the frozen model's lot with a new title.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ranks = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Vectors:
    """One embedding a title, where it has one.

    Attributes:
        rows_TD: shape (T, D), float32; 0 where missing.
        known: shape (T,), bool.
    """

    rows_TD: Floats
    known: Bools


@dataclass(slots=True)
class Scored:
    """The predictions made so far, one entry a play that had a play before it.

    Attributes:
        rows: row of the play, in the data set's plays.
        users: user number.
        titles: the title that was to be found.
        frozen, live: its rank from 1; infinite where it or the query has no vector.
    """

    rows: list[Int64s] = field(default_factory=list)
    users: list[Int64s] = field(default_factory=list)
    titles: list[Int64s] = field(default_factory=list)
    frozen: list[Ranks] = field(default_factory=list)
    live: list[Ranks] = field(default_factory=list)

    def columns(self) -> tuple[Int64s, Int64s, Int64s, Ranks, Ranks]:
        """rows, users, titles, frozen ranks, live ranks, each of shape (N,)."""
        none, no_ranks = [np.empty(0, np.int64)], [np.empty(0, np.float64)]
        return (
            np.concatenate(none + self.rows),
            np.concatenate(none + self.users),
            np.concatenate(none + self.titles),
            np.concatenate(no_ranks + self.frozen),
            np.concatenate(no_ranks + self.live),
        )


class Prequential:
    """Ranks each play under both sets of vectors, chunk by chunk in stream order."""

    def __init__(
        self, users: Int64s, titles: Int64s, previous: Int64s, history: Int64s, frozen: Vectors
    ) -> None:
        """Start at the cut.

        Args:
            users: user number of each play of the data set, shape (P,).
            titles: title number of each play, shape (P,).
            previous: row of the same user's play just before it, -1 if none, shape (P,).
            history: rows that were played before the stream, shape (H,).
            frozen: the vectors that stood at the cut.
        """
        self._users, self._titles, self._previous = users, titles, previous
        self._frozen = frozen
        self._played: dict[int, list[int]] = {}
        self._there = np.zeros(len(users), bool)  # a previous play that was left out is no query
        self.scored = Scored()
        self._note(history)

    def predict(self, rows: Int64s, live: Vectors) -> None:
        """Rank the plays `rows`, shape (N,), and then take them as played."""
        self._there[rows] = True
        before = self._previous[rows]
        can = (before >= 0) & self._there[before]
        asked, before = rows[can], before[can]
        if len(asked):
            queries, targets = self._titles[before], self._titles[asked]
            who = self._users[asked].tolist()
            seen = [np.array(self._played.get(user, ()), np.int64) for user in who]
            scored = self.scored
            scored.rows.append(asked)
            scored.users.append(self._users[asked])
            scored.titles.append(targets)
            scored.frozen.append(ranks(self._frozen, queries, targets, seen))
            scored.live.append(ranks(live, queries, targets, seen))
        self._note(rows)

    def _note(self, rows: Int64s) -> None:
        self._there[rows] = True
        for user, title in zip(
            self._users[rows].tolist(), self._titles[rows].tolist(), strict=True
        ):
            self._played.setdefault(user, []).append(title)


def ranks(vectors: Vectors, queries: Int64s, targets: Int64s, seen: list[Int64s]) -> Ranks:
    """Expected rank of each target among the titles that are known and not seen.

    Args:
        vectors: of all T titles.
        queries: title that is asked from, shape (N,).
        targets: title that is to be found, shape (N,).
        seen: titles that are no candidates, one array a row; the target counts all the same.

    Returns:
        Rank from 1, ties shared, infinite where query or target is not known, shape (N,).
    """
    scores_NT = vectors.rows_TD[queries] @ vectors.rows_TD.T
    row = np.arange(len(queries))
    wanted_N1 = scores_NT[row, targets][:, None].copy()
    scores_NT[:, ~vectors.known] = -np.inf
    lengths = [len(one) for one in seen]
    scores_NT[np.repeat(row, lengths), np.concatenate(seen)] = -np.inf
    scores_NT[row, queries] = -np.inf
    scores_NT[row, targets] = -np.inf
    above = (scores_NT > wanted_N1).sum(1)
    level = (scores_NT == wanted_N1).sum(1)
    found: Ranks = 1.0 + above + level / 2
    found[~(vectors.known[queries] & vectors.known[targets])] = np.inf
    return found
