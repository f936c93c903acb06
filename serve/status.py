"""What a worker says about itself, for `upwell status`: a JSON heartbeat that expires.

upwell:worker:<id>  STRING  JSON, with a time to live: a worker that died is gone from the list
upwell:workers      SET     ids, so that nobody has to scan a million keys for them
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from redis import Redis

from serve import vectors
from serve.connection import call, call_all
from serve.spaces import now_ms

TTL_S = 15.0

_WORKER = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def write_status(
    client: Redis, worker: str, status: Mapping[str, Any], *, ttl_s: float = TTL_S
) -> None:
    """Send a worker's heartbeat.

    Args:
        worker: its id.
        status: what JSON can hold; `written_ms` is added.
        ttl_s: the heartbeat is gone after so long without another.

    Raises:
        ValueError: the id cannot be one.
        RedisFailed: Redis failed.
    """
    if not _WORKER.fullmatch(worker):
        raise ValueError(f"worker {worker!r}: use 1 to 64 letters, digits, '_', '.' or '-'")
    text = json.dumps({**status, "written_ms": now_ms()}, allow_nan=False)
    key = vectors.worker_key(worker)
    call_all(
        client,
        [("SET", key, text, "PX", int(ttl_s * 1000)), ("SADD", vectors.WORKERS, worker)],
    )


def read_status(client: Redis) -> dict[str, dict[str, Any]]:
    """The last heartbeat of each worker that lives, by id."""
    return {worker: json.loads(text) for worker, text in _beats(client).items() if text is not None}


def forget_silent(client: Redis) -> list[str]:
    """Take ids off the list whose heartbeats have ended; one that was merely late puts itself back.

    For workers whose ids are new at each start: else the list would grow for ever.

    Returns:
        The ids.
    """
    silent = [worker for worker, text in _beats(client).items() if text is None]
    if silent:
        call(client, "SREM", vectors.WORKERS, *silent)
    return silent


def end_status(client: Redis, worker: str) -> None:
    """Say that a worker has ended in good order."""
    call_all(client, [("DEL", vectors.worker_key(worker)), ("SREM", vectors.WORKERS, worker)])


def _beats(client: Redis) -> dict[str, bytes | None]:
    """The last heartbeat of each worker on the list; None where it has ended."""
    workers = sorted(raw.decode() for raw in call(client, "SMEMBERS", vectors.WORKERS))
    texts = call_all(client, [("GET", vectors.worker_key(worker)) for worker in workers])
    return dict(zip(workers, texts, strict=True))
