"""The gate before a trained model: good cycles must pass, and spoilt models must not.

A SemanticGNN is pretrained on MovieLens-1M without its last plays. These come slice by slice: each
is a real cycle of micro-training, and what passes is what the next one starts from. Every few
cycles the cycle's model is spoilt in each way that `SPOILS` has, and put before the same gate with
the same held-back pairs. Where the data cannot be had, plays and concepts are generated, in
clusters of titles.

So that a hundred cycles take minutes, pretraining makes 80 steps and a cycle 5, of the product's
200 and 20: such a model moves more from cycle to cycle, not less. Part of bench_serve.py.
"""

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from model.align import align
from model.gate import judge, shape
from model.inference import Embedder
from model.micro_trainer import PASSED, MicroTrainer
from model.positives import Positives
from model.pretrain import pretrain
from model.semantic_gnn import SemanticGNN
from model.settings import MicroConfig, PretrainConfig
from store.graph import DynamicGraph
from streams.bootstrap import History, entry_of, fold_plays
from streams.coplay import Pairing
from streams.data import Dataset, fetch_ml1m, load_ml1m, user_cache
from streams.ml1m import DataFailed
from streams.settings import GraphSettings
from streams.state import State

Float32s = npt.NDArray[np.float32]

PAIRING = Pairing(5, 1800.0, 200)
SLICE = 300  # plays that a cycle learns from
PRETRAIN = PretrainConfig(transe_steps=100, steps=80)
MICRO = MicroConfig(steps=5)
SPOIL_EVERY = 8  # cycles


def generated(rng: np.random.Generator) -> Dataset:
    """1,500 titles in 40 clusters, whose genre and director they share; users keep to one."""
    titles, clusters, users, plays = 1500, 40, 4000, 120_000
    cluster = rng.integers(clusters, size=titles)
    user = np.sort(rng.integers(users, size=plays))  # a user's plays follow each other
    popularity = rng.pareto(1.5, size=titles) + 0.1
    of_user = rng.integers(clusters, size=users)[user]
    stray = rng.random(plays) < 0.2
    of_user[stray] = rng.integers(clusters, size=int(stray.sum()))
    chosen = np.zeros(plays, np.int64)
    for one in range(clusters):
        members = np.flatnonzero(cluster == one)
        mine = np.flatnonzero(of_user == one)
        weight = popularity[members] / popularity[members].sum()
        chosen[mine] = rng.choice(members, size=len(mine), p=weight)
    return Dataset(
        users=[f"u{number}" for number in range(users)],
        titles=[f"m{number}" for number in range(titles)],
        names=[f"Film {number}" for number in range(titles)],
        years=np.zeros(titles, np.int64),
        concepts=[
            {"genre": [f"g{one % 12}"], "director": [f"d{one}-{number % 3}"]}
            for number, one in enumerate(cluster.tolist())
        ],
        play_users=user,
        play_titles=chosen,
        play_ratings=np.ones(plays, np.float32),
        play_time_ms=np.arange(plays, dtype=np.int64) * 20_000,
    )


def data_set(rng: np.random.Generator, console: Console) -> tuple[Dataset, str]:
    """The plays, and where they are from."""
    try:
        with console.status("MovieLens-1M"):
            return load_ml1m(fetch_ml1m(user_cache(), lambda *_: None)), "ml-1m"
    except DataFailed as error:
        console.print(f"the gate is tried on generated plays: {error}")
        return generated(rng), "generated"


def nan_in_a_weight(model: SemanticGNN, _: np.random.Generator) -> SemanticGNN:
    spoilt = model.clone()
    with torch.no_grad():
        spoilt.output.weight[0, 0] = float("nan")
    return spoilt


def all_alike(model: SemanticGNN, _: np.random.Generator) -> SemanticGNN:
    """Collapsed: whatever the title, the vector is the same."""
    spoilt = model.clone()
    with torch.no_grad():
        spoilt.output.weight.zero_()
        spoilt.past_layers.weight.zero_()
        spoilt.popularity.weight.zero_()
    return spoilt


def popularity_alone(model: SemanticGNN, _: np.random.Generator) -> SemanticGNN:
    """Collapsed to one direction: a vector says no more than how often a title is played."""
    spoilt = model.clone()
    with torch.no_grad():
        spoilt.output.weight.zero_()
        spoilt.past_layers.weight.zero_()
    return spoilt


def rotated(model: SemanticGNN, rng: np.random.Generator) -> SemanticGNN:
    """As a retrain without alignment: as good as ever, and comparable to nothing that was."""
    dim = model.config.dim
    return align(model, np.linalg.qr(rng.standard_normal((dim, dim)))[0])


Spoil = Callable[[SemanticGNN, np.random.Generator], SemanticGNN]
SPOILS: dict[str, Spoil | None] = {
    "nan": nan_in_a_weight,
    "collapsed": all_alike,
    "popularity": popularity_alone,
    "rotated": rotated,
    "shuffled": None,  # the model is good, but its rows stand for other titles
}


def spoilt_vectors(
    kind: str, model: SemanticGNN, graph: DynamicGraph, rng: np.random.Generator
) -> Float32s:
    spoil = SPOILS[kind]
    embedder = Embedder(model.clone() if spoil is None else spoil(model, rng))
    embedder.full(graph)
    vectors_TD: Float32s = embedder.published.numpy()
    if spoil is None:
        live = graph.ids["title"].live_ids()
        vectors_TD[live] = vectors_TD[rng.permutation(live)]
    return vectors_TD


def bench_gate(seed: int, cycles: int, console: Console) -> dict[str, float | int | str | None]:
    """Pretrain, run the cycles, spoil some; count what the gate lets pass and what not."""
    rng = np.random.default_rng(seed)
    data, source = data_set(rng, console)
    first = len(data) - cycles * SLICE
    every = np.arange(len(data))
    titles = np.arange(len(data.titles))
    state = State.empty(GraphSettings())
    entries = [entry_of(data, title, time_ms=0) for title in titles.tolist()]
    state.apply_catalog(entries, np.zeros(len(entries), np.int64), learn=True)
    history = fold_plays(state, History(data, every[:first], titles), PAIRING, lambda *_: None)
    with console.status("pretraining"):
        model = pretrain(state.graph, history, config=PRETRAIN, seed=seed).model
    trainer = MicroTrainer(model.config, MICRO, seed)
    trainer.remember(history)
    embedder = Embedder(model)
    embedder.full(state.graph)

    verdicts: list[str] = []
    passed = dict.fromkeys(SPOILS, 0)
    cosine = alike = 1.0
    spoilt_alike = -1.0
    with console.status("cycles"):
        for cycle in range(cycles):
            plays = every[first + cycle * SLICE : first + (cycle + 1) * SLICE]
            fresh = fold_plays(state, History(data, plays, titles), PAIRING, lambda *_: None)
            published = embedder.vectors(titles)
            report = trainer.cycle(model, state.graph, nullcontext(), fresh, published)
            verdicts.append(report.verdict)
            if report.verdict != PASSED:
                console.print(f"cycle {cycle} {report.verdict}: {report.reason}")
            if report.model is None or report.embedder is None:
                continue
            model, embedder = report.model, report.embedder
            cosine = min(cosine, report.drift_cosine)
            vectors_TD = report.embedder.vectors(titles)
            alike = min(alike, shape(vectors_TD, published))
            if cycle % SPOIL_EVERY == 0:
                held_back = held_back_of(fresh)
                for kind in SPOILS:
                    vectors_TD = spoilt_vectors(kind, model, state.graph, rng)
                    verdict = judge(vectors_TD, published, held_back, MICRO)
                    spoilt_alike = max(spoilt_alike, np.nan_to_num(verdict.shape, nan=-1.0))
                    if not verdict.reason:
                        passed[kind] += 1
                        console.print(f"cycle {cycle}: the {kind} model passed")
    return {
        "gate_data": source,
        "bad_models": len(SPOILS) * len(range(0, cycles, SPOIL_EVERY)),
        "bad_models_passed": sum(passed.values()),
        "good_models": len(verdicts),
        "good_models_refused": sum(verdict != PASSED for verdict in verdicts),
        "good_lowest_cosine": round(cosine, 3),
        "good_lowest_shape": round(alike, 3),
        "bad_highest_shape": round(float(spoilt_alike), 3),
    }


def held_back_of(fresh: Positives) -> Positives:
    """The pairs that the trainer kept for its gate."""
    return fresh[len(fresh) - int(len(fresh) * MICRO.held_back) :]
