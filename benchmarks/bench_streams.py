"""Co-plays from Kafka into the store, in one process, next to a loop that throws the bytes away.

    make bench-streams ARGS="--json FILE --peers PYTHON"

--peers names an interpreter that has `quixstreams`; without one Quix Streams is left out, and the
run says so. Faust is in our own environment. Writes {"figures": {name: value}, "machine": ...,
"seed": ...}. The broker runs on the same machine: Apache Kafka as the tests have it, the embedded
one where Java or its jars are missing, or the one that --bootstrap names. What is timed is the
worker's own ingest, from the first message that the client hands over to the last one folded in:
fetch, decode, check, intern, add to the graph, mark dirty, keep for training. Each round starts
with an empty store; rounds take turns; medians stand.

`arrow_events_per_s` is with a graph of `--threads` threads (`graph.threads`), all else with one.
`json_vs_bare_consume` is our rate of JSON messages by that of `consume` alone, with the same client
settings, in the same run. The broker and the client's own threads take their share of both.
`json_vs_quix` and `json_vs_faust` are by the rates at which those decode the same messages and add
each weight to a dictionary (streams_peers.py), which is less than what we do; each in a process of
its own, on the first `--peer-events` that it is given.
"""

import argparse
import json
import os
import platform
import subprocess
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
from streams.ingest import MAX_BYTES, Ingest
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
    # Without compression: aiokafka, on which Faust stands, lacks the codecs of most brokers.
    with Producer(address, linger_s=0.05, timeout_s=120) as producer:
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
            "queued.max.messages.kbytes": MAX_BYTES // 4 // 1024,
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


def folded(address: str, topic: str, count: int, threads: int = 1) -> tuple[float, State]:
    """Seconds from the first batch to the last one, folded into a new store; and that store."""
    kafka = KafkaSettings(bootstrap=address, coplays=topic, catalog="none")
    state = State.empty(GraphSettings(threads=threads))
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


def peer_seconds(python: str, peer: str, address: str, count: int) -> float | None:
    """Seconds that a peer takes for its first `count` events; None where it is not installed."""
    script = str(Path(__file__).with_name("streams_peers.py"))
    command = [python, script, peer, address, "json", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode == 3:
        return None
    if done.returncode:
        raise SystemExit(f"{peer} failed with code {done.returncode}:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


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
    parser.add_argument("--threads", type=int, default=2, help="of the graph, for Arrow")
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has quixstreams")
    parser.add_argument("--peer-events", type=int, default=60_000)
    parser.add_argument("--peer-rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two rounds of everything")
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="a broker of yours")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.peer_rounds = 2, 1
    events = columns_of(options.events, options.titles, np.random.default_rng(options.seed))
    count = options.events
    took: dict[str, list[float]] = {"bare": [], "json": [], "arrow": []}
    peers = {"quix": options.peers, "faust": sys.executable}
    peer_took: dict[str, list[float]] = {peer: [] for peer, python in peers.items() if python}
    pauses = []
    say = Console(stderr=True).print
    if not options.peers:
        say("[bold red]Quix Streams is left out[/]: name an interpreter that has it by --peers")
    with broker_at(options.bootstrap) as (address, what):
        fill(address, events)
        arrows = -(-count // ROWS)
        for turn in range(options.rounds + 1):
            seconds = {
                "bare": bare(address, "json", count),
                "json": (from_json := folded(address, "json", count))[0],
                "arrow": (from_arrow := folded(address, "arrow", arrows, options.threads))[0],
            }
            graph, same = from_json[1].graph, from_arrow[1].graph
            assert graph.num_edges(0) == same.num_edges(0)
            if turn:  # the first one compiles
                pauses.append(pause_of(from_json[1]))
                for way, one in seconds.items():
                    took[way].append(one)
            if 1 <= turn <= options.peer_rounds:
                for peer in list(peer_took):
                    took_s = peer_seconds(peers[peer], peer, address, options.peer_events)
                    if took_s is None:
                        say(f"[bold red]{peer} is left out[/]: {peers[peer]} does not have it")
                        del peer_took[peer]
                    else:
                        peer_took[peer].append(took_s)
    rate = {way: count / float(np.median(seconds)) for way, seconds in took.items()}
    ratios = [ours / theirs for ours, theirs in zip(took["bare"], took["json"], strict=True)]
    figures = {
        "json_events_per_s": round(rate["json"]),
        "arrow_events_per_s": round(rate["arrow"]),
        "bare_consume_per_s": round(rate["bare"]),
        "json_vs_bare_consume": round(float(np.median(ratios)), 3),
        "checkpoint_pause_ms": round(float(np.median(pauses)) * 1000, 1),
    }
    for peer, seconds in peer_took.items():
        theirs = options.peer_events / float(np.median(seconds))
        figures[f"{peer}_events_per_s"] = round(theirs)
        figures[f"json_vs_{peer}"] = round(rate["json"] / theirs, 1)
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
