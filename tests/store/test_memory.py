"""Out of memory: a batch that finds no room leaves the graph as it was, and finds it later."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

STORY = """
import resource
import numpy as np
from store.edges import EdgeBatch
from store.graph import DynamicGraph, Relation

MIB, COUNT, VERTICES = 1 << 20, 400_000, 20_000
rng = np.random.default_rng(3)
graph = DynamicGraph(
    [Relation("coplay", "title", "title", True), Relation("genre", "title", "concept")], threads=2
)
for kind in ("title", "concept"):
    graph.ids[kind].intern([str(n) for n in range(VERTICES)])

def batch(count, ops):
    return EdgeBatch(
        rng.integers(0, 2, count).astype(np.int16),
        rng.integers(0, VERTICES, count).astype(np.int32),
        rng.integers(0, VERTICES, count).astype(np.int32),
        rng.random(count).astype(np.float32),
        rng.choice(3, count, p=ops).astype(np.uint8),
        np.zeros(count, np.int64),
    )

def state():
    forests = graph.forests().values()
    return [a.tolist() for f in forests for a in f.neighbors(np.arange(f.num_vertices))]

graph.apply(batch(50_000, [0.5, 0.5, 0]))
graph.sample(0, np.arange(10), 2, seed=1)
before = state()
large = batch(COUNT, [0.4, 0.4, 0.2])
refused, room = 0, 4
while True:
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + room * MIB, resource.RLIM_INFINITY))
    try:
        graph.apply(large)
        done = True
    except MemoryError:
        done = False
        refused += 1
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if done:
        break
    assert state() == before, f"changed at {room} MiB"
    room += 8
assert state() != before
print("refused", refused)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's limits")
def test_a_batch_that_finds_no_room_changes_nothing() -> None:
    """Little by little more memory is allowed, so that it ends at one place after another."""
    story = subprocess.run(
        [sys.executable, "-c", STORY], cwd=ROOT, capture_output=True, text=True, timeout=300
    )

    assert story.returncode == 0, story.stderr[-2000:]
    assert int(story.stdout.split()[1]) >= 3
