"""Cuts, the assignment between them, and what training on HASP parts costs and is worth.

    make bench-partition ARGS="--json FILE"

Writes {"figures": {name: value}, "tables": ..., "machine": ..., "seed": ...}. Two graphs: the
co-plays of MovieLens-1M, and a generated one with communities (partition_world.py). Quality is of
the data set in `--data FOLDER`, else of MovieLens-1M (partition_quality.py). `--only ROOM` runs one
room of the benchmark. `--quick` takes a tenth of the generated graph and a fifth of the steps: to
try, not to report.

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
from partition_quality import quality
from partition_training import (
    epoch_s,
    positives_of,
    rounded,
    run_trainer,
    seconds_of,
)
from partition_world import World, build, change
from rich.console import Console
from rich.table import Table

from model.positives import Positives
from model.pretrain import EXTERNAL
from partition.budget import Cost, bytes_of
from partition.external import Even
from partition.hasp import hasp_subgraph, whole_graph
from partition.mincut import coplay_edges, cut_edges, random_parts
from partition.streaming import follow, kept_share
from store.graph import DynamicGraph

PARTS = (2, 4, 8, 16, 32)
CUTTERS = ("metis", "kaminpar")
MAX_COPLAY = 16
ROOMS = ("cuts", "streaming", "training", "trainers", "quality")
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
    """Full graph against one of K parts, with titles of others: seconds an epoch, peak memory.

    Memory is of a trainer with one part, and of one that has all of them.
    """
    positives = positives_of(graph)
    whole = whole_graph(graph, max_coplay=MAX_COPLAY)
    edges = coplay_edges(graph)
    rows: list[dict[str, Any]] = []
    for parts in (1, *TRAINED):
        all_parts = [whole]
        if parts > 1:
            made = cut_edges(edges, parts, seed=seed)
            all_parts = [
                hasp_subgraph(
                    graph, made, one, max_coplay=MAX_COPLAY, sampler=Even(EXTERNAL), seed=seed
                )
                for one in range(parts)
            ]
        part = all_parts[0]
        run = run_trainer(graph, [part], positives, seed)
        peak_of_all = run.peak
        if parts > 1:
            peak_of_all = run_trainer(graph, all_parts, positives, seed).peak
        rows.append(
            {
                "parts": parts,
                "titles": len(part.titles),
                "edges": part.edge_index.shape[1],
                "step_s": run.step_s,
                "epoch_s": epoch_s(run, len(part.own), parts),
                "peak_mib": run.peak / 2**20,
                "peak_of_all_mib": peak_of_all / 2**20,
                "start_mib": run.start / 2**20,
                "estimate_mib": bytes_of(part, Cost()) / 2**20,
            }
        )
        rows[-1]["times_faster"] = rows[0]["epoch_s"] / rows[-1]["epoch_s"]
        rows[-1]["times_smaller"] = rows[0]["peak_mib"] / rows[-1]["peak_mib"]
    return rows


def two_trainers(
    graph: DynamicGraph, positives: Positives, count: int, *, steps: int, seed: int
) -> dict[str, Any]:
    """The same passes over `count` parts by one trainer, and by two on a core each."""
    made = cut_edges(coplay_edges(graph), count, seed=seed)
    parts = [
        hasp_subgraph(graph, made, one, max_coplay=MAX_COPLAY, sampler=Even(EXTERNAL), seed=seed)
        for one in range(count)
    ]
    (one_s, one_all_s), (two_s, two_all_s) = (
        seconds_of(graph, parts, positives, count=trainers, steps=steps, seed=seed)
        for trainers in (1, 2)
    )
    return {
        "parts": count,
        "steps": steps,
        "one_s": one_s,
        "two_s": two_s,
        "speedup": one_s / two_s,
        "one_all_s": one_all_s,
        "two_all_s": two_all_s,
    }


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
    parser.add_argument("--skip", default="", help="of " + ",".join(ROOMS))
    parser.add_argument("--only", choices=ROOMS, help="this part of the benchmark alone")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="for quality, else ml-1m")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console, seed = Console(), options.seed
    skip = set(ROOMS) - {options.only} if options.only else set(options.skip.split(","))
    titles, coplays = (20_000, 300_000) if options.quick else (200_000, 3_000_000)
    steps = 40 if options.quick else 200
    figures: dict[str, float] = {}
    tables: dict[str, Any] = {}

    def add(name: str, rows: list[dict[str, Any]]) -> None:
        tables[name] = rounded(rows)
        show(console, name, rows)

    scene = None if {"cuts", "trainers"} <= skip else ml1m(console)
    generated = None
    if not {"cuts", "training", "trainers"} <= skip:
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
    if "trainers" not in skip and scene is not None and generated is not None:
        rows = []
        for name, graph, positives, parts, count in (
            ("ml1m", scene.graph, scene.positives, 4, steps // 2),
            ("generated", generated, positives_of(generated), 8, 32),
        ):
            with console.status(f"trainers, {name}"):
                rows.append(two_trainers(graph, positives, parts, steps=count, seed=seed))
            rows[-1] = {"graph": name, **rows[-1]}
        add("two trainers", rows)
        figures["trainers2_speedup"], figures["trainers2_speedup_generated"] = (
            row["speedup"] for row in rows
        )
        figures["trainers2_speedup_with_start"] = rows[1]["one_all_s"] / rows[1]["two_all_s"]
    if "quality" not in skip:
        rows, worth = quality(options.data, console, quick=options.quick)
        add("quality", rows)
        figures |= worth

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
