"""The store against its peers and its limits: `make bench-store`, or with ARGS="--json FILE".

Every figure is a ratio within this run, or a size. Times are CPU seconds of the best of some runs
(wall seconds where threads are compared), so that other load on the machine counts less. DGL and
networkit run in an interpreter of their own, which `--peers` names; without one they are skipped,
and said to be; so are streams of real edges without `--streams`.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import call
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT.parent)]

import store_streams  # noqa: E402
import store_workload  # noqa: E402
from store_baselines import AliasTable, KeyedBlocks  # noqa: E402

from store.edges import as_rows  # noqa: E402
from store.forest import Forest  # noqa: E402
from store.graph import DynamicGraph, Relation  # noqa: E402
from store.workers import Workers  # noqa: E402

MODES = ("sums16", "fstable", "cstable")


def best(action, times: int = 5, clock=time.process_time) -> float:
    found = []
    for _ in range(times):
        start = clock()
        action()
        found.append(clock() - start)
    return min(found)


def forest_of(rows, mode: str = "sums16", threads: int = 1) -> Forest:
    forest = Forest(mode, workers=Workers(threads))
    forest.build(*rows)
    return forest


def draw(forest: Forest, seeds, seed: int = 7):
    return forest.sample(seeds, 10, seed, weighted=True, replace=True)


def two_hops(forest: Forest, seeds) -> int:
    first = draw(forest, seeds).ravel()
    return len(first) + draw(forest, first[first >= 0], 8).size


def upserts(ops):
    """An insertion of an edge that is there sets its weight, as in the peers."""
    return np.where(ops == 0, 1, ops).astype(np.uint8)


def updates_a_second(rows, work, mode: str, size: int, count: int) -> float:
    """Mixed changes of the stream's second half; the first, unmeasured, breaks the forest in."""
    ops, found = upserts(work.ops), []
    half = len(ops) // 2
    count = min(count, len(ops) - half)
    for _ in range(3):
        forest = forest_of(rows, mode)
        forest.apply(work.to_heads[:half], work.to_tails[:half], work.to_weights[:half], ops[:half])
        start = time.process_time()
        for at in range(half, half + count, size):
            part = slice(at, at + size)
            forest.apply(work.to_heads[part], work.to_tails[part], work.to_weights[part], ops[part])
        found.append(count / (time.process_time() - start))
    return max(found)


def size_of(forest: Forest) -> float:
    """Bytes an edge, with the vertex table, free blocks and all."""
    return sum(forest.memory_report().values()) / len(forest)


def of_mode(rows, work, mode: str) -> dict[str, float]:
    forest = forest_of(rows, mode)
    twice = two_hops(forest, work.few_seeds)
    return {
        "bytes": size_of(forest),
        "onehop": 10 * len(work.seeds) / best(lambda: draw(forest, work.seeds)),
        "twohop": twice / best(lambda: two_hops(forest, work.few_seeds)),
        "update100k": updates_a_second(rows, work, mode, 100_000, 400_000),
        "update1k": updates_a_second(rows, work, mode, 1000, 100_000),
    }


def both_cores() -> float:
    """How much sooner two threads end two jobs that share nothing: what the machine can give."""
    jobs = [np.random.default_rng(seed).random(1_000_000) for seed in range(2)]
    times = [], []
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(np.sum, jobs))  # its threads are there
        for _ in range(5):
            for spent, run in zip(times, (map, pool.map), strict=True):
                tasks = [lambda job=job: job.copy().sort() for job in jobs]
                spent.append(once(lambda r=run, t=tasks: list(r(call, t))))
    return min(times[0]) / min(times[1])


def once(task) -> float:
    return best(task, 1, time.perf_counter)


def threads_gain(rows, work) -> dict[str, float]:
    """How much sooner two threads end updates (reweights) and draws, the one taking 1 ms or 12.

    Jobs come four in a row, updates and draws by turns, as in a stream; the first of them finds the
    other thread asleep, and is told apart (`_woken`). Besides `both_cores` in the same moments:
    below 2 where the second core has other work.
    """
    forests = [forest_of(rows, threads=threads) for threads in (1, 2)]
    gains, cores = {}, []
    for name, updates, draws, turns in (
        ("_short", 16_000, 15_000, 200),
        ("", 200_000, 5 * len(work.seeds), 30),
    ):
        seeds = np.resize(work.seeds, draws)
        some = np.flatnonzero(work.ops == 1)[:updates]
        columns = [c[some] for c in (work.to_heads, work.to_tails, work.to_weights, work.ops)]
        found = np.zeros((turns, len(forests), 4, 2))
        for turn in found:  # turn by turn, so that both meet the same load
            for of_forest, forest in zip(turn, forests, strict=True):
                for spent in of_forest:
                    spent[0] = once(partial(forest.apply, *columns))
                    spent[1] = once(partial(draw, forest, seeds))
            cores.append(both_cores() if len(cores) < 3 else 0.0)
        for number, kind in enumerate(("update", "sample")):
            one, two = found[:, :, :, number].min(axis=(0, 2))
            gains[f"threads2_{kind}{name}"] = one / two
            gains[f"threads2_{kind}{name}_ms"] = 1e3 * one
        one, two = found[:, :, 0, 0].min(axis=0)
        gains[f"threads2_update{name}_woken"] = one / two
    return {**gains, "threads2_of_the_machine": max(cores)}


def graph_of(work) -> DynamicGraph:
    """The same edges as a graph: named vertices, one directed relation, and so two forests."""
    graph = DynamicGraph([Relation("follows", "person", "person")])
    graph.ids["person"].intern([f"p{n}" for n in range(work.vertices)])
    graph.load_edges(0, work.heads, work.tails, work.weights)
    return graph


def one_by_one(change, rows) -> float:
    """Changes a second, each a call from Python."""

    def run() -> None:
        for row in rows:
            change(*row)

    return len(rows) / best(run, 3)


def snapshots(graph: DynamicGraph) -> dict[str, float]:
    """Seconds that a snapshot holds writers up, that it takes, and that a load takes."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, images = Path(name), []
        found["snapshot_pause_s"] = best(
            lambda: (images.clear(), images.append(graph.image())), 5, time.perf_counter
        )
        found["snapshot_write_s"] = best(lambda: images[0].save(folder), 3, time.perf_counter)
        found["snapshot_bytes"] = float(sum(p.stat().st_size for p in folder.iterdir()))
        for key, mapped in (("load_s", False), ("load_mapped_s", True)):
            found[key] = best(
                lambda m=mapped: DynamicGraph.load(folder, mapped=m), 3, time.perf_counter
            )
    return found


def peers(python: str | None, work) -> dict[str, float]:
    if python is None:
        print("DGL and networkit are SKIPPED: name an interpreter that has them with --peers")
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "workload.npz"
        np.savez(path, **work.__dict__)
        run = subprocess.run(
            [python, str(ROOT / "store_peers.py"), str(path)], capture_output=True, text=True
        )
    if run.returncode:
        print(f"the peers FAILED:\n{run.stderr[-2000:]}")
        return {}
    print(run.stderr, end="")
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--peers", help="Python interpreter with dgl==2.1.0 and networkit")
    parser.add_argument("--streams", type=Path, help="folder of gzipped edge streams, as of SNAP")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--edges", type=int, default=5_000_000)
    args = parser.parse_args()

    work = store_workload.make(max(1000, args.edges // 25), args.edges, seed=args.seed)
    rows = as_rows(work.heads, work.tails, work.weights, work.vertices)
    table = {mode: of_mode(rows, work, mode) for mode in MODES}
    ours = table["sums16"]

    alias = AliasTable(*rows)
    alias.sample(work.seeds, 10, 1)
    alias_rate = 10 * len(work.seeds) / best(lambda: alias.sample(work.seeds, 10, 1))

    blocks = KeyedBlocks.of_rows(*rows)
    blocks_bytes = blocks.nbytes() / args.edges
    blocks.sample(work.seeds, 10, 1)
    blocks_rate = 10 * len(work.seeds) / best(lambda: blocks.sample(work.seeds, 10, 1))
    part = slice(0, 20_000)
    columns = (
        work.to_heads[part],
        work.to_tails[part],
        work.to_weights[part],
        upserts(work.ops[part]),
    )
    blocks.apply(*(column[:10] for column in columns))
    blocks_updates = 20_000 / best(lambda: blocks.apply(*columns), 1)

    grown = forest_of(rows)
    more = slice(0, args.edges * 12 // 100)
    news = work.new_heads[more], work.new_tails[more], work.new_weights[more]
    for at in range(0, len(news[0]), 100_000):
        some = [column[at : at + 100_000] for column in news]
        grown.apply(*some, np.ones(len(some[0]), np.uint8))

    single = forest_of(rows)
    events = list(
        zip(
            *(
                column[:50_000].tolist()
                for column in (work.to_heads, work.to_tails, work.to_weights)
            ),
            upserts(work.ops)[:50_000].tolist(),
            strict=True,
        )
    )

    scalar = one_by_one(single.change, events)
    graph = graph_of(work)
    graph_scalar = one_by_one(graph.change, [(0, *event, 0) for event in events])
    snapshot = snapshots(graph)
    del graph
    threads = threads_gain(rows, work)

    fresh = forest_of(rows)
    few = work.seeds[:1000]

    def batch_and_sample() -> None:
        k = slice(0, 1000)
        fresh.apply(work.to_heads[k], work.to_tails[k], work.to_weights[k], upserts(work.ops[k]))
        draw(fresh, few)

    batch_and_sample()
    small = best(batch_and_sample, 20)

    figures = {
        "onehop_vs_alias": ours["onehop"] / alias_rate,
        "scalar_updates_per_s": scalar,
        "scalar_updates_of_a_graph_per_s": graph_scalar,
        "bytes_per_edge_bulk": ours["bytes"],
        "bytes_per_edge_grown": size_of(grown),
        "memory_saved_vs_platogl": 1 - ours["bytes"] / blocks_bytes,
        "updates_vs_platogl": ours["update100k"] / blocks_updates,
        "sampling_vs_platogl": ours["onehop"] / blocks_rate,
        **threads,
        **snapshot,
    }
    peer = peers(args.peers, work)
    if "dgl_onehop" in peer:
        figures["onehop_vs_dgl"] = ours["onehop"] * peer["dgl_onehop"] / (10 * len(work.seeds))
        rate = peer["dgl_twohop_draws"] / peer["dgl_twohop"]
        figures["twohop_vs_dgl"] = ours["twohop"] / rate
        figures["update1k_vs_dgl_rebuild"] = peer["dgl_update_1k_and_sample"] / small
    if "networkit_update_100k" in peer:
        networkit = 100_000 / peer["networkit_update_100k"]
        figures["update100k_vs_networkit"] = ours["update100k"] / networkit
        figures["memory_vs_networkit"] = peer["networkit_bytes"] / args.edges / ours["bytes"]

    streams = store_streams.measure_all(args.streams)
    machine = f"{platform.machine()}, {platform.processor() or 'cpu'}, {platform.python_version()}"
    print(f"{args.edges} edges, {work.vertices} vertices, seed {args.seed}; {machine}")
    print(
        f"{'':10}{'bytes/edge':>12}{'1-hop M/s':>12}{'2-hop M/s':>12}{'100k M/s':>12}{'1k M/s':>12}"
    )
    for mode, row in table.items():
        rates = "".join(
            f"{row[k] / 1e6:12.2f}" for k in ("onehop", "twohop", "update100k", "update1k")
        )
        print(f"{mode:10}{row['bytes']:12.2f}{rates}")
    print(f"alias table {alias_rate / 1e6:.1f} M draws/s; keyed blocks {blocks_rate / 1e6:.1f} M")
    print(f"draws/s, {blocks_updates / 1e6:.3f} M updates/s, {blocks_bytes:.1f} bytes/edge")
    for name, value in figures.items():
        print(f"{name:28}{value:14.3f}")
    print(store_streams.table(streams))
    if args.json:
        report = {"figures": figures, "modes": table, "peers": peer, "machine": machine}
        report["streams"] = streams
        args.json.write_text(json.dumps({**report, "seed": args.seed}, indent=1))


if __name__ == "__main__":
    main()
