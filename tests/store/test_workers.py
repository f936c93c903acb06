"""Threads that stay, and share the jobs of a batch."""

import _thread
import gc
import os
import threading
import time

import numpy as np
import pytest

from store.handover import ASLEEP, STATE
from store.jit import Routine
from store.job import FOREST, HEADS, JOB, LATE, LEFT, PART, TO_RUN, blank
from store.words import longs_at
from store.workers import Workers


@Routine
def count_up(address: int) -> None:
    """Count in FOREST's cell from 0 to ROWS; a job that takes time, and says that it was done."""
    job = longs_at(address)
    cell = longs_at(job[FOREST])
    for _ in range(job[HEADS]):
        cell[job[PART]] += 1
    job[LEFT] = 0


@Routine
def half(address: int) -> None:
    """Take half of what is left."""
    job = longs_at(address)
    job[LEFT] //= 2


def jobs_for(cells: np.ndarray, turns: int, routine: Routine = count_up) -> np.ndarray:
    jobs = blank(len(cells))
    jobs[:, TO_RUN], jobs[:, FOREST], jobs[:, HEADS] = routine.address, cells.ctypes.data, turns
    jobs[:, PART], jobs[:, LEFT] = np.arange(len(cells)), turns
    return jobs


def others() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name.startswith("upwell-store")}


def asleep(workers: Workers) -> bool:
    return bool((workers._boxes[:, STATE] == ASLEEP).all())


def until(found, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 70])
def test_all_jobs_are_done_once_when_run_returns(threads):
    workers = Workers(threads)

    for turn in range(300 if threads < 9 else 5):
        cells = np.zeros(threads, np.int64)
        assert workers.run(jobs_for(cells, turn)) == 0
        assert cells.tolist() == [turn] * threads


def test_threads_that_fell_asleep_are_woken():
    workers = Workers(3)

    for _ in range(5):
        cells = np.zeros(3, np.int64)
        workers.run(jobs_for(cells, 100))
        assert cells.tolist() == [100] * 3
        until(lambda: asleep(workers))


def test_only_while_others_must_wake_is_the_caller_given_more():
    workers, cells = Workers(2), np.zeros(2, np.int64)

    def late() -> list[int]:
        jobs = jobs_for(cells, 100)
        jobs[:, LATE] = 7
        workers.run(jobs)
        return jobs[:, LATE].tolist()

    assert late() == [7, 7]
    until(lambda: late() == [0, 0])  # at the next already, but on a machine that is busy
    until(lambda: asleep(workers))
    assert late() == [7, 7]


def test_more_jobs_than_threads_are_done_by_the_caller():
    workers, cells = Workers(2), np.zeros(6, np.int64)

    workers.run(jobs_for(cells, 1000))

    assert cells.tolist() == [1000] * 6


def test_what_is_not_done_is_said_and_done_when_it_is_run_again():
    workers, cells = Workers(2), np.zeros(2, np.int64)
    jobs = jobs_for(cells, 4, half)

    assert [workers.run(jobs) for _ in range(4)] == [4, 2, 0, 0]


def test_callers_at_once_get_each_its_own_jobs_done():
    before, workers, wrong = others(), Workers(2), []

    def caller(number: int) -> None:
        for turn in range(300):
            cells = np.zeros(2, np.int64)
            workers.run(jobs_for(cells, 50 * number + turn))
            if cells.tolist() != [50 * number + turn] * 2:
                wrong.append((number, turn))

    callers = [threading.Thread(target=caller, args=(n,)) for n in range(3)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()

    assert wrong == []
    assert len(others() - before) == 1  # whoever came first started it, for all


def test_an_interrupt_leaves_no_thread_at_work_on_what_the_caller_gives_up():
    workers = Workers(2)
    workers.run(jobs_for(np.zeros(2, np.int64), 1))
    cells = np.zeros(2, np.int64)
    threading.Timer(0.02, _thread.interrupt_main).start()

    def batch_after_batch() -> None:
        while True:
            workers.run(jobs_for(cells, 1_000_000))

    with pytest.raises(KeyboardInterrupt):
        batch_after_batch()
    given_up = cells.copy()
    time.sleep(0.02)

    assert cells.tolist() == given_up.tolist()
    again = np.zeros(2, np.int64)
    workers.run(jobs_for(again, 10))
    assert again.tolist() == [10, 10]


def test_the_threads_end_with_what_started_them():
    before = others()
    workers = Workers(4)
    workers.run(jobs_for(np.zeros(4, np.int64), 10))
    started = others() - before
    assert len(started) == 3

    del workers
    gc.collect()

    for one in started:
        one.join(10)
        assert not one.is_alive()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of later Pythons
def test_a_process_that_is_forked_starts_its_own_threads():
    workers = Workers(2)
    workers.run(jobs_for(np.zeros(2, np.int64), 10))

    child = os.fork()
    if child == 0:  # the parent's threads are not here
        cells = np.zeros(2, np.int64)
        workers.run(jobs_for(cells, 10))
        os._exit(0 if cells.tolist() == [10, 10] else 1)

    until(lambda: os.waitpid(child, os.WNOHANG)[0] == child)


def test_one_thread_needs_no_other():
    before, cells = others(), np.zeros(3, np.int64)

    Workers(1).run(jobs_for(cells, 5))

    assert cells.tolist() == [5, 5, 5]
    assert others() <= before


def test_a_job_is_as_long_as_kernels_take_it_to_be():
    assert blank(2).shape == (2, JOB)
    assert blank(2).flags.c_contiguous


def test_less_than_one_thread_is_refused():
    with pytest.raises(ValueError, match="threads is 0"):
        Workers(0)
