"""Is the worker alive, is it ready: checks that name what is wrong, for a kubelet and for people.

Alive means that nothing is stuck which a restart would mend: a broker answers, no partition stands
still while its messages wait, each lane's thread takes its turns. Redis is not among the checks:
the refresh lane waits for it, and a restart would not bring it back sooner. Ready means that
recovery is over and every title is in Redis.

Times are seconds of the monotonic clock.
"""

import threading
import time
from collections.abc import Callable, Mapping

Probe = Callable[[], str | None]
Positions = Mapping[tuple[str, int], int]

NOT_YET = "the worker is starting"


class Health:
    """What is watched, by name. Any thread may ask.

    Attributes:
        unready: why readers cannot rely on the space yet, or None.
    """

    def __init__(self) -> None:
        self._probes: dict[str, Probe] = {}
        self.unready: str | None = NOT_YET

    def watch(self, name: str, probe: Probe) -> None:
        """Ask `probe`, which says what is wrong or None, whenever somebody asks us."""
        self._probes[name] = probe

    def troubles(self) -> dict[str, str | None]:
        """Each check by name, and what is wrong there."""
        return {name: probe() for name, probe in list(self._probes.items())}


def wrong(troubles: Mapping[str, str | None]) -> dict[str, str]:
    """Those of the checks that do not hold."""
    return {name: why for name, why in troubles.items() if why is not None}


class Partitions:
    """Which partitions stand still while messages wait in them."""

    def __init__(self, limit_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: limit_s: a partition may stand for so long."""
        self._limit_s, self._clock = limit_s, clock
        self._lock = threading.Lock()
        self._moved: dict[tuple[str, int], tuple[int, float]] = {}  # position, since when
        self._lag: Positions = {}

    def see(self, positions: Positions, lag: Positions) -> None:
        """Take in where each partition is, and how many messages wait there."""
        now = self._clock()
        with self._lock:
            for key in lag:
                position = positions.get(key, 0)
                before, _ = self._moved.get(key, (-1, now))
                if position != before or not self._lag.get(key):  # what waits came just now
                    self._moved[key] = position, now
            self._lag = dict(lag)

    def trouble(self) -> str | None:
        """The partition that has stood the longest, where that is too long."""
        now = self._clock()
        with self._lock:
            waiting = [(self._moved[key][1], key) for key, count in self._lag.items() if count]
            if not waiting:
                return None
            since, (topic, partition) = min(waiting)
            if now - since <= self._limit_s:
                return None
            return (
                f"partition {partition} of {topic!r} has stood at offset "
                f"{self._moved[topic, partition][0]} for {now - since:.0f} s while "
                f"{self._lag[topic, partition]} messages wait"
            )


def lane(
    name: str,
    thread: threading.Thread,
    turned_s: Callable[[], float],
    limit_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Probe:
    """A probe of a thread that should take a turn every now and then.

    Args:
        turned_s: when it took the last one.
        limit_s: it may take so long over one.
    """

    def probe() -> str | None:
        if not thread.is_alive():
            return f"the {name} thread has ended; the log says why"
        stood_s = clock() - turned_s()
        if stood_s > limit_s:
            return f"the {name} thread has not taken a turn for {stood_s:.0f} s"
        return None

    return probe
