"""Seconds and peak memory of a piece of work."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STATM = Path("/proc/self/statm")
_PAGE = 4096  # bytes
_EVERY_S = 0.02


@dataclass(slots=True)
class Meter:
    """What was measured so far.

    Attributes:
        seconds: wall time of the last piece.
        peak_mb: largest growth of the resident memory in any piece, MB of 10**6 bytes; 0 where the
            system does not tell.
    """

    seconds: float = 0.0
    peak_mb: float = 0.0

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Measure what is done inside."""
        before = peak = _resident()
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(_EVERY_S):
                peak = max(peak, _resident())

        watcher = threading.Thread(target=watch, name="meter", daemon=True)
        start = time.perf_counter()
        watcher.start()
        try:
            yield
        finally:
            self.seconds = time.perf_counter() - start
            done.set()
            watcher.join()
            peak = max(peak, _resident())
            self.peak_mb = max(self.peak_mb, (peak - before) / 1e6)


def _resident() -> int:
    """Resident memory of this process in bytes; 0 where it is not told."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
