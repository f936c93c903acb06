"""What the demo streams: which plays are history, which come live, and which titles are new.

Plays are cut in time. What lies before the cut is history: the model is pretrained on it. What
lies after is streamed. Some titles are held back from both catalogue and plays until they are
published in mid-stream; a play of one before its publication cannot have been, and is left out.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MIN_CONCEPTS = 6  # a held-back title must be placeable by its concepts
MIN_STREAMED = 8  # and be played often enough afterwards to be scored
PUBLISHED_BY = 0.6  # share of the stream by which the last new title is out


@dataclass(frozen=True, slots=True)
class Plan:
    """Row numbers refer to the plays that `make_plan` was given.

    Attributes:
        history: rows before the cut without held-back titles, shape (H,).
        stream: rows to stream, in time order, shape (S,).
        new_titles: the held-back titles, in the order of their publication, shape (N,).
        publish_at: position in `stream` before which each of them is published, shape (N,).
    """

    history: Int64s
    stream: Int64s
    new_titles: Int64s
    publish_at: Int64s


def make_plan(
    titles: Int64s, num_concepts: Int64s, *, plays: int, new_titles: int, seed: int
) -> Plan:
    """Cut the plays and choose the titles to hold back.

    Args:
        titles: title number of each play, in time order, shape (P,).
        num_concepts: concepts of each title, shape (T,).
        plays: how many to stream: the last ones.
        new_titles: how many titles to hold back; fewer where too few qualify.

    Raises:
        ValueError: there are not more than `plays` plays: nothing would be history.
    """
    if not 0 < plays < len(titles):
        raise ValueError(
            f"{plays} plays to stream of {len(titles)}: want at least 1, and some left as history"
        )
    rng = np.random.default_rng(seed)
    cut = len(titles) - plays
    live = titles[cut:]
    streamed = np.bincount(live, minlength=len(num_concepts))
    fit = np.flatnonzero((num_concepts >= MIN_CONCEPTS) & (streamed >= MIN_STREAMED))
    new = rng.permutation(fit)[:new_titles].astype(np.int64)

    out_at = np.zeros(len(num_concepts), np.int64)  # position from which a title can be played
    # The first twentieth has none, so that the frozen and the live model start from one level.
    out_at[new] = np.sort(rng.integers(plays // 20, max(int(plays * PUBLISHED_BY), 1), len(new)))
    held_back = np.zeros(len(num_concepts), bool)
    held_back[new] = True

    keep = np.flatnonzero(np.arange(plays) >= out_at[live])
    publish_at = np.searchsorted(keep, out_at[new]).astype(np.int64)
    history = np.flatnonzero(~held_back[titles[:cut]])
    return Plan(history, keep + cut, new, publish_at)


def previous_plays(users: Int64s, time_ms: Int64s, gap_ms: int) -> Int64s:
    """For each play the row of the same user's play before it, -1 where none is within `gap_ms`.

    Args:
        users: user number of each play, in time order, shape (P,).
        time_ms: shape (P,).
    """
    order = np.lexsort((np.arange(len(users)), users))
    before = np.full(len(users), -1, np.int64)
    same = users[order[1:]] == users[order[:-1]]
    near = time_ms[order[1:]] - time_ms[order[:-1]] <= gap_ms
    before[order[1:]] = np.where(same & near, order[:-1], -1)
    return before
