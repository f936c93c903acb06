"""Threads that stay, and share the work of a batch."""

import gc
import threading
from functools import partial

import pytest

from store.workers import Workers


def others() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name.startswith("upwell-store")}


def test_all_tasks_run_on_as_many_threads_and_the_callers_is_one_of_them():
    workers, together, seen = Workers(3), threading.Barrier(3, timeout=10), []

    def task() -> None:
        together.wait()  # none goes on before all three are there
        seen.append(threading.get_ident())

    for _ in range(20):
        workers.run([task] * 3)

    assert len(seen) == 60
    assert len(set(seen)) == 3
    assert threading.get_ident() in seen


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_error_of_any_task_is_raised_once_all_have_ended(bad):
    workers, ended = Workers(3), []

    def task(number: int) -> None:
        if number == bad:
            raise KeyError(number)
        ended.append(number)

    for _ in range(2):  # the thread that failed works on
        with pytest.raises(KeyError):
            workers.run([lambda n=n: task(n) for n in range(3)])

    assert sorted(ended) == sorted(2 * [n for n in range(3) if n != bad])


def test_two_callers_do_not_take_each_others_ends():
    before, workers, done = others(), Workers(2), []

    def caller(number: int) -> None:
        for _ in range(200):
            mine: list[int] = []
            workers.run([partial(mine.append, number)] * 2)
            done.append(mine == [number] * 2)

    callers = [threading.Thread(target=caller, args=(n,)) for n in range(3)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()

    assert done == [True] * 600
    assert len(others() - before) == 1  # whoever came first started it, for all


def test_the_threads_end_with_what_started_them():
    before = others()
    workers = Workers(4)
    workers.run([lambda: None] * 4)
    started = others() - before
    assert len(started) == 3

    del workers
    gc.collect()

    for one in started:
        one.join(10)
        assert not one.is_alive()


def test_one_thread_needs_no_other():
    before, seen = others(), []

    Workers(1).run([lambda: seen.append(threading.get_ident())] * 3)

    assert seen == [threading.get_ident()] * 3
    assert others() == before


def test_less_than_one_thread_is_refused():
    with pytest.raises(ValueError, match="threads is 0"):
        Workers(0)
