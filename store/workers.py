"""A few threads that stay, and share the jobs of a batch; see store/handover.py.

A thread that is started for a batch costs more than a small batch does.
"""

import os
import threading
import weakref
from queue import SimpleQueue

import numpy as np

from store.blocks import Longs
from store.handover import ATTEND, BOX, GO_ON, SHARE, WAIT, WAKE, work

Bell = SimpleQueue[bool]  # wakes a thread; False: to end
_all: "weakref.WeakSet[Workers]" = weakref.WeakSet()


class Workers:
    """The caller's thread and `threads - 1` others, which are started at their first use.

    Raises:
        ValueError: `threads` is below 1.
    """

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"threads is {threads}: want 1 or more")
        self.threads = threads
        self._starting = threading.Lock()
        self._forget()
        _all.add(self)

    def run(self, jobs: Longs) -> int:
        """Do jobs, and wait for those that other threads do.

        Args:
            jobs: see store/job.py, shape (parts, 20).

        Returns:
            How many rows are not done: their forest must grow first, or there was no memory.
        """
        parts, others = len(jobs), self.threads - 1
        if parts > 1 and others and not self._bells:
            self._start()
        try:
            found: int = work(SHARE, self._boxes, others, jobs, parts)
            if found > 0:
                for other in np.flatnonzero(self._boxes[:, WAKE]):
                    self._boxes[other, WAKE] = 0
                    self._bells[other].put(True)
                found = work(GO_ON, self._boxes, others, jobs, parts)
        except BaseException:
            # Nobody may work on arrays that the caller gives up: an interrupt may come anywhere.
            for bell in self._bells:
                bell.put(True)
            work(WAIT, self._boxes, others, jobs, parts)
            raise
        return -found

    def _forget(self) -> None:
        """Have no threads, as at first, and in a process that was forked."""
        self._boxes = np.zeros((self.threads - 1, BOX), np.int64)
        self._bells: list[Bell] = []

    def _start(self) -> None:
        """Start the threads; they end with this object."""
        with self._starting:  # two callers may come at once
            if self._bells:
                return
            bells: list[Bell] = []
            for number, box in enumerate(self._boxes, 1):
                bell: Bell = SimpleQueue()
                name = f"upwell-store-{number}"
                threading.Thread(target=_attend, args=(bell, box), name=name, daemon=True).start()
                weakref.finalize(self, bell.put, False)
                bells.append(bell)
            self._bells = bells


def _attend(bell: Bell, box: Longs) -> None:
    """Do what comes to a box, whenever the bell rings."""
    none = np.zeros((0, 0), np.int64)
    while bell.get():
        work(ATTEND, box.reshape(1, -1), 1, none, 0)


def _after_fork() -> None:
    """Only the thread that forks is in the new process."""
    for workers in _all:
        workers._forget()


os.register_at_fork(after_in_child=_after_fork)
