"""How the store's costs grow with the graph: `python benchmarks/store_growth.py 1 10` (M edges).

The workload of bench_store.py at each size, 25 edges a vertex. Prints a row a size: bytes an edge,
nanoseconds a change (batches of 100 k) and a draw (1-hop, 10 a seed), in CPU time.
"""

import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT.parent)]

import store_workload  # noqa: E402

from store.edges import as_rows  # noqa: E402
from store.forest import Forest  # noqa: E402


def measure(edges: int) -> tuple[float, float, float]:
    """Bytes an edge, ns an update, ns a draw."""
    work = store_workload.make(edges // 25, edges)
    forest = Forest()
    forest.build(*as_rows(work.heads, work.tails, work.weights, work.vertices))
    size = sum(forest.memory_report().values()) / edges
    draws = []
    for seed in range(4):
        start = time.process_time()
        forest.sample(work.seeds, 10, seed, weighted=True, replace=True)
        draws.append(time.process_time() - start)
    changes = min(len(work.ops) // 100_000, 10) * 100_000
    spent = 0.0
    for at in range(0, changes, 100_000):
        part = slice(at, at + 100_000)
        ops = np.where(work.ops[part] == 0, 1, work.ops[part]).astype(np.uint8)
        start = time.process_time()
        forest.apply(work.to_heads[part], work.to_tails[part], work.to_weights[part], ops)
        if at >= changes // 2:  # the first half breaks the forest in
            spent += time.process_time() - start
    half = changes - -(-changes // 200_000) * 100_000
    return size, 1e9 * spent / half, 1e9 * min(draws) / (10 * len(work.seeds))


if __name__ == "__main__":
    print(f"{'M edges':>8}{'bytes/edge':>12}{'ns/update':>12}{'ns/draw':>10}")
    for millions in map(int, sys.argv[1:] or ["1", "10"]):
        size, update, draw = measure(millions * 1_000_000)
        print(f"{millions:8}{size:12.2f}{update:12.0f}{draw:10.1f}", flush=True)
