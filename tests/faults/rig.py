"""What every scenario stands on: servers, a first checkpoint, settings, and workers to be killed.

A rig is a broker, a Redis, and a folder. Its first checkpoint is of titles m0.., each with a genre
and a director, and of no co-play: all edges come from the log, so that a plain fold of the log is
all that they may be compared with. The model is small and hardly trained. Workers are forked from a
zygote (tests/faults/zygote.py) and are ended by real signals; nothing else in them is a stand-in.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.micro_trainer import MicroTrainer
from model.pretrain import pretrain
from model.settings import MicroConfig, ModelConfig, PretrainConfig
from serve.connection import Client, RedisFailed, connect
from serve.status import read_status
from streams.embedded import Broker, RedisServer
from streams.events import CatalogEntry, CoPlays
from streams.failpoints import VARIABLE
from streams.settings import GraphSettings, Settings, load_settings
from streams.snapshot import Snapshot, load_snapshot, save_snapshot
from streams.state import State
from streams.topics import ensure_topics
from streams.wiring import topics_of
from tests.kafka.node import Kafka

ROOT = Path(__file__).resolve().parents[2]
GENRES, DIRECTORS = 8, 40
PATIENCE_S = 120.0
COMPILE_S = 300.0  # the first start after a change of the kernels
TAIL = 25
QUICK = PretrainConfig(transe_steps=20, steps=20)
SMALL = ModelConfig(dim=16, layers=1)
NO_THREADS = {
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class Fault(AssertionError):
    """What must hold does not: what, and where to look."""


def wait_until(holds: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> float:
    """Look until `holds()`; returns how many seconds it took.

    Raises:
        Fault: it does not come true.
    """
    start = time.monotonic()
    while not holds():
        if time.monotonic() - start > within_s:
            raise Fault(f"{what} did not come true within {within_s:g} s")
        time.sleep(0.01)
    return time.monotonic() - start


def title_of(number: int) -> str:
    return f"m{number}"


def entry_of(number: int, *, time_ms: int = 0) -> CatalogEntry:
    """The catalog event that a title of the first checkpoint came with."""
    concepts = {"genre": [f"g{number % GENRES}"], "director": [f"d{number % DIRECTORS}"]}
    return CatalogEntry(
        title=title_of(number), name=f"Film {number}", time_ms=time_ms, concepts=concepts
    )


def first_checkpoint(root: Path, titles: int) -> None:
    """Write a checkpoint of `titles` titles under `root`; the model has seen made-up co-plays."""
    entries = [entry_of(number) for number in range(titles)]

    def folded() -> State:
        state = State.empty(GraphSettings())
        state.apply_catalog(entries, np.zeros(titles, np.int64), learn=True)
        return state

    played = folded()
    rng = np.random.default_rng(0)
    count = 20 * titles
    a = rng.integers(0, titles, count)
    b = (a + 1 + rng.integers(0, titles - 1, count)) % titles
    pairs = CoPlays(
        [title_of(n) for n in a.tolist()],
        [title_of(n) for n in b.tolist()],
        np.ones(count, np.float32),
        np.arange(count, dtype=np.int64),
        np.zeros(count, np.int32),
    )
    played.apply_coplays(pairs, np.zeros(count, np.int64))
    made = pretrain(played.graph, played.take_fresh(), model=SMALL, config=QUICK, seed=0)
    state = folded()
    state.forget_dirt()
    made.model.bind(state.graph)
    trainer = MicroTrainer(made.model.config, MicroConfig(), 0)
    save_snapshot(root, Snapshot(state, made.model, 0, {}, trainer), keep=1)


@dataclass(slots=True)
class Process:
    """One forked `upwell` command."""

    pid: int
    log: Path
    _zygote: "Zygote"

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        return self._zygote.ended.get(self.pid)

    def wait(self, within_s: float = PATIENCE_S) -> int:
        wait_until(lambda: self.poll() is not None, f"the end of process {self.pid}", within_s)
        code = self.poll()
        assert code is not None
        return code

    def signal(self, signum: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> int:
        """SIGKILL, and wait for its end."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def stop(self) -> None:
        """SIGTERM, and wait for an end in good order.

        Raises:
            Fault: it ended in another way.
        """
        self.signal(signal.SIGTERM)
        if code := self.wait():
            raise Fault(f"a stopped worker ended with {code}:\n{self.tail()}")

    def rss_bytes(self) -> int:
        """Resident memory; 0 once it has ended."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL:])


class Zygote:
    """Starts commands by fork; `ended` has the exit code of each that is over."""

    def __init__(self, checkpoints: Path, log: Path) -> None:
        self.ended: dict[int, int] = {}
        self._started: list[int] = []
        self._ready, self._alive = threading.Event(), False
        self._lock = threading.Lock()
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.zygote", checkpoints],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, **NO_THREADS},
                cwd=ROOT,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(COMPILE_S) or not self._alive:
            self.close()
            raise Fault(f"the zygote did not start:\n{log.read_text()[-2000:]}")

    def start(self, arguments: list[str], log: Path, env: Mapping[str, str]) -> Process:
        order = {"args": arguments, "log": str(log), "env": dict(env)}
        with self._lock:
            assert self._child.stdin is not None
            before = len(self._started)
            self._child.stdin.write(json.dumps(order).encode() + b"\n")
            self._child.stdin.flush()
            wait_until(lambda: len(self._started) > before, "a fork")
            return Process(self._started[before], log, self)

    def close(self) -> None:
        """End it, and all that it has started."""
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()
        self._child.wait()
        self._reader.join()
        assert self._child.stdout is not None
        self._child.stdout.close()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            event = json.loads(line)
            if "ready" in event:
                self._alive = True
                self._ready.set()
            elif "started" in event:
                self._started.append(event["started"])
            else:
                self.ended[event["ended"]] = event["code"]
        self._alive = False
        self._ready.set()


@dataclass(slots=True)
class Rig:
    """Servers, settings, and the means to start workers; made by `open_rig`."""

    folder: Path
    broker: Broker | Kafka
    redis: RedisServer
    settings: Settings
    client: Client
    zygote: Zygote
    titles: int
    started: int = 0
    processes: list[Process] = field(default_factory=list)

    @property
    def bootstrap(self) -> str:
        return self.broker.address

    @property
    def checkpoints(self) -> Path:
        return self.settings.checkpoint.folder

    def worker(self, failpoint: str = "", **env: str) -> Process:
        """Start a worker on this rig's settings."""
        return self._start("worker", {VARIABLE: failpoint, **env})

    def sessions(self, failpoint: str = "", **env: str) -> Process:
        """Start a sessions worker on this rig's settings."""
        return self._start("sessions", {VARIABLE: failpoint, **env})

    def command(self, *arguments: str) -> str:
        """Run any other `upwell` command on this rig's settings; returns what it printed.

        Raises:
            Fault: it failed.
        """
        process = self._start("command", {}, *arguments)
        if process.wait():
            raise Fault(f"upwell {' '.join(arguments)} failed:\n{process.tail()}")
        return process.log.read_text()

    def beat(self) -> dict[str, Any]:
        """The worker's last heartbeat; empty where it has none, or Redis is away."""
        try:
            return read_status(self.client).get(self.settings.worker.id, {})
        except RedisFailed:
            return {}

    def is_live(self, process: Process) -> bool:
        beat = self.beat()
        return beat.get("pid") == process.pid and beat.get("phase") == "live"

    def wait_live(self, process: Process, within_s: float = PATIENCE_S) -> float:
        """Wait until the worker has caught up and publishes."""

        def live() -> bool:
            if (code := process.poll()) is not None:
                raise Fault(f"the worker ended with {code}:\n{process.tail()}")
            return self.is_live(process)

        return wait_until(live, "a live worker", within_s)

    def wait_settled(self, process: Process, applied: int, within_s: float = PATIENCE_S) -> None:
        """Wait until so many messages were read since the worker's start, and all is published."""

        def settled() -> bool:
            if (code := process.poll()) is not None:
                raise Fault(f"the worker ended with {code}:\n{process.tail()}")
            beat = self.beat()
            read = sum(one.get("in", 0) for one in beat.get("events", {}).values())
            return self.is_live(process) and read >= applied and bool(beat.get("settled"))

        wait_until(settled, f"a worker that has read {applied} messages and settled", within_s)

    def load(self) -> Snapshot:
        """The newest whole checkpoint."""
        return load_snapshot(self.checkpoints, self.settings.graph)

    def _start(self, name: str, env: Mapping[str, str], *command: str) -> Process:
        self.started += 1
        log = self.folder / f"{name}-{self.started:04d}.log"
        config = ["--config", str(self.folder / "upwell.toml")]
        process = self.zygote.start([*(command or (name,)), *config], log, env)
        self.processes = [one for one in self.processes if one.poll() is None] + [process]
        return process


@contextmanager
def open_rig(
    folder: Path,
    *,
    titles: int = 400,
    apache: bool = False,
    redis_arguments: tuple[str, ...] = (),
    **sections: Mapping[str, Any],
) -> Iterator[Rig]:
    """Start servers and zygote under `folder`, and end all of it after the block.

    Args:
        apache: on Apache Kafka instead of the embedded broker.
        sections: settings that differ, by section.
    """
    with ExitStack() as stack:
        broker: Broker | Kafka = stack.enter_context(
            Kafka(folder=folder / "broker") if apache else Broker(folder=folder / "broker")
        )
        redis = stack.enter_context(RedisServer(folder=folder / "redis", arguments=redis_arguments))
        defaults: dict[str, dict[str, Any]] = {
            "kafka": {"bootstrap": broker.address, "max_batch": 2000},
            "redis": {"url": redis.url, "timeout_s": 2.0},
            "training": {"enabled": False},
            "checkpoint": {"folder": str(folder / "checkpoints"), "interval_s": 0.3},
        }
        values = {
            name: {**defaults.get(name, {}), **sections.get(name, {})}
            for name in {**defaults, **sections}
        }
        file = folder / "upwell.toml"
        file.write_text(_toml(values))
        settings = load_settings(file)
        first_checkpoint(settings.checkpoint.folder, titles)
        ensure_topics(broker.address, topics_of(settings.kafka))
        client = connect(redis.url, timeout_s=2.0, retries=0)
        stack.callback(client.close)
        zygote = Zygote(settings.checkpoint.folder, folder / "zygote.log")
        stack.callback(zygote.close)
        yield Rig(folder, broker, redis, settings, client, zygote, titles)


def _toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"
