"""A few threads that stay: kernels release the interpreter's lock, so they run side by side.

A thread that is started for a batch costs more than a small batch does; these wait for the next. A
batch leaves nothing of Python's own code in the cache, so each line between two kernels is dear:
two queues take half as long here as a pool of futures.
"""

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from queue import SimpleQueue

Task = Callable[[], None]
Ended = SimpleQueue[BaseException | None]

AWAKE_S = 2e-4  # to fall asleep and be woken takes half as long; the others mostly end before


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
        self._asked: SimpleQueue[tuple[Task, Ended] | None] | None = None

    def run(self, tasks: Sequence[Task]) -> None:
        """Run all tasks and wait for them; an error of one is raised once all have ended."""
        if self.threads == 1 or len(tasks) < 2:
            for task in tasks:
                task()
            return
        asked, ended = self._asked or self._start(), Ended()
        others = len(tasks) - 1
        for task in tasks[1:]:
            asked.put((task, ended))
        errors: list[BaseException | None] = []
        try:
            tasks[0]()
            awake = time.perf_counter() + AWAKE_S
            while ended.qsize() < others and time.perf_counter() < awake:
                time.sleep(0)
        finally:
            errors += [ended.get() for _ in range(others)]
        for error in errors:
            if error is not None:
                raise error

    def _start(self) -> "SimpleQueue[tuple[Task, Ended] | None]":
        """Start the threads; they end with this object."""
        with self._starting:  # two callers may come at once
            if self._asked is None:
                asked: SimpleQueue[tuple[Task, Ended] | None] = SimpleQueue()
                for number in range(1, self.threads):
                    name = f"upwell-store-{number}"
                    threading.Thread(target=_work, args=(asked,), name=name, daemon=True).start()
                    weakref.finalize(self, asked.put, None)
                self._asked = asked
            return self._asked


def _work(asked: "SimpleQueue[tuple[Task, Ended] | None]") -> None:
    """Do what is asked for, until it is nothing."""
    while (one := asked.get()) is not None:
        task, ended = one
        try:
            task()
        except BaseException as error:  # noqa: BLE001  (the caller raises it)
            ended.put(error)
        else:
            ended.put(None)
        del one, task, ended  # or they would live until the next batch
