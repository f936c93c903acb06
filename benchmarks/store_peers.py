"""DGL and networkit on the same workload; run by an interpreter that has them.

    PEERS_PYTHON benchmarks/store_peers.py WORKLOAD.npz

Prints one line of JSON: seconds and bytes by name; a peer that is absent is left out.
"""

import json
import os
import sys
import time

os.environ.update(DGLBACKEND="pytorch", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np


def best(action, times: int = 3) -> float:
    """Least CPU seconds of some runs: other load on the machine counts less."""
    found = []
    for _ in range(times):
        start = time.process_time()
        action()
        found.append(time.process_time() - start)
    return min(found)


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def networkit(data, out) -> None:
    try:
        import networkit as nk
        from networkit.dynamics import GraphEvent, GraphUpdater
    except ImportError as error:
        print(f"networkit is skipped: {error}", file=sys.stderr)
        return
    nk.setNumberOfThreads(1)
    before = resident()
    coo = (data["heads"].astype(np.uint64), data["tails"].astype(np.uint64))
    graph = nk.GraphFromCoo(
        (data["weights"].astype(float), coo), n=int(data["vertices"]), weighted=True, directed=True
    )
    out["networkit_bytes"] = resident() - before
    kinds = [GraphEvent.EDGE_ADDITION, GraphEvent.EDGE_WEIGHT_UPDATE, GraphEvent.EDGE_REMOVAL]
    rows = slice(0, 100_000)
    columns = [data[name][rows].tolist() for name in ("ops", "to_heads", "to_tails", "to_weights")]
    events = [GraphEvent(kinds[op], a, b, w) for op, a, b, w in zip(*columns, strict=True)]
    updater = GraphUpdater(graph)
    out["networkit_update_100k"] = best(lambda: updater.update(events), 1)


def dgl(data, out) -> None:
    try:
        import dgl as library
        import torch
    except (ImportError, OSError) as error:
        print(f"DGL is skipped: {error}", file=sys.stderr)
        return
    torch.set_num_threads(1)
    heads, tails = torch.from_numpy(data["heads"]), torch.from_numpy(data["tails"])

    def build():
        graph = library.graph((tails, heads), num_nodes=int(data["vertices"]), idtype=torch.int32)
        graph = graph.formats("csc")
        graph.edata["w"] = torch.from_numpy(data["weights"])
        graph.create_formats_()
        return graph

    graph = build()
    out["dgl_version"] = library.__version__
    seeds, few = torch.from_numpy(data["seeds"]), torch.from_numpy(data["few_seeds"])
    draw = library.sampling.sample_neighbors

    def two() -> int:
        one = draw(graph, few, 10, prob="w", replace=True)
        frontier = torch.unique(one.edges()[0])
        return one.num_edges() + draw(graph, frontier, 10, prob="w", replace=True).num_edges()

    draw(graph, seeds, 10, prob="w", replace=True)
    out["dgl_onehop"] = best(lambda: draw(graph, seeds, 10, prob="w", replace=True))
    out["dgl_twohop"] = best(two)
    out["dgl_twohop_draws"] = two()
    few1k = data["seeds"][:1000]
    editable = library.graph((tails, heads), num_nodes=int(data["vertices"]), idtype=torch.int32)
    editable.edata["w"] = torch.from_numpy(data["weights"])

    def rebuild() -> None:
        rows = slice(0, 1000)
        more = library.add_edges(
            editable,
            torch.from_numpy(data["to_tails"][rows]),
            torch.from_numpy(data["to_heads"][rows]),
            data={"w": torch.from_numpy(data["to_weights"][rows])},
        ).formats("csc")
        more.create_formats_()
        draw(more, torch.from_numpy(few1k), 10, prob="w", replace=True)

    out["dgl_update_1k_and_sample"] = best(rebuild)


if __name__ == "__main__":
    workload, figures = dict(np.load(sys.argv[1])), {}
    networkit(workload, figures)
    dgl(workload, figures)
    print(json.dumps(figures))
