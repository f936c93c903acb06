"""Processes that learn the lessons of a cycle together, and stay for the next one.

    python -m model.micro_crew          one of them, by torchrun's variables

They are started at the first cycle and meet as trainers do (model/crew.py). Each reads from its
standard input, line by line, the folder of its next lesson (model/lesson.py); the first one says
when all have learnt theirs. Where one dies, all are ended, and the next cycle starts new ones: they
hold nothing between cycles that the micro-trainer does not have.
"""

import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from model.crew import Crew
from model.lesson import learn_from
from model.trainer_work import home_of
from model.trainers import GRACE_S, POLL_S, TrainerDied, be_trainer, how_it_ended, start

DONE = b"learnt"


class MicroCrew:
    """The processes, seen from the one that has the graph. One thread calls.

    Args:
        trainers: >= 2.
        threads: of each.
    """

    def __init__(self, trainers: int, *, threads: int = 1) -> None:
        self.trainers, self.threads = trainers, threads
        self.processes: list[subprocess.Popen[bytes]] = []
        self._room: tempfile.TemporaryDirectory[str] | None = None
        self._said: queue.Queue[bytes] = queue.Queue()
        self._listener: threading.Thread | None = None

    def teach(self, homes: list[Path], stop: Callable[[], bool]) -> bool:
        """Have the lessons in `homes` learnt, one by each; whether that was done.

        Args:
            stop: asked while waiting; true ends the processes.

        Raises:
            TrainerDied: one ended before its work. The next call starts anew.
        """
        try:
            if not self.processes:
                self._start()
            for process, home in zip(self.processes, homes, strict=True):
                assert process.stdin is not None  # noqa: S101  (we opened the pipe)
                process.stdin.write(f"{home}\n".encode())
                process.stdin.flush()
            while not stop():
                try:
                    if self._said.get(timeout=POLL_S).strip() == DONE:
                        return True
                except queue.Empty:
                    pass
                if any(one.poll() is not None for one in self.processes):
                    raise self._death()
        except BrokenPipeError:
            raise self._death() from None
        self.close()
        return False

    def close(self) -> None:
        """End the processes; no harm where there are none."""
        for one in self.processes:
            if one.poll() is None:
                one.kill()
            one.wait()
        if self._listener is not None:
            self._listener.join()  # the pipe that it reads has ended
            self._listener = None
        for one in self.processes:
            for pipe in (one.stdin, one.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # what it did not read any more
                        pipe.close()
        self.processes = []
        if self._room is not None:
            self._room.cleanup()
            self._room = None

    def _start(self) -> None:
        self._room = tempfile.TemporaryDirectory(prefix="upwell-crew-")
        folder = Path(self._room.name)
        for rank in range(self.trainers):
            home_of(folder, rank).mkdir()
        self._said = queue.Queue()
        command = [sys.executable, "-m", "model.micro_crew"]
        self.processes = start(folder, self.trainers, threads=self.threads, command=command)
        self._listener = threading.Thread(
            target=_listen, args=(self.processes[0], self._said), name="micro-crew", daemon=True
        )
        self._listener.start()

    def _death(self) -> TrainerDied:
        """Who ended, and how; the others are ended."""
        deadline = time.monotonic() + GRACE_S
        while any(one.poll() is None for one in self.processes) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        for one in self.processes:
            if one.poll() is None:
                one.kill()
                one.wait()
        assert self._room is not None  # noqa: S101  (made with the processes)
        words = how_it_ended(self.processes, Path(self._room.name))
        self.close()
        return TrainerDied(f"{words}; the weights stay, and the next cycle starts new trainers")


def _listen(process: subprocess.Popen[bytes], said: "queue.Queue[bytes]") -> None:
    assert process.stdout is not None  # noqa: S101  (we opened the pipe)
    for line in process.stdout:
        said.put(line)


def _learn_what_comes(crew: Crew) -> None:
    for line in sys.stdin:
        learn_from(Path(line.strip()), crew)
        crew.sum(torch.zeros(1), "the end of the lesson")
        if crew.rank == 0:
            sys.stdout.write(DONE.decode() + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    be_trainer(_learn_what_comes)
