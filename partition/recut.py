"""A cut made in another process: a cutter holds Python's lock for all it does, which is seconds on
a large graph, and a worker has plays to take in meanwhile.

`python -m partition.recut FOLDER` reads `live.npy`, `heads.npy`, `tails.npy`, `weights.npy` and
`order.json` there, and writes `part.npy` and `cut.json`.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from partition.mincut import CoplayEdges, Cutter, Partition, cut_edges

COLUMNS = ("live", "heads", "tails", "weights")
NICENESS = 10  # of the process that cuts: its result can wait
LAST_LINES = 500  # characters of what a failed one said


class CutFailed(RuntimeError):
    """The process that was to cut did not: how it ended, and what it said."""


class Recut:
    """One cut under way; a thread waits for the process that makes it.

    Args:
        edges, num_parts, seed, cutter, threads: see `cut_edges`.
    """

    def __init__(
        self,
        edges: CoplayEdges,
        num_parts: int,
        *,
        seed: int,
        cutter: Cutter = "auto",
        threads: int = 1,
    ) -> None:
        order = {
            "num_parts": num_parts,
            "seed": seed,
            "cutter": cutter,
            "threads": threads,
            "capacity": edges.capacity,
        }
        self._result: Partition | None = None
        self._error: Exception | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(
            target=self._run, args=(edges, order), name="recut", daemon=True
        )
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Partition:
        """Wait for the cut.

        Raises:
            CutFailed: the process was killed, or ran out of memory.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._result is not None  # noqa: S101  (no error, and the thread has ended)
        return self._result

    def stop(self) -> None:
        """End the process, and wait until it has."""
        with self._starting:
            self._stopped = True
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
        self._thread.join()

    def _run(self, edges: CoplayEdges, order: dict[str, object]) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="upwell-cut-") as name:
                folder = Path(name)
                for column in COLUMNS:
                    np.save(folder / f"{column}.npy", getattr(edges, column), allow_pickle=False)
                (folder / "order.json").write_text(json.dumps(order))
                self._cut(folder)
                figures = json.loads((folder / "cut.json").read_text())
                part = np.load(folder / "part.npy", allow_pickle=False)
                self._result = Partition(part, **figures)
        except (CutFailed, OSError, ValueError) as error:
            self._error = error

    def _cut(self, folder: Path) -> None:
        with (folder / "said").open("wb") as said:
            with self._starting:
                if self._stopped:
                    raise CutFailed("the cut was stopped before it began")
                self._process = subprocess.Popen(  # noqa: S603  (our own module)
                    [sys.executable, "-m", "partition.recut", str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                )
            code = self._process.wait()
        if code:
            words = (folder / "said").read_text(errors="replace").strip()[-LAST_LINES:]
            ended = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise CutFailed(f"the process that cuts ended with {ended}: {words or 'no word'}")


def _main(folder: Path) -> None:
    os.nice(NICENESS)
    order = json.loads((folder / "order.json").read_text())
    live, heads, tails, weights = (
        np.load(folder / f"{column}.npy", allow_pickle=False) for column in COLUMNS
    )
    edges = CoplayEdges(live, order.pop("capacity"), heads, tails, weights)
    made = cut_edges(edges, order.pop("num_parts"), **order)
    np.save(folder / "part.npy", made.part, allow_pickle=False)
    figures = {
        "num_parts": made.num_parts,
        "kept_weight": made.kept_weight,
        "balance": made.balance,
        "seconds": made.seconds,
    }
    (folder / "cut.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
