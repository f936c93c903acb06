"""A snapshot of version 1 is read as it was, and of a later one it is said that it is not."""

import json
from pathlib import Path

import numpy as np
import pytest

from store.blocks import CAPACITIES, UNIT, count_of, form_of, level_of, size_of, span
from store.forest import MAX_ID, MODES, Forest
from store.graph import DynamicGraph, Relation

OLD = [
    *range(4, 33, 4),
    *range(48, 129, 16),
    *range(160, 257, 32),
    *range(320, 513, 64),
    *range(640, 1025, 128),
]
WHOLE = 4


def older_node(mode: int, records: np.ndarray, at: int, words: np.ndarray) -> None:
    """Write a node, and all below it, as version 1 did: whole ids one after another."""
    block, meta = int(records[at]), int(records[at + 1])
    if block == 0:
        return
    count, capacity = int(count_of.py_func(meta)), int(CAPACITIES[size_of.py_func(meta)])
    level, form = int(level_of.py_func(meta)), int(form_of.py_func(meta))
    assert capacity in OLD
    assert level > 0 or form in (0, WHOLE)
    narrow = level == 0 and form == 0
    records[at + 1] = count | OLD.index(capacity) << 16 | narrow << 24 | level << 25
    ids = block * UNIT + int(span.py_func(mode, capacity))
    if level:
        for k in range(count):
            older_node(mode, words, ids + capacity + 4 * k, words)
    elif form == WHOLE:
        halves = words[ids : ids + capacity].view(np.uint16).astype(np.int32)
        words[ids : ids + count] = halves[:count] | halves[capacity : capacity + count] << 16


@pytest.mark.parametrize("index", ["sums16", "fstable", "cstable"])
def test_a_forest_of_version_1_answers_and_draws_as_it_did(index: str) -> None:
    rng = np.random.default_rng(8)
    dense = np.arange(70_000, 70_016)
    sparse = [np.sort(rng.choice(MAX_ID, count, False)) for count in (3, 64, 4, 2000, 900)]
    rows = [np.empty(0, np.int64), dense, *sparse]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    tails = np.concatenate(rows).astype(np.int32)
    forest, loaded = Forest(index, 64), Forest(index, 64)
    forest.build(indptr, tails, rng.integers(1, 9, len(tails)).astype(np.float32))
    everyone = np.arange(len(rows), dtype=np.int32)
    arrays = {name: np.array(array) for name, array in forest.arrays().items()}
    for vertex in range(len(rows)):
        older_node(MODES[index], arrays["table"], 4 * vertex, arrays["words"])

    loaded.restore(arrays)
    loaded.upgrade()

    for ours, theirs in zip(loaded.neighbors(everyone), forest.neighbors(everyone), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(
        loaded.sample(everyone, 20, 3, weighted=True, replace=True),
        forest.sample(everyone, 20, 3, weighted=True, replace=True),
    )
    heads = np.repeat(everyone, np.diff(indptr))
    gone = np.ones(len(tails), np.float32), np.full(len(tails), 2, np.uint8)
    loaded.apply(heads, tails, *gone)
    assert len(loaded) == loaded.memory_report()["blocks"] == 0


def test_a_graph_of_version_1_is_read_and_one_of_version_3_refused_by_name(tmp_path: Path) -> None:
    DynamicGraph([Relation("genre", "title", "concept")]).save(tmp_path)
    head = json.loads((tmp_path / "graph.json").read_text())
    (tmp_path / "graph.json").write_text(json.dumps({**head, "version": 1}))

    older = DynamicGraph.load(tmp_path)
    (tmp_path / "graph.json").write_text(json.dumps({**head, "version": 3}))

    assert [relation.name for relation in older.relations] == ["genre"]
    with pytest.raises(ValueError, match="is of version 3: this program reads 1 and 2"):
        DynamicGraph.load(tmp_path)
