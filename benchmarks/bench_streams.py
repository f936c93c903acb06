"""Co-plays from Kafka into the store, in one process, next to a loop that throws the bytes away.

    make bench-streams ARGS="--json FILE"

Writes {"figures": {name: value}, "machine": ..., "seed": ...}. The broker runs on the same machine:
Apache Kafka as the tests have it, the embedded one where Java or its jars are missing, or the one
that --bootstrap names. What is timed is the worker's own ingest, from the first message that the
client hands over to the last one folded in: fetch, decode, check, intern, add to the graph, mark
dirty, keep for training. Each round starts with an empty store; rounds take turns; medians stand.

`json_vs_bare_consume` is our rate of JSON messages by that of `consume` alone, with the same client
settings, in the same run. The broker and the client's own threads take their share of both.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from rich.console import Console
from rich.table import Table

from streams.arrow import CONTENT_TYPE, encode_columns
from streams.embedded import Broker
from streams.events import CoPlay, encode
from streams.ingest import MAX_QUEUED_KB, Ingest
from streams.intake import Intake
from streams.metrics import Metrics
from streams.producer import Producer
from streams.settings import GraphSettings, KafkaSettings
from streams.state import State
from streams.topics import TopicSpec, ensure_topics

ROOT = Path(__file__).resolve().parent.parent
PARTITIONS = 4
ROWS = 10_000  # events in one Arrow message
TIME_MS = 1_700_000_000_000
HEADER = [("content-type", CONTENT_TYPE.encode())]


@contextmanager
def broker_at(named: str | None) -> Iterator[tuple[str, str]]:
    """Address of a broker, and what it is."""
    if named is not None:
        yield named, "as named"
        return
    sys.path.insert(0, str(ROOT))
    from tests.kafka.node import Kafka, Missing

    try:
        node, what = Kafka(), "Apache Kafka"
    except Missing as error:
        Console(stderr=True).print(f"the embedded broker, which is not Apache Kafka: {error}")
        node, what = Broker(), "embedded"
    with node:
        yield node.address, what


def columns_of(events: int, titles: int, rng: np.random.Generator) -> dict[str, list]:
    """Co-plays of titles whose popularity falls as their rank grows."""
    rank = np.minimum(rng.pareto(1.0, events) * titles / 200, titles - 1).astype(int)
    other = (rank + 1 + rng.integers(0, titles - 1, events)) % titles
    names = np.array([f"m{row}" for row in range(titles)], object)
    weight = rng.integers(1, 9, events) / 8
    time_ms = TIME_MS + np.arange(events)
    pairs = {"a": names[rank].tolist(), "b": names[other].tolist()}
    return pairs | {"time_ms": time_ms.tolist(), "weight": weight.tolist()}


def fill(address: str, events: dict[str, list]) -> None:
    """Write the same events to `json`, one a message, and to `arrow`, many a message."""
    ensure_topics(address, [TopicSpec(topic, PARTITIONS) for topic in ("json", "arrow", "none")])
    count = len(events["a"])
    with Producer(address, {"compression.type": "lz4"}, linger_s=0.05, timeout_s=120) as producer:
        rows = zip(events["a"], events["b"], events["time_ms"], events["weight"], strict=True)
        for row in rows:
            producer.send("json", key=row[0], value=encode(CoPlay(*row)))
        for number, at in enumerate(range(0, count, ROWS)):
            some = {name: column[at : at + ROWS] for name, column in events.items()}
            value = encode_columns(some)
            part = number % PARTITIONS
            producer.send("arrow", key=None, value=value, headers=HEADER, partition=part)


def bare(address: str, topic: str, count: int) -> float:
    """Seconds from the first batch to the last one, thrown away as they come."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "bare",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 20,
            "queued.max.messages.kbytes": MAX_QUEUED_KB,
            "queued.min.messages": 1_000_000,
            "fetch.queue.backoff.ms": 10,
            "fetch.message.max.bytes": 16 * 2**20,
        }
    )
    consumer.assign([TopicPartition(topic, part, OFFSET_BEGINNING) for part in range(PARTITIONS)])
    seen, start = 0, 0.0
    while seen < count:
        found = len(consumer.consume(500, timeout=0.05))
        start = start or (time.perf_counter() if found else 0.0)
        seen += found
    took = time.perf_counter() - start
    consumer.close()
    return took


def folded(address: str, topic: str, count: int) -> tuple[float, State]:
    """Seconds from the first batch to the last one, folded into a new store; and that store."""
    kafka = KafkaSettings(bootstrap=address, coplays=topic, catalog="none")
    state = State.empty(GraphSettings())
    with Ingest(address, ["none", topic], group="bench") as ingest:
        intake = Intake(ingest, Producer(address), state, Metrics(), kafka)
        seen, start = 0, 0.0
        while seen < count:
            batch = ingest.consume(kafka.max_batch, kafka.poll_s)
            if len(batch):
                start = start or time.perf_counter()
                seen += len(batch)
                intake.take(batch)
        return time.perf_counter() - start, state


def pause_of(state: State) -> float:
    """Seconds for which a checkpoint stops the ingest."""
    with tempfile.TemporaryDirectory() as folder, state.lock:
        start = time.perf_counter()
        state.save(Path(folder))
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--events", type=int, default=600_000)
    parser.add_argument("--titles", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="a broker of yours")
    options = parser.parse_args()
    events = columns_of(options.events, options.titles, np.random.default_rng(options.seed))
    count = options.events
    took: dict[str, list[float]] = {"bare": [], "json": [], "arrow": []}
    pauses = []
    with broker_at(options.bootstrap) as (address, what):
        fill(address, events)
        arrows = -(-count // ROWS)
        for turn in range(options.rounds + 1):
            seconds = {
                "bare": bare(address, "json", count),
                "json": (from_json := folded(address, "json", count))[0],
                "arrow": (from_arrow := folded(address, "arrow", arrows))[0],
            }
            graph, same = from_json[1].graph, from_arrow[1].graph
            assert graph.num_edges(0) == same.num_edges(0)
            if turn:  # the first one compiles
                pauses.append(pause_of(from_json[1]))
                for way, one in seconds.items():
                    took[way].append(one)
    rate = {way: count / float(np.median(seconds)) for way, seconds in took.items()}
    ratios = [ours / theirs for ours, theirs in zip(took["bare"], took["json"], strict=True)]
    figures = {
        "json_events_per_s": round(rate["json"]),
        "arrow_events_per_s": round(rate["arrow"]),
        "bare_consume_per_s": round(rate["bare"]),
        "json_vs_bare_consume": round(float(np.median(ratios)), 3),
        "checkpoint_pause_ms": round(float(np.median(pauses)) * 1000, 1),
    }
    table = Table("figure", "value", box=None, header_style="bold")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}")
    Console().print(table)
    edges = graph.num_edges(0)
    print(
        f"{what}; {count} events, {options.titles} titles, {edges} edges, {options.rounds} rounds"
    )
    if options.json:
        machine = (
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        )
        told = {"figures": figures, "machine": machine, "broker": what, "seed": options.seed}
        options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
