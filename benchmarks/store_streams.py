"""Streams of real edges, replayed: for bench_store.py, `--streams DIR`.

DIR holds files as SNAP distributes them: gzipped text, a line an event, "source target seconds" or,
where times are left out, two columns. An event adds 1 to the weight of its edge.
"""

import gzip
import time
from pathlib import Path

import numpy as np
from store_baselines import KeyedBlocks

from store.edges import Op
from store.forest import Forest


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Dense sources and targets in order of time, shape (E,), int32."""
    with gzip.open(path, "rt") as file:
        lines = (line for line in file if line[:1].isdigit())  # not a comment, nor a header
        rows = np.loadtxt(lines, np.int64, ndmin=2)
    if rows.shape[1] > 2:
        rows = rows[np.argsort(rows[:, 2], kind="stable")]
    _, dense = np.unique(rows[:, :2], return_inverse=True)
    ends = dense.reshape(-1, 2).astype(np.int32)
    return np.ascontiguousarray(ends[:, 0]), np.ascontiguousarray(ends[:, 1])


def replay(heads: np.ndarray, tails: np.ndarray, size: int) -> tuple[float, Forest]:
    """CPU seconds of the whole stream in batches, the best of three runs."""
    weights, ops = np.ones(size, np.float32), np.full(size, Op.ADD, np.uint8)
    found = []
    for _ in range(3):
        forest = Forest()
        forest.ensure_vertices(int(max(heads.max(), tails.max())) + 1)
        start = time.process_time()
        for at in range(0, len(heads), size):
            part = slice(at, at + size)
            count = len(heads[part])
            forest.apply(heads[part], tails[part], weights[:count], ops[:count])
        found.append(time.process_time() - start)
    return min(found), forest


def measure(path: Path) -> dict[str, float]:
    """Rates and sizes on one stream, with the keyed blocks beside them."""
    heads, tails = read(path)
    large, _ = replay(heads, tails, 100_000)
    small, forest = replay(heads, tails, 1000)
    single = Forest()
    single.ensure_vertices(forest.num_vertices)
    rows = list(zip(heads[:100_000].tolist(), tails[:100_000].tolist(), strict=True))
    start = time.process_time()
    for head, tail in rows:
        single.change(head, tail, 1.0, 0)
    one_by_one = time.process_time() - start

    seeds = np.random.default_rng(7).choice(np.unique(heads), 100_000).astype(np.int32)
    draws = []
    for seed in range(5):
        start = time.process_time()
        forest.sample(seeds, 10, seed, weighted=True, replace=True)
        draws.append(time.process_time() - start)

    everyone = np.arange(forest.num_vertices, dtype=np.int32)
    blocks = KeyedBlocks.of_rows(*forest.neighbors(everyone))
    blocks.sample(seeds, 10, 1)
    start = time.process_time()
    blocks.sample(seeds, 10, 1)
    blocks_draw = time.process_time() - start
    some = slice(max(0, len(heads) - 50_000), len(heads))
    columns = heads[some], tails[some], np.ones(len(heads[some]), np.float32)
    ops = np.full(len(columns[0]), Op.SET, np.uint8)
    blocks.apply(*(column[:10] for column in columns), ops[:10])
    start = time.process_time()
    blocks.apply(*columns, ops)
    blocks_update = (time.process_time() - start) / len(ops)
    report = forest.memory_report()
    return {
        "events": len(heads),
        "edges": len(forest),
        "vertices": forest.num_vertices,
        "update100k_per_s": len(heads) / large,
        "update1k_per_s": len(heads) / small,
        "scalar_per_s": len(rows) / one_by_one,
        "onehop_draws_per_s": 10 * len(seeds) / min(draws),
        "bytes_per_edge": sum(report.values()) / len(forest),
        "updates_vs_platogl": len(heads) / large * blocks_update,
        "sampling_vs_platogl": blocks_draw / min(draws),
    }


def measure_all(folder: Path | None) -> dict[str, dict[str, float]]:
    """Figures by the stream's name; says so where there is nothing to replay."""
    files = sorted(folder.glob("*.txt.gz")) if folder else []
    if not files:
        print(f"streams of real edges are SKIPPED: no *.txt.gz in {folder} (--streams DIR)")
    return {path.name.removesuffix(".txt.gz"): measure(path) for path in files}


def table(found: dict[str, dict[str, float]]) -> str:
    """The figures as lines of text."""
    lines = []
    for name, row in found.items():
        rates = "".join(
            f"{row[key] / 1e6:9.2f}"
            for key in ("update100k_per_s", "update1k_per_s", "scalar_per_s", "onehop_draws_per_s")
        )
        lines.append(
            f"{name:26}{row['events']:9.0f}{row['edges']:9.0f}{row['bytes_per_edge']:8.1f}{rates}"
            f"{row['updates_vs_platogl']:8.1f}{row['sampling_vs_platogl']:8.1f}"
        )
    head = f"{'stream':26}{'events':>9}{'edges':>9}{'bytes/e':>8}"
    head += f"{'100k M/s':>9}{'1k M/s':>9}{'one M/s':>9}{'draw M/s':>9}{'upd x':>8}{'draw x':>8}"
    return "\n".join([head, *lines]) if lines else ""
