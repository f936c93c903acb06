"""Messages as Kafka would bring them, for tests of what is decoded."""

import json

from streams.arrow import CONTENT_TYPE
from streams.events import Message

NOW = 1_700_000_000_000
ARROW = [("content-type", CONTENT_TYPE.encode())]

GOOD = {"a": "1", "b": "2", "weight": 0.5, "time_ms": NOW}


def message(value, *, key=b"k", offset=0, headers=None, at=NOW) -> Message:
    if isinstance(value, dict):
        value = json.dumps(value).encode()
    return Message("t", 0, offset, key, value, at, headers)
