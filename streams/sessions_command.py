"""`upwell sessions`: the Faust app with its settings, and a heartbeat in Redis."""

import logging
import os
import threading
import time

from serve.connection import RedisFailed, connect
from serve.status import write_status
from streams.sessions import Counts, SessionsConfig, run_sessions
from streams.settings import Settings
from streams.wiring import pairing_of

log = logging.getLogger(__name__)

HEARTBEAT_S = 0.5


def run(settings: Settings, *, name: str = "sessions-0") -> None:
    """Pair plays until SIGTERM or SIGINT.

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
    threading.Thread(target=_beat, args=(settings, name, counts), daemon=True).start()
    run_sessions(config, counts)


def _beat(settings: Settings, name: str, counts: Counts) -> None:
    """Tell Redis what was done; pairing goes on without it."""
    client = None
    while True:
        try:
            client = client or connect(settings.redis.url.get_secret_value())
            write_status(client, name, heartbeat(settings.kafka.plays, counts))
        except RedisFailed as error:
            log.debug("no heartbeat: %s", error)
        time.sleep(HEARTBEAT_S)


def heartbeat(topic: str, counts: Counts) -> dict[str, object]:
    """What a sessions worker tells about itself, as JSON."""
    read = counts.plays + counts.dead
    events = {topic: {"in": read, "applied": counts.plays, "dead": counts.dead}}
    return {"role": "sessions", "pid": os.getpid(), "events": events, "pairs": counts.pairs}
