"""A few threads that stay: kernels release the interpreter's lock, so they run side by side.

A thread that is started for a batch costs more than a small batch does; these wait for the next.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor


class Workers:
    """The caller's thread and `threads - 1` others, which are started at their first use.

    Raises:
        ValueError: `threads` is below 1.
    """

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"threads is {threads}: want 1 or more")
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def run(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Run all tasks and wait for them; an error of one is raised once all have ended."""
        if self.threads == 1 or len(tasks) < 2:
            for task in tasks:
                task()
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="upwell-store")
        waiting = [self._pool.submit(task) for task in tasks[1:]]
        try:
            tasks[0]()
        finally:
            errors = [one.exception() for one in waiting]
        for error in errors:
            if error is not None:
                raise error
