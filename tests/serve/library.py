"""Small hands for the tests of this folder."""

import numpy as np
import numpy.typing as npt
from redis import Redis

from serve.publisher import Publisher, PublishReport

DIM = 3


def rows(*values: float) -> npt.NDArray[np.float32]:
    """One vector a value, of DIM components that are all alike."""
    return np.repeat(np.array(values, np.float32)[:, None], DIM, axis=1)


def times(count: int, time_ms: int = 1_700_000_000_000) -> npt.NDArray[np.int64]:
    return np.full(count, time_ms, np.int64)


def made(client: Redis, space: str = "main") -> Publisher:
    """The publisher of a space that stands, and that is not live."""
    publisher = Publisher(client, space)
    publisher.create_space(DIM)
    return publisher


def live(client: Redis, space: str = "main") -> Publisher:
    """The publisher of a live space."""
    publisher = made(client, space)
    publisher.switch()
    return publisher


def put(publisher: Publisher, title: str, value: float, seq: int) -> PublishReport:
    return publisher.publish([title], rows(value), seq=seq, step=1, time_ms=times(1))
