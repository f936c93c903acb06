"""How a batch's jobs come to the threads that share it, without Python between.

    boxes  (others, 16)  int64   a row for each thread but the caller's: its STATE; AT, the address
                                 of the job that it was given; DONE, how many it has done; WAKE, if
                                 it was given one asleep

A thread that has ended a job looks for the next one for a while before it falls asleep: to wake a
thread takes 30 to 50 microseconds, to hand a job to one that looks takes less than one. While it
looks, it lets any other thread have its core.

    ASLEEP ---(caller takes it; wakes it)---> TAKEN
    AWAKE  ---(caller takes it)-------------> TAKEN ---(job is there)---> GIVEN ---(done)---> AWAKE
    AWAKE  ---(nothing came)----------------> ASLEEP
"""

from store.atomics import give_way, load_acquire, store_release, swap_if
from store.blocks import Longs
from store.jit import kernel, step
from store.job import HOLDER, JOB, LATE, LEFT, TICKET, TO_RUN
from store.words import call_at, longs_at, onwards, pointer, start_of, wide

BOX = 16  # two cache lines for each box: they are fetched in pairs
STATE, AT, DONE, WAKE = range(4)
ASLEEP, AWAKE, TAKEN, GIVEN = range(4)
LOOKS = 2000  # before a thread falls asleep; as each gives way, they take about a millisecond

SHARE, GO_ON, WAIT, ATTEND = range(4)


@kernel
def work(turn: int, boxes: Longs, others: int, jobs: Longs, parts: int) -> int:
    """Share a batch's jobs (`turn` SHARE, GO_ON and WAIT), or do what others share (ATTEND).

    SHARE gives jobs to threads that have none, and does the rest; where one of these is asleep it
    only gives: then wake them, and GO_ON. WAIT only waits until jobs that were given are done.

    Args:
        boxes: of all threads but the caller's; for ATTEND, the one box.
        others: how many.
        jobs: see store/job.py.
        parts: how many.

    Returns:
        How many threads to wake (see `WAKE`); or 0; or, below 0, minus the rows that are not done,
        as an arena must grow first.
    """
    boxes, jobs = pointer(boxes), pointer(jobs)
    if turn == ATTEND:
        attend(boxes)
        return 0
    sleepers = hand_out(boxes, others, jobs, parts) if turn == SHARE else wide(0)
    if sleepers:
        return sleepers
    left = wide(0)
    for part in range(parts):
        job = onwards(jobs, JOB * part)
        if turn != WAIT and job[HOLDER] == 0:
            call_at(job[TO_RUN], start_of(job))
    for part in range(parts):
        job = onwards(jobs, JOB * part)
        if job[HOLDER]:
            box = onwards(boxes, BOX * (job[HOLDER] - 1))
            while load_acquire(box, wide(DONE)) == job[TICKET]:
                give_way()
            job[HOLDER] = 0
        left += job[LEFT]
    return -left


@step
def hand_out(boxes: Longs, others: int, jobs: Longs, parts: int) -> int:
    """Give jobs, all but the first, to threads that have none; returns how many are asleep."""
    sleepers, other = wide(0), wide(0)
    for part in range(1, parts):
        job = onwards(jobs, JOB * part)
        while other < others and job[HOLDER] == 0:
            box = onwards(boxes, BOX * other)
            if swap_if(box, wide(STATE), wide(AWAKE), wide(TAKEN)) == AWAKE:
                job[HOLDER] = other + 1
            elif swap_if(box, wide(STATE), wide(ASLEEP), wide(TAKEN)) == ASLEEP:
                job[HOLDER], box[WAKE] = other + 1, 1
                sleepers += 1
            other += 1
    for part in range(parts):
        if not sleepers:
            jobs[JOB * part + LATE] = 0
    for part in range(1, parts):
        job = onwards(jobs, JOB * part)
        if job[HOLDER]:
            box = onwards(boxes, BOX * (job[HOLDER] - 1))
            box[AT] = start_of(job)
            job[TICKET] = load_acquire(box, wide(DONE))
            store_release(box, wide(STATE), wide(GIVEN))
    return sleepers


@step
def attend(box: Longs) -> None:
    """Do what comes to a box, until nothing has come for a while."""
    looks = LOOKS
    while looks > 0:
        state = load_acquire(box, wide(STATE))
        if state == GIVEN:
            call_at(longs_at(box[AT])[TO_RUN], box[AT])
            store_release(box, wide(DONE), box[DONE] + 1)
            store_release(box, wide(STATE), wide(AWAKE))
            looks = LOOKS
        give_way()
        looks -= 1
        if looks == 0:
            state = swap_if(box, wide(STATE), wide(AWAKE), wide(ASLEEP))
            if state in (TAKEN, GIVEN):
                looks = 1  # a job is about to come
