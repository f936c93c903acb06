"""What metrics are made of: a registry of Prometheus' families, and histograms of whole batches.

The only file that knows prometheus-client. Base units; no label takes a title, or anything else
that grows with the catalogue.

Histograms are arrays that take a whole batch in one call: a loop over titles would cost the refresh
lane more than its publishing.
"""

import os
import platform
import threading
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Info,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

Floats = npt.NDArray[np.float64]

BUCKETS_S = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0),
    *(30.0, 60.0, 300.0, 900.0, 3600.0),
)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Distribution(Collector):
    """A histogram that takes arrays. Its lines are those of any Prometheus histogram."""

    def __init__(
        self, name: str, help_: str, labels: Sequence[str] = (), *, registry: CollectorRegistry
    ) -> None:
        self._name, self._help, self._labels = name, help_, tuple(labels)
        self._lock = threading.Lock()
        self._edges = np.array(BUCKETS_S)
        self._counts: dict[tuple[str, ...], npt.NDArray[np.int64]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        if not labels:
            self.observe(())  # a rate needs the 0 before the first sample
        registry.register(self)

    def observe(self, seconds: Floats | Sequence[float], *labels: str) -> None:
        """Add samples of shape (N,), seconds; a value for each label."""
        values = np.asarray(seconds, np.float64)
        # A sample on an edge belongs to the bucket below: le means less or equal.
        buckets = np.searchsorted(self._edges, values, side="left")
        counts = np.bincount(buckets, minlength=len(self._edges) + 1)
        total = float(values.sum())
        with self._lock:
            known = self._counts.get(labels)
            self._counts[labels] = counts if known is None else known + counts
            self._sums[labels] = self._sums.get(labels, 0.0) + total

    def total(self, *labels: str) -> tuple[float, int]:
        """Sum and count of the samples."""
        with self._lock:
            counts = self._counts.get(labels)
            return (0.0, 0) if counts is None else (self._sums[labels], int(counts.sum()))

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Its name alone, for the registry."""
        return [HistogramMetricFamily(self._name, self._help, labels=self._labels)]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What Prometheus reads."""
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        with self._lock:
            found = [
                (labels, counts, self._sums[labels]) for labels, counts in self._counts.items()
            ]
        edges = [*map(repr, BUCKETS_S), "+Inf"]
        for labels, counts, total in found:
            upto = np.cumsum(counts).tolist()
            family.add_metric(labels, list(zip(edges, upto, strict=True)), total)
        yield family


class Registry:
    """The metrics of one process: `expose` is the page that Prometheus reads."""

    def __init__(self, role: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, CPU, open files, start
        built = Info("upwell_build", "Version of the program.", registry=self.registry)
        built.info({"version": _version(), "python": platform.python_version(), "role": role})
        limit = self._gauge("upwell_memory_limit_bytes", "Memory that the process may use.")
        limit.set(memory_limit())

    def expose(self) -> bytes:
        """Every metric in Prometheus's text format, of `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, help_: str, *labels: str, unknown: bool = False) -> Gauge:
        gauge = Gauge(name, help_, labels, registry=self.registry)
        if unknown:  # not a number until it is one: no alert holds a 0 against anybody
            gauge.set(float("nan"))
        return gauge

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(name, help_, labels, registry=self.registry)

    def _histogram(self, name: str, help_: str, *labels: str) -> Distribution:
        return Distribution(name, help_, labels, registry=self.registry)


def families(registry: Registry) -> dict[str, tuple[str, str]]:
    """Each metric's name as Prometheus shows it -> its type and its meaning."""
    found = {}
    for family in registry.registry.collect():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        found[family.name + suffix] = (family.type, family.documentation)
    return found


def memory_limit(files: Sequence[str] = _MEMORY_LIMITS) -> int:
    """Bytes that this process may use: its container's limit, at most the machine's memory."""
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in files:
        try:
            limit = min(limit, int(Path(file).read_text()))
        except (OSError, ValueError):  # no such file, or the word `max`
            continue
    return limit


def _version() -> Any:
    try:
        return version("upwell")
    except PackageNotFoundError:  # run from a tree that was not installed
        return "unknown"
