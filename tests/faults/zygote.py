"""A program that has imported everything, and forks one `upwell` command after the other.

    stdin    a line a start: {"args": [...], "env": {...}, "log": FILE}
    stdout   a line an event: {"started": PID}, {"ended": PID, "code": exit code, or -signal}

A worker spends seconds on its imports, and none of them is what a fault run is about. A fork is a
process like any other: it has its own id, memory, connections and threads, and SIGKILL ends it. It
is made before this program has any thread, so it inherits no lock that nobody will open. When stdin
closes, or this program dies, all that it has started dies with it.
"""

import ctypes
import json
import os
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

TICK_MS = 5
_PR_SET_PDEATHSIG = 1


def main(checkpoints: Path) -> None:
    """Warm up on the newest checkpoint under `checkpoints`, then serve stdin until it closes."""
    cli = _imported(checkpoints)
    running: set[int] = set()
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever prints, prints to the log
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    rest = b""
    _say(events, ready=os.getpid())
    while True:
        if poll.poll(TICK_MS):
            chunk = os.read(0, 65_536)
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                pid = _fork(cli, json.loads(line))
                running.add(pid)
                _say(events, started=pid)
        for pid, code in _ended(running):
            _say(events, ended=pid, code=code)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _imported(checkpoints: Path) -> Any:
    """Load what a worker loads, and make it do once what it does at its start."""
    from model.inference import Embedder
    from model.runtime import use_threads
    from streams import cli, sessions_command, worker  # noqa: F401 -- so that a fork has them
    from streams.settings import GraphSettings
    from streams.snapshot import load_snapshot
    from streams.warmup import warm_up

    use_threads(1)
    warm_up(GraphSettings())
    snapshot = load_snapshot(checkpoints, GraphSettings())
    Embedder(snapshot.model).full(snapshot.state.graph)
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise RuntimeError(f"{threads} threads before the first fork: want 1")
    return cli


def _fork(cli: Any, order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.closerange(3, 64)
        os.environ.update(order["env"])
        sys.argv = ["upwell", *order["args"]]
        code = 0
        try:
            cli.main()
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else int(done.code is not None)
        except BaseException:  # noqa: BLE001 -- the end of a process: told in its log
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    finally:
        os._exit(70)


def _ended(running: set[int]) -> list[tuple[int, int]]:
    found = []
    for pid in list(running):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            running.discard(pid)
            found.append((pid, os.waitstatus_to_exitcode(status)))
    return found


def _say(events: Any, **event: int) -> None:
    events.write(json.dumps(event) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
