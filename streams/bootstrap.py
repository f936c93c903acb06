"""From a data set to the first checkpoint: history into the graph, a model pretrained on it.

The rooms that the stream goes through do the work: plays are paired as the sessions pair them, and
the catalogue is applied as its events would be. A worker starts from the checkpoint, and reads its
topics from their beginning.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.inference import Embedder
from model.micro_trainer import MicroTrainer
from model.positives import Positives
from model.pretrain import Pretrained, pretrain
from model.settings import MicroConfig, ModelConfig, PretrainConfig
from partition.named import dense_names, rows_of
from store.graph import DynamicGraph
from streams.columns import CoPlays
from streams.coplay import Pairing, pair_history
from streams.data import Dataset
from streams.events import CatalogEntry
from streams.settings import GraphSettings
from streams.snapshot import Snapshot, save_snapshot
from streams.state import State

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]
Report = Callable[[str, int, int, str], None]

CHUNK = 250_000  # co-plays folded in by one call
WORK = "training"  # folder under the root that several trainers work in


@dataclass(frozen=True, slots=True)
class History:
    """What is known at the start.

    Attributes:
        data: a data set.
        plays: rows of its plays, in time order, shape (H,).
        titles: numbers of its titles that are in the catalogue, shape (T,).
    """

    data: Dataset
    plays: Int64s
    titles: Int64s


def bootstrap(
    history: History,
    root: Path,
    *,
    graph: GraphSettings,
    pairing: Pairing,
    config: PretrainConfig,
    seed: int,
    report: Report,
    trainers: int = 1,
    near: Snapshot | None = None,
) -> Pretrained:
    """Fold `history` into a state, pretrain a model on it, and write both as a checkpoint.

    Args:
        root: the folder of checkpoints.
        report: told step, parts done, parts in all, and a remark.
        trainers: processes that pretrain together; they work in a folder under `root`, and go on
            there where they were cut short.
        near: see `finish`.

    Raises:
        ValueError: the plays make no pair.
        CheckpointError: the disk refused.
    """
    state = State.empty(graph)
    entries = [entry_of(history.data, title, time_ms=0) for title in history.titles.tolist()]
    state.apply_catalog(entries, np.zeros(len(entries), np.int64), learn=True)
    report("catalogue", len(entries), len(entries), "")
    pairs = fold_plays(state, history, pairing, report)
    if not len(pairs):
        raise ValueError(
            f"{len(history.plays)} plays make no co-play; want users with several within "
            f"{pairing.gap_s:g} s"
        )
    about = {"plays": len(history.plays), "titles": len(history.titles)}
    return finish(
        state,
        pairs,
        root,
        about=about,
        config=config,
        seed=seed,
        report=report,
        trainers=trainers,
        near=near,
    )


def finish(
    state: State,
    pairs: Positives,
    root: Path,
    *,
    about: dict[str, int],
    config: PretrainConfig,
    seed: int,
    report: Report,
    trainers: int = 1,
    near: Snapshot | None = None,
) -> Pretrained:
    """Pretrain a model on a state, and write both as the first checkpoint under `root`.

    Args:
        pairs: all co-plays of the state, in time order.
        about: goes into the model's card.
        near: what is in use: the new vectors stay near those of its model, and in their space.
    """
    start = time.perf_counter()
    state.forget_dirt()

    def told(step: str, done: int, total: int, figures: dict[str, float]) -> None:
        report(step, done, total, " ".join(f"{key} {value:.3f}" for key, value in figures.items()))

    made = pretrain(
        state.graph,
        pairs,
        model=ModelConfig() if near is None else near.model.config,
        config=config,
        seed=seed,
        progress=told,
        trainers=trainers,
        work=root / WORK,
        published=None if near is None else bare_vectors_of(near, state.graph),
        unplayed=None if near is None else near.model.unplayed,
    )
    card = {
        **about,
        "coplays": len(pairs),
        "seed": seed,
        "seconds": round(time.perf_counter() - start, 1),
        "metrics": made.metrics,
    }
    trainer = MicroTrainer(made.model.config, MicroConfig(), seed)
    trainer.remember(pairs)  # what cycles replay, so that the past is not forgotten
    save_snapshot(root, Snapshot(state, made.model, 0, card, trainer), keep=1)
    return made


def bare_vectors_of(snapshot: Snapshot, graph: DynamicGraph) -> Float32s:
    """Bare vectors by a snapshot's model and graph, for the titles of another graph.

    Returns:
        By that graph's dense ids, zeros where the snapshot has no such title, shape (N, D).
    """
    embedder = Embedder(snapshot.model)
    embedder.full(snapshot.state.graph)
    known = embedder.bare.numpy()
    rows = rows_of(dense_names(snapshot.state.graph, "title"), dense_names(graph, "title"))
    found = np.zeros((len(rows), known.shape[1]), np.float32)
    found[rows >= 0] = known[rows[rows >= 0]]
    return found


def fold_plays(state: State, history: History, pairing: Pairing, report: Report) -> Positives:
    """Pair the plays and fold the pairs into `state`; returns them, in time order."""
    data, rows = history.data, history.plays
    time_ms = spread_ties(data.play_time_ms)
    pairs = pair_history(data.play_users[rows], data.play_titles[rows], time_ms[rows], rule=pairing)
    names = np.array(data.titles, dtype=object)
    folded = []
    for start in range(0, len(pairs), CHUNK):
        part = slice(start, start + CHUNK)
        a, b = names[pairs.a[part]].tolist(), names[pairs.b[part]].tolist()
        row = np.zeros(len(a), np.int32)
        columns = CoPlays(a, b, pairs.weight[part], pairs.time_ms[part], row)
        state.apply_coplays(columns, np.zeros(len(a), np.int64))
        folded.append(state.take_fresh())
        report("co-plays", start + len(a), len(pairs), "")
    return Positives.join(folded)


def entry_of(data: Dataset, title: int, *, time_ms: int) -> CatalogEntry:
    """The catalog event of one title of a data set."""
    return CatalogEntry(
        title=data.titles[title],
        name=data.names[title],
        time_ms=time_ms,
        concepts=data.concepts[title],
    )


def spread_ties(time_ms: Int64s) -> Int64s:
    """Give plays of one second times of their own, within that second, in their order.

    Data sets stamp in whole seconds; sessions tell a user's plays apart by their time.

    Args:
        time_ms: ascending, shape (P,).
    """
    second = time_ms // 1000
    place = np.arange(len(second)) - np.searchsorted(second, second)
    return second * 1000 + place % 1000
