"""Cuts, the assignment between them, and what training on HASP parts costs and is worth.

    make bench-partition ARGS="--json FILE"

Writes {"figures": {name: value}, "tables": ..., "machine": ..., "seed": ...}. Two graphs: the
co-plays of MovieLens-1M, and a generated one with communities (partition_world.py). `--quick` takes
a tenth of the generated graph and a fifth of the steps: to try, not to report.

A cut's limit: random parts keep 1 / K, and no parts keep more than all; on a graph where everything
is played with everything, nothing lies between. See benchmarks/README.md.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from model_graph import ml1m
from partition_training import (
    Arm,
    epoch_s,
    positives_of,
    quality,
    rounded,
    run_trainer,
    seconds_of,
)
from partition_world import World, build, change
from rich.console import Console
from rich.table import Table

from partition.budget import Cost, bytes_of
from partition.external import Even
from partition.hasp import hasp_subgraph, whole_graph
from partition.mincut import coplay_edges, cut_edges, random_parts
from partition.streaming import follow, kept_share
from store.graph import DynamicGraph

PARTS = (2, 4, 8, 16, 32)
CUTTERS = ("metis", "kaminpar")
MAX_COPLAY = 16
TRAINED = (4, 8, 32)  # parts of the generated graph that are trained on


def cuts(graph: DynamicGraph, seed: int) -> list[dict[str, Any]]:
    """Each cutter and number of parts, beside random parts."""
    edges = coplay_edges(graph)
    rows = []
    for parts in PARTS:
        random = random_parts(edges, parts, seed=seed).kept_weight
        for cutter in CUTTERS:
            made = cut_edges(edges, parts, seed=seed, cutter=cutter)  # type: ignore[arg-type]
            rows.append(
                {
                    "parts": parts,
                    "cutter": cutter,
                    "kept": made.kept_weight,
                    "random": random,
                    "times": made.kept_weight / random,
                    "balance": made.balance,
                    "seconds": made.seconds,
                }
            )
    return rows


def at(rows: list[dict[str, Any]], parts: int) -> dict[str, Any]:
    """The better cutter's row."""
    return max((row for row in rows if row["parts"] == parts), key=lambda row: row["kept"])


def streaming(titles: int, coplays: int, seed: int) -> dict[str, float]:
    """A fifth of the titles change, in ten batches, each followed; then what a fresh cut keeps."""
    world = World.of(titles, seed)
    graph = build(world, coplays, seed)
    partition = cut_edges(coplay_edges(graph), 8, seed=seed)
    first = partition
    seconds, changed = [], 0
    for batch in range(10):
        world, touched = change(graph, world, 0.02, seed * 100 + batch)
        start = time.perf_counter()
        partition = follow(graph, partition, touched, seed=batch).partition
        seconds.append(time.perf_counter() - start)
        changed += len(touched)
    fresh = cut_edges(coplay_edges(graph), 8, seed=seed + 1)
    kept = kept_share(graph, partition.part)
    return {
        "kept_at_cut": first.kept_weight,
        "kept_followed": kept,
        "kept_unfollowed": kept_share(graph, first.part),
        "kept_fresh": fresh.kept_weight,
        "share": kept / fresh.kept_weight,
        "balance": partition.balance,
        "us_a_title": sum(seconds) / changed * 1e6,
    }


def training(graph: DynamicGraph, seed: int) -> list[dict[str, Any]]:
    """Full graph against one of K parts: seconds an epoch, peak memory."""
    positives = positives_of(graph)
    whole = whole_graph(graph, max_coplay=MAX_COPLAY)
    edges = coplay_edges(graph)
    rows: list[dict[str, Any]] = []
    for parts in (1, *TRAINED):
        part = whole
        if parts > 1:
            made = cut_edges(edges, parts, seed=seed)
            part = hasp_subgraph(graph, made, 0, max_coplay=MAX_COPLAY)
        run = run_trainer(graph, [part], positives, seed)
        rows.append(
            {
                "parts": parts,
                "titles": len(part.titles),
                "edges": part.edge_index.shape[1],
                "step_s": run.step_s,
                "epoch_s": epoch_s(run, len(part.titles), parts),
                "peak_mib": run.peak / 2**20,
                "start_mib": run.start / 2**20,
                "estimate_mib": bytes_of(part, Cost()) / 2**20,
            }
        )
        rows[-1]["times_faster"] = rows[0]["epoch_s"] / rows[-1]["epoch_s"]
        rows[-1]["times_smaller"] = rows[0]["peak_mib"] / rows[-1]["peak_mib"]
    return rows


def show(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(
            *(f"{one:.4g}" if isinstance(one, float) else str(one) for one in row.values())
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cuts and HASP parts.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="small, to try: not to report")
    parser.add_argument("--skip", default="", help="of cuts,streaming,training,trainers,quality")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console, seed = Console(), options.seed
    skip = set(options.skip.split(","))
    titles, coplays = (20_000, 300_000) if options.quick else (200_000, 3_000_000)
    steps = 40 if options.quick else 200
    figures: dict[str, float] = {}
    tables: dict[str, Any] = {}

    def add(name: str, rows: list[dict[str, Any]]) -> None:
        tables[name] = rounded(rows)
        show(console, name, rows)

    scene = None if {"cuts", "trainers", "quality"} <= skip else ml1m(console)
    generated = None
    if not {"cuts", "training"} <= skip:
        with console.status("generated graph"):
            generated = build(World.of(titles, seed), coplays, seed)
    if "cuts" not in skip and scene is not None and generated is not None:
        found = {"generated": cuts(generated, seed), "ml1m": cuts(scene.graph, seed)}
        for name, rows in found.items():
            add(f"cuts, {name}", rows)
        best = at(found["generated"], 8)
        figures["kept_vs_random_k8"] = best["times"]
        figures["ml1m_kept_vs_random_k8"] = at(found["ml1m"], 8)["times"]
        figures["balance"] = max(row["balance"] for rows in found.values() for row in rows)
        figures["cut_seconds_k8"] = best["seconds"]
    if "streaming" not in skip:
        with console.status("streaming assignment"):
            followed = streaming(titles, coplays, seed)
        add("streaming", [followed])
        figures["streaming_kept"] = followed["share"]
    if "training" not in skip and generated is not None:
        with console.status("an epoch over parts"):
            rows = training(generated, seed)
        add("training, generated", rows)
        for row in rows[1:]:
            figures[f"hasp_speedup_k{row['parts']}"] = row["times_faster"]
            figures[f"hasp_memory_ratio_k{row['parts']}"] = row["times_smaller"]
        figures["hasp_speedup"] = figures["hasp_speedup_k8"]
        figures["hasp_memory_ratio"] = figures["hasp_memory_ratio_k8"]
    if "trainers" not in skip and scene is not None:
        with console.status("trainers"):
            made = cut_edges(coplay_edges(scene.graph), 4, seed=seed)
            parts = [
                hasp_subgraph(
                    scene.graph, made, one, max_coplay=MAX_COPLAY, sampler=Even(400), seed=seed
                )
                for one in range(4)
            ]
            one, two = (
                seconds_of(
                    scene.graph, parts, scene.positives, count=count, steps=steps // 2, seed=seed
                )
                for count in (1, 2)
            )
        add("trainers, ml1m", [{"one_s": one, "two_s": two}])
        figures["trainers2_speedup"] = one / two
    if "quality" not in skip and scene is not None:
        edges = coplay_edges(scene.graph)
        outside = len(edges.live) // 5
        arms = {"full": Arm(None, None)}
        for count in (2, 4):
            made, dealt = (way(edges, count, seed=seed) for way in (cut_edges, random_parts))
            arms[f"hasp, {count} parts"] = Arm(made, Even(outside))
            arms[f"random, {count} parts"] = Arm(dealt, Even(outside))
        with console.status("quality"):
            found_quality = quality(scene.graph, scene.positives, arms, seed=seed, steps=steps)
        add("quality, ml1m", [{"arm": name, **row} for name, row in found_quality.items()])
        for count in (2, 4):
            hasp = found_quality[f"hasp, {count} parts"]
            dealt_parts = found_quality[f"random, {count} parts"]
            figures[f"hasp_recall_difference_k{count}"] = hasp["difference"]
            figures[f"random_recall_difference_k{count}"] = dealt_parts["difference"]

    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    console.print(table)
    if options.json:
        about = {
            "cpus": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
            "processor": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        }
        report = {
            "figures": rounded(figures),
            "tables": tables,
            "machine": about,
            "seed": seed,
            "quick": options.quick,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
