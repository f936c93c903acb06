"""A seeded stream of events, sent while workers live and die.

    stable   titles that are there from the first checkpoint on, and stay: most co-plays
    new      titles that the catalogue names in mid-stream; their co-plays come before or after that
    doomed   titles with co-plays among themselves, of which each is retired once, for good
    fickle   titles that are changed, retired and named again, all the time; without co-plays
    spare    one title of which no event tells

Weights are whole numbers from 1 to 8; times are those of the clock when an event is sent. One event
in a hundred is not JSON.
"""

import threading
import time
from collections.abc import Callable

import numpy as np

from streams.events import CatalogEntry, CoPlay, encode
from streams.producer import Producer
from streams.settings import KafkaSettings
from tests.faults.rig import DIRECTORS, GENRES, title_of

BURST = 200
CATALOG_EVERY = 100  # co-plays for one catalog event
BAD_EVERY = 100


class Feed:
    """Sends `release`d events in bursts, in a thread of its own, until `close`."""

    def __init__(
        self,
        bootstrap: str,
        kafka: KafkaSettings,
        titles: int,
        seed: int,
        *,
        pause_s: float = 0.05,
        timeout_s: float = 180.0,
    ) -> None:
        self._kafka, self._pause_s = kafka, pause_s
        self._rng = np.random.default_rng(seed)
        cut = int(titles * 0.8)
        self.stable = [title_of(n) for n in range(cut)]
        self.doomed = [title_of(n) for n in range(cut, int(titles * 0.9))]
        self.fickle = [title_of(n) for n in range(int(titles * 0.9), titles - 1)]
        self.spare = title_of(titles - 1)
        self.new = [f"n{n}" for n in range(titles // 10)]
        self._dying = list(self.doomed)
        self._unnamed = list(self.new)
        self._producer = Producer(bootstrap, timeout_s=timeout_s)
        self._left, self.sent, self.bad = 0, 0, 0
        self._failure: BaseException | None = None
        self._more = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def release(self, coplays: int) -> None:
        """Let so many more co-plays out, with the catalog events between them."""
        with self._more:
            self._left += coplays
            self._more.notify()

    def drain(self) -> int:
        """Wait until all that was released is with the broker; returns how many messages it is."""
        with self._more:
            while self._left and self._failure is None:
                self._more.wait(0.1)
        if self._failure is not None:
            raise self._failure
        return self.sent

    def close(self) -> None:
        with self._more:
            self._closing = True
            self._more.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                with self._more:
                    while not (self._left or self._closing):
                        self._more.wait()
                    if self._closing:
                        return
                    count = min(self._left, BURST)
                self._burst(count)
                self._producer.flush()
                with self._more:
                    self._left -= count
                    self._more.notify()
                time.sleep(self._pause_s)
        except BaseException as error:  # noqa: BLE001 -- raised by `drain`
            self._failure = error

    def _burst(self, count: int) -> None:
        rng, now_ms = self._rng, int(time.time() * 1000)
        groups = [self.stable + self.new, self.doomed]
        group = (rng.random(count) < 0.1).astype(int).tolist()
        first, second = rng.random((2, count)).tolist()
        weights = rng.integers(1, 9, count).tolist()
        for n in range(count):
            names = groups[group[n]]
            a = int(first[n] ** 2 * len(names))  # some are played more than others
            b = (a + 1 + int(second[n] * (len(names) - 1))) % len(names)
            pair = CoPlay(names[a], names[b], now_ms, float(weights[n]))
            self._send(self._kafka.coplays, pair.a, encode(pair))
            number = int(rng.integers(CATALOG_EVERY * BAD_EVERY))
            if number % CATALOG_EVERY == 0:
                self._catalog(now_ms)
            if number % BAD_EVERY == 1:
                self.bad += 1
                self._send(self._kafka.coplays, None, b'{"a": "m1", "b": ')

    def _catalog(self, now_ms: int) -> None:
        rng, turn = self._rng, self._rng.random()
        if turn < 0.1 and self._dying:
            self._send(self._kafka.catalog, self._dying.pop(), None)
        elif turn < 0.2 and self._unnamed:
            self._entry(self._unnamed.pop(), now_ms)
        elif turn < 0.5:
            self._send(self._kafka.catalog, str(rng.choice(self.fickle)), None)
        elif turn < 0.9:
            self._entry(str(rng.choice(self.fickle)), now_ms - int(rng.integers(0, 50)))
        else:
            self._entry(str(rng.choice(self.stable)), now_ms)

    def _entry(self, title: str, time_ms: int) -> None:
        concepts = {
            "genre": sorted({f"g{n}" for n in self._rng.integers(0, GENRES, 2)}),
            "director": [f"d{self._rng.integers(0, DIRECTORS)}"],
        }
        entry = CatalogEntry(title=title, time_ms=time_ms, concepts=concepts, name=f"of {time_ms}")
        self._send(self._kafka.catalog, title, encode(entry))

    def _send(self, topic: str, key: str | None, value: bytes | None) -> None:
        self._producer.send(topic, key=key, value=value)
        self.sent += 1


Progress = Callable[[str, int, int, str], None]
"""Told what runs, how many of how many are done, and a remark."""
