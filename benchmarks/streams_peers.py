"""The same fold by Quix Streams or by Faust; run by an interpreter that has the one.

    PYTHON benchmarks/streams_peers.py quix|faust HOST:PORT TOPIC EVENTS

Each reads messages {"a", "b", "time_ms", "weight"} of a topic from its beginning, decodes them as
it does, and adds each weight to its pair's in a plain dictionary: the least that a fold can do.
Nothing is checked, and no graph is kept. One line of JSON: seconds from the first event to the
last of EVENTS, and the sum of the weights. Exit code 3: the peer is not installed.
"""

import json
import os
import sys
import tempfile
import time


class Fold:
    """The sums by pair, and the clock."""

    def __init__(self, count: int) -> None:
        self.left, self.start = count, 0.0
        self.weights: dict[tuple[str, str], float] = {}

    def add(self, event: dict) -> None:
        if not self.start:
            self.start = time.perf_counter()
        pair = event["a"], event["b"]
        self.weights[pair] = self.weights.get(pair, 0.0) + event["weight"]
        self.left -= 1
        if not self.left:
            seconds = time.perf_counter() - self.start
            total = sum(self.weights.values())
            told = json.dumps({"seconds": seconds, "weight": total})
            os.write(1, f"\n{told}\n".encode())  # Faust has put something else on sys.stdout
            os._exit(0)  # both frameworks take seconds to say goodbye, which is not measured


def quix(address: str, topic: str, count: int) -> None:
    from quixstreams import Application

    fold = Fold(count)
    app = Application(
        broker_address=address,
        consumer_group=f"quix-{os.getpid()}",
        auto_offset_reset="earliest",
        auto_create_topics=False,
        consumer_extra_config={
            "fetch.wait.max.ms": 20,
            "queued.max.messages.kbytes": 65_536,
            "queued.min.messages": 1_000_000,
            "fetch.queue.backoff.ms": 10,
        },
        loglevel="ERROR",
        state_dir=tempfile.mkdtemp(),
    )
    frame = app.dataframe(app.topic(topic, value_deserializer="json", key_deserializer="bytes"))
    frame.update(fold.add)
    app.run()


def faust(address: str, topic: str, count: int) -> None:
    import faust as library

    fold = Fold(count)
    app = library.App(
        f"faust-{os.getpid()}",
        broker=f"kafka://{address}",
        consumer_auto_offset_reset="earliest",
        datadir=tempfile.mkdtemp(),
        store="memory://",
        topic_disable_leader=True,
        web_enabled=False,
        stream_wait_empty=False,
    )
    source = app.topic(topic, key_type=bytes, key_serializer="raw", value_serializer="json")

    @app.agent(source)
    async def sums(stream) -> None:
        async for event in stream:
            fold.add(event)

    library.Worker(app, loglevel="ERROR", quiet=True).execute_from_commandline()


def main() -> None:
    peer, address, topic, count = sys.argv[1:]
    try:
        {"quix": quix, "faust": faust}[peer](address, topic, int(count))
    except ImportError as error:
        print(f"{peer} is not here: {error}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
