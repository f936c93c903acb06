"""A training step and a full inference on MovieLens-1M, next to other layers in the same model.

    make bench-model ARGS="--json FILE"

Writes {"figures": {name: value}, "machine": ..., "seed": ...}. `step_vs_*` and `inference_vs_*` are
times of the peer over ours, taken in turn in one process: more is better. All steps have the same
inputs, loss and optimiser; only the layers differ (benchmarks/model_peers.py).

The limit of a layer is the time for the rows that it must gather and the products that it must
make, at the rates measured in the same run: see benchmarks/README.md.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from model_graph import ml1m
from model_peers import with_layers
from rich.console import Console
from rich.table import Table

from model.batch import GraphBatch
from model.inference import Embedder
from model.losses import exact_softmax
from model.pairs import Pairs
from model.semantic_gnn import Names, SemanticGNN
from model.settings import LossConfig, ModelConfig
from partition.hasp import hasp_subgraph, whole_graph
from partition.mincut import cut

Figures = dict[str, float | int]
Way = Callable[[], Any]

PEERS = ("naive", "rgat", "hgt")


def in_turn(ways: dict[str, Way], repeats: int) -> dict[str, float]:
    """Median seconds of each way, the ways in turn, after one round to warm up."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            took[name].append(time.perf_counter() - start)
    return {name: float(np.median(seconds[1:])) for name, seconds in took.items()}


def step_of(model: SemanticGNN, batch: GraphBatch, pairs: Pairs, seed: int) -> Way:
    """One gradient step: forward, loss, backward, AdamW."""
    config = LossConfig()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters())
    model.train()

    def step() -> None:
        row, weight_S = pairs.spread(config.sources, generator)
        loss = exact_softmax(model(batch), pairs.source[row], pairs.shares(row), weight_S)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def bench_layer(model: SemanticGNN, batch: GraphBatch, repeats: int) -> Figures:
    """Forward and backward of one layer, and the least time for its rows and its products.

    Forward it gathers a source's row an edge twice (keys, messages), backward five times (keys,
    queries, messages, and gradients twice); and it multiplies all nodes by a matrix three times
    forward, six times backward.
    """
    layer, dim = model.layer(0), model.config.dim
    x_ND = torch.randn(len(batch.titles) + len(batch.concepts), dim, requires_grad=True)
    rows_ND, edges = x_ND.detach(), batch.edges

    def both_ways() -> None:
        layer(x_ND, model.relation_RP, edges).sum().backward()

    def gather() -> None:
        torch.nn.functional.embedding_bag(
            edges.src, rows_ND, edges.ptr, mode="sum", include_last_offset=True
        )

    def product() -> None:
        rows_ND @ layer.message.weight

    took = in_turn({"layer": both_ways, "gather": gather, "product": product}, repeats)
    limit_s = 7 * took["gather"] + 9 * took["product"]
    return {
        "layer_ms": round(took["layer"] * 1000, 2),
        "layer_gathered_mb": round(7 * len(edges.src) * dim * 4 / 1e6, 1),
        "gather_gb_per_s": round(len(edges.src) * dim * 4 / took["gather"] / 1e9, 1),
        "product_gflops": round(2 * rows_ND.numel() * dim / took["product"] / 1e9, 1),
        "layer_limit_ms": round(limit_s * 1000, 2),
        "layer_share_of_limit": round(limit_s / took["layer"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Training steps and inference of the model.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--parts", type=int, default=2, help="a step sees one of so many parts")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    console = Console()

    scene = ml1m(console)
    graph, config = scene.graph, ModelConfig()
    names = Names.of(graph)
    model = SemanticGNN(config, names.title, names.concept, names.relation)
    part = hasp_subgraph(
        graph, cut(graph, options.parts, seed=options.seed), 0, max_coplay=config.max_coplay
    )
    batch, pairs = GraphBatch.of(part), Pairs.inside(part, scene.positives)
    everything = GraphBatch.of(whole_graph(graph, max_coplay=config.max_coplay))

    figures: Figures = {
        "step_titles": len(batch.titles),
        "step_edges": len(batch.edges.src),
        "inference_titles": len(everything.titles),
        "inference_edges": len(everything.edges.src),
    }
    with console.status("steps"):
        steps = in_turn(
            {
                name: step_of(with_layers(model, name, len(batch.titles)), batch, pairs, 0)
                for name in ("ours", *PEERS)
            },
            options.repeats,
        )
    with console.status("inference"), torch.no_grad():
        models = {
            name: with_layers(model, name, len(everything.titles)).eval()
            for name in ("ours", *PEERS)
        }
        inference = in_turn(
            {name: lambda one=one: one(everything) for name, one in models.items()},
            max(options.repeats // 2, 3),
        )
        full = in_turn({"full": lambda: Embedder(model).full(graph)}, options.repeats)
    for name in ("ours", *PEERS):
        figures[f"step_{name}_ms"] = round(steps[name] * 1000, 1)
        figures[f"inference_{name}_ms"] = round(inference[name] * 1000, 1)
    figures["step_edges_per_s"] = round(2 * len(batch.edges.src) / steps["ours"])
    figures["full_ms"] = round(full["full"] * 1000, 1)
    figures |= bench_layer(model, everything, 4 * options.repeats)
    for peer in PEERS:
        figures[f"step_vs_{peer}"] = round(steps[peer] / steps["ours"], 2)
        figures[f"inference_vs_{peer}"] = round(inference[peer] / inference["ours"], 2)

    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}")
    console.print(table)
    if options.json:
        about = {
            "cpus": os.cpu_count(),
            "processor": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": options.threads,
        }
        report = {"figures": figures, "machine": about, "seed": options.seed}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
