"""A wheel of the project brings the kernels with it: installed elsewhere, they compile and run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

STORY = """
import sys
from pathlib import Path
import numpy as np
import store
from store.edges import EdgeBatch
from store.graph import DynamicGraph, Relation

assert Path(store.__file__).is_relative_to(sys.argv[1]), store.__file__
graph = DynamicGraph([Relation("genre", "title", "concept")])
titles, concepts = graph.ids["title"].intern(["a", "b"]), graph.ids["concept"].intern(["x", "y"])
graph.apply(
    EdgeBatch(
        np.zeros(2, np.int16), titles, concepts, np.ones(2, np.float32), np.zeros(2, np.uint8),
        np.zeros(2, np.int64),
    )
)
graph.change(0, 0, 1, 2.0, 1, 0)
print(graph.sample(0, titles, 1, seed=1).shape, graph.weight(0, [0, 1], [1, 1]).tolist())
"""


def run(*command: str | Path, cwd: Path, **settings: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | settings
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_a_wheel_that_is_installed_elsewhere_compiles_and_runs(tmp_path: Path) -> None:
    source, wheels, site = (tmp_path / name for name in ("source", "wheels", "site"))
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in ("model", "partition", "serve", "store", "streams"):
        shutil.copytree(
            ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")

    run(
        *pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
        "--wheel-dir", wheels, ".", cwd=source,
    )  # fmt: skip
    [wheel] = wheels.glob("upwell-*.whl")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel, cwd=wheels)
    said = run(
        sys.executable, "-c", STORY, site, cwd=wheels,
        PYTHONPATH=str(site), XDG_CACHE_HOME=str(tmp_path / "cache"),
    )  # fmt: skip

    assert said.strip() == "(2, 1) [2.0, 1.0]"
    assert list((tmp_path / "cache").rglob("*.nbc"))
