"""The demo's processes and their folder: servers, worker, sessions, reader, each with its log."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.connection import connect
from serve.status import read_status
from streams.demo.reader import read_progress
from streams.embedded import Broker, Child, RedisServer, ServerFailed, free_port, spawn
from streams.settings import Settings, load_settings
from streams.topics import ensure_topics
from streams.wiring import topics_of

WORKER = "demo"
GRACE_S = 20.0  # a worker ends with a last refresh and a last checkpoint
READY_S = 180.0  # longest wait for worker, sessions and reader


@dataclass(slots=True)
class Stage:
    """What runs while the demo streams.

    Attributes:
        settings: the same that worker and sessions have.
        redis: a client of its own.
        url: of the worker's live page, health and metrics.
    """

    folder: Path
    settings: Settings
    bootstrap: str
    redis_url: str
    redis: Any
    worker: Child
    sessions: Child
    reader: Child
    url: str

    @property
    def samples(self) -> Path:
        """The outside reader's file."""
        return self.folder / "reader.samples"

    def heartbeat(self) -> dict[str, Any]:
        """The worker's last one; empty where it has none."""
        return read_status(self.redis).get(WORKER, {})

    def sessions_heartbeat(self) -> dict[str, Any]:
        """The last one of the sessions; empty where they have none."""
        found = read_status(self.redis).values()
        return next((one for one in found if one["role"] == "sessions"), {})

    def check(self) -> None:
        """Raise ServerFailed where a process has ended that should run."""
        for child in (self.worker, self.sessions, self.reader):
            if (code := child.poll()) is not None:
                raise ServerFailed(
                    f"{child.name} ended with exit code {code}; its last lines:\n{child.tail()}"
                )


@contextmanager
def open_stage(folder: Path, *, cycle_s: float) -> Iterator[Stage]:
    """Start everything, and stop it at the end of the block, whatever ends it.

    Args:
        folder: holds `checkpoints`; settings and logs are put beside it.

    Raises:
        ServerFailed: a process did not start; its last log lines are in the text.
    """
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(folder=folder / "broker"))
        server = stack.enter_context(RedisServer(folder=folder / "redis"))
        file = folder / "upwell.toml"
        port = free_port()
        file.write_text(_toml(broker.address, server.url, folder, cycle_s, port))
        settings = load_settings(file)
        ensure_topics(broker.address, topics_of(settings.kafka))

        def start(name: str, *arguments: str) -> Child:
            log = folder / f"{name}.log"
            command = [sys.executable, "-m", *arguments]
            env = {"OMP_NUM_THREADS": "1"}
            child = spawn(name, command, log=log, env=env, grace_s=GRACE_S)
            return stack.enter_context(child)

        cli = ("streams.cli",)
        samples = folder / "reader.samples"
        stage = Stage(
            folder=folder,
            settings=settings,
            bootstrap=broker.address,
            redis_url=server.url,
            redis=connect(server.url),
            worker=start("worker", *cli, "worker", "--config", str(file)),
            sessions=start("sessions", *cli, "sessions", "--config", str(file)),
            reader=start(
                "reader",
                "streams.demo.reader",
                *("--redis", server.url, "--bootstrap", broker.address, "--out", str(samples)),
                *("--timeout", str(READY_S)),
            ),
            url=f"http://127.0.0.1:{port}/",
        )

        def ask_all() -> None:
            for child in (stage.worker, stage.sessions, stage.reader):
                child.ask_to_stop()

        stack.callback(ask_all)  # before each is waited for: they end at the same time
        _wait_until_ready(stage)
        yield stage


def _wait_until_ready(stage: Stage) -> None:
    """Until the worker has published every title, and the reader follows."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        stage.check()
        beat = stage.heartbeat()
        live = beat.get("phase") == "live" and beat.get("settled")
        if live and read_progress(stage.samples) is not None:
            return
        time.sleep(0.1)
    raise ServerFailed(
        f"not ready after {READY_S:g} s; the worker's last lines:\n{stage.worker.tail()}\n"
        f"the reader's:\n{stage.reader.tail()}"
    )


def _toml(bootstrap: str, redis_url: str, folder: Path, cycle_s: float, port: int) -> str:
    """The settings as a user would write them."""
    sections: dict[str, dict[str, Any]] = {
        "kafka": {"bootstrap": bootstrap},
        "redis": {"url": redis_url},
        "training": {"cycle_s": cycle_s},
        "checkpoint": {"folder": str(folder / "checkpoints"), "interval_s": 30.0},
        "worker": {"id": WORKER},
        "operate": {"port": port},
    }
    lines = []
    for name, values in sections.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
