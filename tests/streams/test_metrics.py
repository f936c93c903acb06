"""The worker's figures, as Prometheus and the heartbeat see them."""

import re
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from streams.metrics import CanaryMetrics, Metrics
from streams.registry import BUCKETS_S, Distribution, families, memory_limit

DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def documented(section: str) -> dict[str, str]:
    """Name -> type, as a section of the docs has them."""
    text = re.search(rf"^## {section}$(.*?)(?=^## )", DOCS.read_text(), re.M | re.S)
    assert text is not None
    return dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", text[1], re.M))


def test_events_are_counted_by_topic_and_outcome():
    metrics = Metrics()

    metrics.events("coplays", read=10, applied=9, dead=1)
    metrics.events("coplays", read=5, applied=5)

    assert metrics.event_counts() == {"coplays": {"in": 15, "applied": 14, "dead": 1}}
    text = metrics.expose().decode()
    assert 'upwell_events_total{outcome="applied",topic="coplays"} 14.0' in text


def test_freshness_is_a_histogram_and_percentiles_of_the_last_samples():
    metrics = Metrics()

    metrics.freshness("catalog", np.arange(101) / 100)

    assert metrics.freshness_now() == {"catalog": {"p50": 0.5, "p99": 0.99}}
    assert metrics.freshness_recent() == {"catalog": {"p50": 0.5, "p99": 0.99}}
    assert metrics.freshness_all() == {"catalog": {"mean": pytest.approx(0.5), "count": 101}}
    text = metrics.expose().decode()
    assert 'upwell_freshness_seconds_bucket{kind="catalog",le="0.5"} 51.0' in text


@given(st.lists(st.lists(st.sampled_from([0.0, 0.375, 0.5, 0.75, 1.0, 3600.0, 3601.0, 1e9]))))
def test_a_distribution_is_prometheus_own_histogram_a_batch_at_a_time(batches):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    # Halves and quarters, whose sums are exact in any order; some of them are edges of buckets.
    distribution = Distribution("x_seconds", "X.", ["kind"], registry=ours)
    histogram = Histogram("x_seconds", "X.", ["kind"], buckets=BUCKETS_S, registry=theirs)

    for batch in batches:
        distribution.observe(batch, "a")
        for value in batch:
            histogram.labels("a").observe(value)

    if any(batches):
        lines = generate_latest(theirs).decode().splitlines()
        expected = [line for line in lines if "_created" not in line]
        assert generate_latest(ours).decode().splitlines() == expected


@pytest.mark.parametrize(("section", "made"), [("Worker", Metrics), ("Canary", CanaryMetrics)])
def test_the_docs_name_every_metric_and_no_other(section, made):
    types = {
        name: {"info": "gauge"}.get(kind, kind) for name, (kind, _) in families(made()).items()
    }

    ours = {name: kind for name, kind in types.items() if name.startswith("upwell_")}
    assert documented(section) == ours


def test_what_is_not_known_yet_is_no_number():
    metrics = Metrics()
    assert "\nupwell_drift_cosine NaN\n" in metrics.expose().decode()

    metrics.cycle("skipped", 0.1, float("nan"), loss=float("nan"))
    assert "\nupwell_drift_cosine NaN\n" in metrics.expose().decode()
    metrics.cycle("passed", 0.1, 0.99, loss=0.5, recall={"before": 0.1, "after": 0.2})

    text = metrics.expose().decode()
    assert "\nupwell_drift_cosine 0.99\n" in text
    assert 'upwell_gate_recall{weights="after"} 0.2' in text


def test_the_memory_limit_is_the_smallest_that_holds(tmp_path):
    group, unlimited = tmp_path / "group", tmp_path / "unlimited"
    group.write_text("1048576\n")
    unlimited.write_text("max\n")

    machine = memory_limit([str(tmp_path / "none"), str(unlimited)])

    assert memory_limit([str(unlimited), str(group)]) == 1_048_576
    assert machine > 1_048_576
