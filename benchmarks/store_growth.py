"""How the store's costs grow with the graph: `python benchmarks/store_growth.py 1 10 100`.

Sizes are millions of edges; the workload is that of bench_store.py at each, 25 edges a vertex.
Prints a row a size: bytes an edge, nanoseconds a change (batches of 100 k) and a draw (1-hop, 10 a
seed), in CPU time, and the most memory the run held. `--json FILE` writes the rows, `--plot FILE`
draws them. 100 M edges take 3 GiB and three minutes.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT.parent)]

import store_workload  # noqa: E402

from store.forest import Forest  # noqa: E402

COLUMNS = {"bytes_per_edge": "bytes/edge", "ns_per_update": "ns/update", "ns_per_draw": "ns/draw"}


def measure(edges: int, seed: int) -> dict[str, float]:
    """One row."""
    changes = max(1, min(edges // 500_000, 10)) * 100_000
    start = time.process_time()
    work = store_workload.make_rows(edges // 25, edges, changes, seed=seed)
    made_in = time.process_time() - start
    edges = len(work.ids)
    forest = Forest()
    start = time.process_time()
    forest.build(work.indptr, work.ids, work.weights)
    built_in = time.process_time() - start
    size = sum(forest.memory_report().values()) / edges
    draws = []
    for turn in range(5):
        start = time.process_time()
        forest.sample(work.seeds, 10, turn, weighted=True, replace=True)
        draws.append(time.process_time() - start)
    spent, counted = 0.0, 0
    for at in range(0, changes, 100_000):
        part = slice(at, at + 100_000)
        ops = np.where(work.ops[part] == 0, 1, work.ops[part]).astype(np.uint8)
        start = time.process_time()
        forest.apply(work.heads[part], work.tails[part], work.amounts[part], ops)
        if at >= changes // 2:  # the first half breaks the forest in
            spent += time.process_time() - start
            counted += 100_000
    return {
        "edges": edges,
        "bytes_per_edge": size,
        "ns_per_update": 1e9 * spent / counted,
        "ns_per_draw": 1e9 * min(draws) / (10 * len(work.seeds)),
        "make_s": made_in,
        "build_s": built_in,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def plot(rows: list[dict[str, float]], path: Path) -> None:
    """Each figure against the number of edges, both axes by powers of ten."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.fonttype"] = "none"  # text stays text
    pyplot.rcParams["svg.hashsalt"] = "growth"
    figure, axes = pyplot.subplots(1, 3, figsize=(9, 2.8), constrained_layout=True)
    for axis, (key, title) in zip(axes, COLUMNS.items(), strict=True):
        found = [row[key] for row in rows]
        axis.plot([row["edges"] for row in rows], found, "o-", color="#1f5f8b")
        axis.set(xscale="log", xlabel="edges", title=title, ylim=(0, 1.1 * max(found)))
        axis.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("millions", type=int, nargs="*", default=[1, 10], help="sizes, M edges")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--plot", type=Path, help="draw them here: .svg or .png")
    args = parser.parse_args()
    measure(1_000_000, args.seed)  # compiles
    print(f"{'M edges':>8}" + "".join(f"{title:>12}" for title in COLUMNS.values()) + "   peak GiB")
    rows = []
    for millions in args.millions:
        row = measure(millions * 1_000_000, args.seed)
        rows.append(row)
        values = "".join(f"{row[key]:12.2f}" for key in COLUMNS)
        print(f"{millions:8}{values}{row['peak_gib']:11.1f}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"seed": args.seed, "rows": rows}, indent=1))
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
