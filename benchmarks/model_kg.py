"""How well each embedding of the semantic edges completes them: a tenth of the triples held out.

    python benchmarks/model_kg.py [FOLDER] --json FILE      MovieLens-1M where no folder is named

Writes {"figures": {kind: {mrr, hits10, triples, train_s, rank_s}}, "machine": ..., "seed": ...}.
Ranks are filtered, and among the concepts of the triple's relation.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from model.kg import KINDS, complete, split, train_kg
from model.settings import PretrainConfig
from model.transe import triples
from streams.bootstrap import entry_of
from streams.data import fetch_ml1m, load_ml1m, user_cache
from streams.settings import GraphSettings
from streams.state import State

HELD_OUT = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=PretrainConfig().transe_steps)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = load_ml1m(given.folder or fetch_ml1m(user_cache(), lambda *_: None))
    state = State.empty(GraphSettings())
    entries = [entry_of(data, title, time_ms=0) for title in range(len(data.titles))]
    state.apply_catalog(entries, np.zeros(len(entries), np.int64))
    known, held_out = split(triples(state.graph), HELD_OUT, seed=given.seed)
    if not len(held_out.title):
        parser.exit(1, "no triple can be held out: want titles and concepts with several each\n")
    config, figures = PretrainConfig(), {}
    for kind in KINDS:
        start = time.perf_counter()
        made = train_kg(
            kind,
            known,
            dim=64,
            steps=given.steps,
            batch=config.transe_batch,
            lr=config.transe_lr,
            margin=config.margin,
            seed=given.seed,
        )
        trained = time.perf_counter()
        found = complete(made.score, known, held_out)
        figures[kind] = {
            "mrr": found.mrr,
            "hits10": found.hits10,
            "triples": found.triples,
            "train_s": trained - start,
            "rank_s": time.perf_counter() - trained,
        }
    table = Table("kind", "MRR", "Hits@10", "train s", "rank s", box=None)
    for kind, one in figures.items():
        names = ("mrr", "hits10", "train_s", "rank_s")
        table.add_row(kind, *(f"{one[name]:.3f}" for name in names))
    Console().print(table)
    if given.json:
        out = {"figures": figures, "machine": platform.processor(), "seed": given.seed}
        given.json.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
