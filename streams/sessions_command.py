"""`upwell sessions`: the Faust app with its settings, and a heartbeat in Redis."""

import logging
import os
import re
import socket
import threading
import time

from serve.connection import RedisFailed, connect
from serve.status import forget_silent, write_status
from streams.sessions import Counts, SessionsConfig, run_sessions
from streams.settings import Settings
from streams.wiring import pairing_of

log = logging.getLogger(__name__)

HEARTBEAT_S = 0.5


def name_of(host: str, pid: int) -> str:
    """What a process calls itself in Redis: several pair plays side by side."""
    end = f"-{pid}"
    return f"sessions-{re.sub(r'[^A-Za-z0-9_.-]', '-', host)}"[: 64 - len(end)] + end


def run(settings: Settings, *, name: str | None = None) -> None:
    """Pair plays until SIGTERM or SIGINT.

    Args:
        name: of its heartbeat; None: by host and process.

    Raises:
        BrokerUnreachable: no broker answered in time.
    """
    kafka = settings.kafka
    config = SessionsConfig(
        kafka.bootstrap,
        plays=kafka.plays,
        coplays=kafka.coplays,
        group=f"{kafka.group}-sessions",
        partitions=kafka.partitions,
        rule=pairing_of(settings.sessions),
        max_skew_s=kafka.max_skew_s,
        client=kafka.client(),
        startup_timeout_s=kafka.startup_timeout_s,
    )
    counts = Counts()
    name = name or name_of(socket.gethostname(), os.getpid())
    threading.Thread(target=_beat, args=(settings, name, counts), daemon=True).start()
    run_sessions(config, counts)


def _beat(settings: Settings, name: str, counts: Counts) -> None:
    """Tell Redis what was done; pairing goes on without it."""
    client = None
    while True:
        try:
            if client is None:
                client = connect(settings.redis.url.get_secret_value())
                forget_silent(client)
            write_status(client, name, heartbeat(settings.kafka.plays, counts))
        except RedisFailed as error:
            log.debug("no heartbeat: %s", error)
        time.sleep(HEARTBEAT_S)


def heartbeat(topic: str, counts: Counts) -> dict[str, object]:
    """What a sessions worker tells about itself, as JSON."""
    read = counts.plays + counts.dead
    events = {topic: {"in": read, "applied": counts.plays, "dead": counts.dead}}
    return {"role": "sessions", "pid": os.getpid(), "events": events, "pairs": counts.pairs}
