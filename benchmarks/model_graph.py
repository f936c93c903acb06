"""MovieLens-1M as the model's benchmarks take it: all plays in a graph, and their pairs."""

from dataclasses import dataclass

import numpy as np
from rich.console import Console

from model.positives import Positives
from store.graph import DynamicGraph
from streams.bootstrap import History, entry_of, fold_plays
from streams.coplay import Pairing
from streams.data import Dataset, fetch_ml1m, load_ml1m, user_cache
from streams.settings import GraphSettings
from streams.state import State


@dataclass(frozen=True, slots=True)
class Scene:
    """A data set as a graph, with the pairs in it, in time order."""

    data: Dataset
    graph: DynamicGraph
    positives: Positives


def ml1m(console: Console) -> Scene:
    """Fetch MovieLens-1M where it is not there yet, and build the graph."""
    with console.status("MovieLens-1M"):
        data = load_ml1m(fetch_ml1m(user_cache(), lambda *_: None))
    state = State.empty(GraphSettings())
    titles = np.arange(len(data.titles))
    entries = [entry_of(data, title, time_ms=0) for title in titles.tolist()]
    state.apply_catalog(entries, np.zeros(len(entries), np.int64))
    with console.status("co-plays"):
        history = History(data, np.arange(len(data)), titles)
        positives = fold_plays(state, history, Pairing(5, 1800.0, 200), lambda *_: None)
    return Scene(data, state.graph, positives)
