"""Runs one command and ends it with its starter, however that dies: a program, not a library.

    python guard.py STARTER_PID GRACE_S COMMAND...

    stdin    a pipe that the starter holds open; when it closes, the command is stopped
    stdout   one line, the command's process id; "-" where it cannot be run
    stderr   the command's standard output and error
    exit     that of the command; 128 + the signal that ended it; 127: it cannot be run

A closed pipe tells of every way to die, kill -9 too, and unlike PR_SET_PDEATHSIG does not fire when
merely the *thread* that started us ends. A fork of the starter can keep the pipe open after it: so
the starter's id is watched as well. Should this program be killed itself, PR_SET_PDEATHSIG ends the
command: here it is right, since there is one thread only.

Imports nothing of ours: it must start within milliseconds.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

_TICK_MS = 50  # longest delay until the command's own end is seen
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    starter, grace_s, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    stopping = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, stop)
    try:
        child = subprocess.Popen(  # noqa: S603 -- runs what its starter says: that is its use
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            process_group=0,  # a group of its own, so that its children can be ended with it
            preexec_fn=_die_with_guard if sys.platform == "linux" else None,
        )
    except OSError as error:
        os.write(1, b"-\n")
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        return 127
    os.write(1, f"{child.pid}\n".encode())
    os.close(1)

    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    while child.poll() is None and not stopping:
        alone = bool(poll.poll(_TICK_MS)) or os.getppid() != starter
        stopping |= alone  # a signal may have come meanwhile
    if child.returncode is None:
        _end(child, grace_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # what the command left behind
    code = child.returncode
    return code if code >= 0 else 128 - code


def _end(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """Ask with SIGTERM; after `grace_s` seconds, kill."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _die_with_guard() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
