"""Publishing and reading through a real server, next to what the bare client does in the same run.

    make bench-serve ARGS="--json FILE --feast PYTHON"
    make bench-serve ARGS="--only publish read"

Writes {"figures": {name: value}, "machine": ..., "seed": ...}. A figure with `_vs_` is a ratio to
the peer: of rates in `publish_vs_hset`, where more is better; else of latencies, where less is.
Publishers and readers are processes of their own, since threads would share one interpreter.
"""

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from redis import Redis
from rich.console import Console
from rich.table import Table

from serve import spaces, vectors
from serve.cache import CachedReader
from serve.connection import connect
from serve.publisher import Publisher
from serve.reader import EmbeddingReader
from serve.similar import SimilarTitles
from serve.topology import address_of
from streams.embedded import RedisServer

DIM = 128
ASKED = 100  # titles in one read
LOAD_PER_S = 20_000  # embeddings published a second while reads are timed
CACHE_LOAD_PER_S = 1_000  # the same, while reads from the cache are timed
TIME_MS = 1_700_000_000_000
PROCESSES = multiprocessing.get_context("spawn")

Figures = dict[str, float | int | str | None]


def titles_of(count: int) -> list[str]:
    return [f"m{row}" for row in range(count)]


def times_of(count: int) -> npt.NDArray[np.int64]:
    return np.full(count, TIME_MS, np.int64)


def opened(client: Redis, space: str) -> Publisher:
    publisher = Publisher(client, space)
    publisher.create_space(DIM)
    return publisher


def bench_publish(url: str, count: int, repeats: int, rng: np.random.Generator) -> Figures:
    """One connection: our publish, and a pipelined HSET of the same fields without its check."""
    client = connect(url)
    publisher = opened(client, "bench")
    titles, times = titles_of(count), times_of(count)
    matrix = rng.standard_normal((count, DIM), dtype=np.float32)

    def ours(seq: int) -> None:
        publisher.publish(titles, matrix, seq=seq, step=1, time_ms=times)

    def bare(seq: int) -> None:
        for start in range(0, count, 512):
            pipe = client.pipeline(transaction=False)
            for title, vector in zip(
                titles[start : start + 512], matrix[start : start + 512], strict=True
            ):
                fields = {"vec": vector.tobytes(), "seq": seq, "step": 1, "time_ms": TIME_MS}
                pipe.hset(f"bare:{title}", mapping=fields)
            pipe.execute()

    ours(1)
    bare(1)
    took: dict[Callable[[int], None], list[float]] = {ours: [], bare: []}
    for seq in range(2, repeats + 2):
        for way, seconds in took.items():
            start = time.perf_counter()
            way(seq)
            seconds.append(time.perf_counter() - start)
    # The best of each: what else the machine does can only make a turn slower.
    per_s = {way: count / min(seconds) for way, seconds in took.items()}
    used = client.memory_usage(vectors.title_key("bench", "m0"))
    spaces.drop(client, "bench")
    client.close()
    return {
        "publish_per_s": round(per_s[ours]),
        "hset_per_s": round(per_s[bare]),
        "publish_vs_hset": round(per_s[ours] / per_s[bare], 3),
        "bytes_per_title": used,
    }


def load(url: str, count: int, per_s: int, stop: Event) -> None:
    """Publish `per_s` embeddings a second to the live space, a batch each 50 ms."""
    client = connect(url)
    publisher = opened(client, "main")
    rng = np.random.default_rng(1)
    batch = per_s // 20
    titles, times = titles_of(count), times_of(batch)
    seq = publisher.last_seq()
    while not stop.is_set():
        start = time.perf_counter()
        seq += 1
        chosen = [titles[row] for row in rng.integers(count, size=batch).tolist()]
        matrix = rng.standard_normal((batch, DIM), dtype=np.float32)
        publisher.publish(chosen, matrix, seq=seq, step=1, time_ms=times)
        stop.wait(max(0.0, 0.05 - (time.perf_counter() - start)))
    client.close()


@contextmanager
def under_load(publisher: Publisher, url: str, count: int, per_s: int) -> Iterator[None]:
    stop = PROCESSES.Event()
    loader = PROCESSES.Process(target=load, args=(url, count, per_s, stop))
    before = publisher.last_seq()
    loader.start()
    try:
        while publisher.last_seq() < before + 5:
            time.sleep(0.01)
        yield
    finally:
        stop.set()
        loader.join()


def timed(
    ways: dict[str, Callable[[list[str]], Any]],
    titles: list[str],
    reads: int,
    rng: np.random.Generator,
) -> dict[str, npt.NDArray[np.float64]]:
    """Seconds of each read, the ways in turn over the same titles; the first tenth warms up."""
    took = {name: np.zeros(reads) for name in ways}
    for turn in range(reads):
        asked = [titles[row] for row in rng.integers(len(titles), size=ASKED).tolist()]
        for name, way in ways.items():
            start = time.perf_counter()
            way(asked)
            took[name][turn] = time.perf_counter() - start
    return {name: seconds[reads // 10 :] for name, seconds in took.items()}


def bench_read(url: str, count: int, reads: int, rng: np.random.Generator) -> Figures:
    """get_many(100) under load: from Redis, by a bare pipeline, and from the warm cache."""
    client = connect(url)
    publisher = opened(client, "main")
    titles = titles_of(count)
    matrix = rng.standard_normal((count, DIM), dtype=np.float32)
    publisher.publish(titles, matrix, seq=1, step=1, time_ms=times_of(count))
    publisher.switch()
    prefix = vectors.title_prefix("main")

    def bare(asked: list[str]) -> npt.NDArray[np.float32]:
        pipe = client.pipeline(transaction=False)
        for title in asked:
            pipe.hget(prefix + title, "vec")
        return np.frombuffer(b"".join(pipe.execute()), "<f4").reshape(-1, DIM)

    with under_load(publisher, url, count, LOAD_PER_S):
        ways = {"read": EmbeddingReader(client).get_many, "bare": bare}
        took = timed(ways, titles, reads, rng)
    with under_load(publisher, url, count, CACHE_LOAD_PER_S), CachedReader(url) as cached:
        cached.get_many(titles)
        took |= timed({"cached": cached.get_many}, titles, reads, rng)
    client.close()
    figures: Figures = {"load_per_s": LOAD_PER_S, "cached_load_per_s": CACHE_LOAD_PER_S}
    p50, p99 = (
        {name: float(np.percentile(seconds, percent)) for name, seconds in took.items()}
        for percent in (50, 99)
    )
    for name, seconds in took.items():
        figures[f"{name}_p50_ms"] = round(p50[name] * 1000, 3)
        figures[f"{name}_p99_ms"] = round(p99[name] * 1000, 3)
        figures[f"{name}_per_s"] = round(1 / float(seconds.mean()))
    figures["read_p50_vs_bare"] = round(p50["read"] / p50["bare"], 3)
    figures["read_p99_vs_bare"] = round(p99["read"] / p99["bare"], 3)
    return figures


def bench_copy(url: str, count: int, rng: np.random.Generator) -> Figures:
    """A local copy for searches: made from Redis, taken up from a shared file, and searched."""
    client = connect(url)
    publisher = opened(client, "main")
    titles = titles_of(count)
    matrix = rng.standard_normal((count, DIM), dtype=np.float32)
    publisher.publish(titles, matrix, seq=1, step=1, time_ms=times_of(count))
    publisher.switch()
    took = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("copy_made_s", "copy_shared_s"):
            copy = SimilarTitles(client, folder=Path(folder))
            start = time.perf_counter()
            copy.refresh()
            took[name] = round(time.perf_counter() - start, 3)
        searches = np.zeros(100)
        for turn in range(len(searches)):
            start = time.perf_counter()
            copy.near(matrix[turn], 10)
            searches[turn] = time.perf_counter() - start
    client.close()
    return {
        "copy_titles": count,
        **took,
        "search_p50_ms": round(float(np.median(searches)) * 1000, 3),
    }


def watch_switches(url: str, count: int, stop: Event, results: Any) -> None:
    """Read until told to stop; say how many batches were read, mixed, and incomplete."""
    titles = titles_of(count)
    batches = mixed = missed = 0
    with EmbeddingReader(url) as reader:
        while not stop.is_set():
            matrix, found, versions = reader.get_many(titles)
            batches += 1
            missed += not found.all()
            mixed += bool((matrix[found] != float(versions.space[1:])).any())
    results.put((batches, mixed, missed))


def bench_switches(url: str, switches: int, readers: int) -> Figures:
    """Fill a space, make it live, drop the one before the last, while others read."""
    client = connect(url)
    titles = titles_of(ASKED)

    def fill(number: int) -> None:
        publisher = opened(client, f"s{number}")
        matrix = np.full((ASKED, DIM), number, np.float32)
        publisher.publish(titles, matrix, seq=1, step=1, time_ms=times_of(ASKED))
        publisher.switch()

    fill(0)
    stop, results = PROCESSES.Event(), PROCESSES.Queue()
    watchers = [
        PROCESSES.Process(target=watch_switches, args=(url, ASKED, stop, results))
        for _ in range(readers)
    ]
    for watcher in watchers:
        watcher.start()
    while client.info("clients")["connected_clients"] < readers + 1:
        time.sleep(0.05)
    for number in range(1, switches + 1):
        fill(number)
        if number >= 2:
            spaces.drop(client, f"s{number - 2}")
    start = time.perf_counter()
    spaces.rollback(client)
    rollback_s = time.perf_counter() - start
    stop.set()
    counts = np.array([results.get() for _ in watchers])
    for watcher in watchers:
        watcher.join()
    client.delete(vectors.CURRENT)
    for space in spaces.list_spaces(client):
        spaces.drop(client, space.name)
    client.close()
    return {
        "switches": switches,
        "switches_batches": int(counts[:, 0].sum()),
        "switches_mixed": int(counts[:, 1].sum()),
        "switches_missed": int(counts[:, 2].sum()),
        "rollback_s": round(rollback_s, 4),
    }


def write_race(url: str, seqs: list[int], count: int) -> None:
    """Publish the same titles with each seq, and vectors that carry it."""
    client = connect(url)
    publisher = Publisher(client, "race")
    publisher.create_space(4)
    titles, times = titles_of(count), times_of(count)
    for seq in seqs:
        matrix = np.full((count, 4), seq, np.float32)
        publisher.publish(titles, matrix, seq=seq, step=1, time_ms=times)
    client.close()


def watch_race(url: str, count: int, stop: Event, results: Any) -> None:
    """Count the titles whose seq went back, or whose vector is not the one of its seq."""
    titles = titles_of(count)
    newest = np.full(count, -1, np.int64)
    bad = 0
    with EmbeddingReader(url, space="race") as reader:
        while not stop.is_set():
            matrix, _, versions = reader.get_many(titles)
            bad += int((versions.seq < newest).sum())
            bad += int((matrix[:, 0] != versions.seq)[versions.seq > 0].sum())
            newest = versions.seq
    results.put(bad)


def bench_race(url: str, writes: int, rng: np.random.Generator) -> Figures:
    """Two publishers, one with the newer and one with the older half of the seqs, in any order."""
    client = connect(url)
    count = 1000
    rounds = max(2, writes // count)
    Publisher(client, "race").create_space(4)
    stop, results = PROCESSES.Event(), PROCESSES.Queue()
    seqs = rng.permutation(np.arange(1, rounds + 1))
    newer = sorted(seqs[: rounds // 2].tolist())  # in order, as a publisher writes
    older = seqs[rounds // 2 :].tolist()  # late and in no order, as after an outage
    watcher = PROCESSES.Process(target=watch_race, args=(url, 200, stop, results))
    writers = [
        PROCESSES.Process(target=write_race, args=(url, part, count)) for part in (newer, older)
    ]
    for process in (watcher, *writers):
        process.start()
    for process in writers:
        process.join()
    stop.set()
    seen_bad = results.get()
    watcher.join()
    with EmbeddingReader(url, space="race") as reader:
        matrix, _, versions = reader.get_many(titles_of(count))
    wrong = int(((versions.seq != rounds) | (matrix[:, 0] != rounds)).sum())
    spaces.drop(client, "race")
    client.close()
    return {"race_writes": rounds * count, "stale_wins": seen_bad + wrong}


def bench_feast(
    python: str | None, url: str, titles: int, reads: int, rng: np.random.Generator
) -> Figures:
    """Our read with nothing else going on, and Feast's of as many titles, in milliseconds (p50).

    Feast's are None without an environment that has it.
    """
    client = connect(url)
    publisher = opened(client, "main")
    matrix = rng.standard_normal((titles, DIM), dtype=np.float32)
    names = titles_of(titles)
    publisher.publish(names, matrix, seq=1, step=1, time_ms=times_of(titles))
    publisher.switch()
    took = timed({"read": EmbeddingReader(client).get_many}, names, reads, rng)
    alone = float(np.percentile(took["read"], 50))
    figures: Figures = {"read_alone_p50_ms": round(alone * 1000, 3)}
    if python is None:
        client.close()
        return {**figures, "feast_p50_ms": None, "read_vs_feast": None}
    client.flushall()
    script = Path(__file__).with_name("feast_reads.py")
    numbers = [str(number) for number in (titles, DIM, reads, ASKED)]
    command = [python, str(script), address_of(client), *numbers]
    client.close()
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = json.loads(ran.stdout.splitlines()[-1])
    feast = float(np.percentile(seconds[reads // 10 :], 50))
    return {
        **figures,
        "feast_p50_ms": round(feast * 1000, 3),
        "read_vs_feast": round(alone / feast, 3),
    }


def gate(seed: int, cycles: int) -> Figures:
    # Here, so that the processes of other parts do not load torch.
    from gate_cycles import bench_gate

    return bench_gate(seed, cycles, Console())


PARTS = ("publish", "read", "copy", "switches", "race", "feast", "gate")
LIMITS = {
    "publish_per_s": ">= 100000",
    "publish_vs_hset": ">= 0.6",
    "read_p99_vs_bare": "<= 1.2",
    "switches_mixed": "0",
    "switches_missed": "0",
    "stale_wins": "0",
    "rollback_s": "<= 1",
    "bad_models_passed": "0",
    "good_models_refused": "0",
}


def machine(client: Redis) -> dict[str, Any]:
    info = client.info("server")
    return {
        "cpus": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "server": f"{info.get('server_name', 'redis')} "
        f"{info.get('valkey_version', info['redis_version'])}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Publishing and reading, against a real server.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--url", help="a server to use, and flush; default: one of our own")
    parser.add_argument("--feast", metavar="PYTHON", help="see feast_reads.py; default: left out")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the work")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    scale = 100 if options.quick else 1
    titles, reads = max(200, 20_000 // scale), max(20, 1_000 // scale)

    with RedisServer() as server:
        url = options.url or server.url
        client = connect(url)
        parts: dict[str, Callable[[], Figures]] = {
            "publish": lambda: bench_publish(url, 50_000 // scale, 7, rng),
            "read": lambda: bench_read(url, titles, 3_000 // scale, rng),
            "copy": lambda: bench_copy(url, 100_000 // scale, rng),
            "switches": lambda: bench_switches(url, max(3, 100 // scale), 8),
            "race": lambda: bench_race(url, 1_000_000 // scale, rng),
            "feast": lambda: bench_feast(options.feast, url, titles, reads, rng),
            "gate": lambda: gate(options.seed, max(5, 100 // scale)),
        }
        figures: Figures = {}
        for name in options.only:
            client.flushall()
            figures |= parts[name]()
        about = machine(client)
        client.flushall()
        client.close()

    table = Table("figure", "value", "limit")
    for name, value in figures.items():
        shown = "-" if value is None else value if isinstance(value, str) else f"{value:,}"
        table.add_row(name, shown, LIMITS.get(name, ""))
    Console().print(table)
    if options.json:
        report = {"figures": figures, "machine": about, "seed": options.seed}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
