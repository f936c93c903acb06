"""The worker's figures, as Prometheus and the heartbeat see them."""

import numpy as np
from prometheus_client import generate_latest

from streams.metrics import Metrics


def test_events_are_counted_by_topic_and_outcome():
    metrics = Metrics()

    metrics.events("coplays", read=10, applied=9, dead=1)
    metrics.events("coplays", read=5, applied=5)

    assert metrics.event_counts() == {"coplays": {"in": 15, "applied": 14, "dead": 1}}
    text = generate_latest(metrics.registry).decode()
    assert 'upwell_events_total{outcome="applied",topic="coplays"} 14.0' in text


def test_freshness_is_a_histogram_and_percentiles_of_the_last_samples():
    metrics = Metrics()

    metrics.freshness("catalog", np.arange(101) / 100)

    assert metrics.freshness_now() == {"catalog": {"p50": 0.5, "p99": 0.99}}
    text = generate_latest(metrics.registry).decode()
    assert 'upwell_freshness_seconds_bucket{kind="catalog",le="0.5"} 51.0' in text
