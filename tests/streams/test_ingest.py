"""Reading from given offsets, against the real broker."""

import pytest

from streams.embedded import Broker
from streams.ingest import Ingest, OffsetLost
from streams.producer import Producer
from streams.topics import BrokerUnreachable, TopicError, TopicSpec, ensure_topics
from tests.servers import wait_until

PARTITIONS = 3


def write(broker: Broker, topic: str, values: range | list[int]) -> None:
    ensure_topics(broker.address, [TopicSpec(topic, PARTITIONS)])
    with Producer(broker.address) as producer:
        for value in values:
            producer.send(topic, key=f"k{value % 10}", value=str(value).encode())


def read(ingest: Ingest, count: int, *, at_once: int = 1000) -> list[tuple[str, int]]:
    """The next `count` messages as (topic, value)."""
    found: list[tuple[str, int]] = []

    def enough() -> bool:
        batch = ingest.consume(at_once, 0.2)
        assert len(batch) <= at_once
        found.extend(
            (topic, int(message.value or b""))
            for topic, messages in batch.messages.items()
            for message in messages
        )
        return len(found) >= count

    wait_until(enough, f"{count} messages")
    return found


def test_everything_comes_once_and_in_order_within_its_key(broker: Broker) -> None:
    write(broker, "in-order", range(500))

    with Ingest(broker.address, ["in-order"]) as ingest:
        values = [value for _, value in read(ingest, 500, at_once=64)]
        assert sum(ingest.lag().values()) == 0
        assert sum(ingest.positions().values()) == 500
        wait_until(lambda: len(ingest.consume(9, 0.1)) or ingest.caught_up)

    assert sorted(values) == list(range(500))
    for key in range(10):
        of_key = [value for value in values if value % 10 == key]
        assert of_key == sorted(of_key)


def test_it_goes_on_from_the_positions_that_it_is_given(broker: Broker) -> None:
    write(broker, "resumed", range(100))
    with Ingest(broker.address, ["resumed"]) as ingest:
        batch = []
        wait_until(lambda: batch.append(ingest.consume(40, 0.2)) or len(batch[-1]))
        first = [int(one.value or b"") for one in batch[-1].messages["resumed"]]
        positions = batch[-1].positions
        assert positions == ingest.positions()

    write(broker, "resumed", range(100, 120))
    with Ingest(broker.address, ["resumed"], positions) as ingest:
        rest = [value for _, value in read(ingest, 120 - len(first))]

    assert sorted(first + rest) == list(range(120))


def test_a_message_keeps_all_that_it_came_with(broker: Broker) -> None:
    ensure_topics(broker.address, [TopicSpec("whole", 1)])
    with Producer(broker.address) as producer:
        producer.send("whole", key=None, value=None, timestamp_ms=123, headers=[("h", None)])

    with Ingest(broker.address, ["whole"]) as ingest:
        batches = []
        wait_until(lambda: batches.append(ingest.consume(9, 0.2)) or len(batches[-1]))

    (message,) = batches[-1].messages["whole"]
    assert (message.topic, message.partition, message.offset) == ("whole", 0, 0)
    assert (message.key, message.value, message.timestamp_ms) == (None, None, 123)
    assert message.headers == [("h", None)]


def test_a_catalog_event_does_not_wait_behind_a_backlog(broker: Broker) -> None:
    write(broker, "backlog", range(20_000))
    write(broker, "urgent", [])

    with Ingest(broker.address, ["urgent", "backlog"]) as ingest:
        read(ingest, 100, at_once=100)
        write(broker, "urgent", [7])
        seen = [0]

        def came() -> bool:
            batch = ingest.consume(100, 0.2)
            seen[0] += len(batch.messages.get("backlog", []))
            return "urgent" in batch.messages

        wait_until(came)
        assert sum(ingest.lag().values()) > 0
        assert not ingest.caught_up
    assert seen[0] < 19_000


def test_a_paused_topic_waits_and_loses_nothing(broker: Broker) -> None:
    write(broker, "paused", range(50))
    write(broker, "other", range(50))

    with Ingest(broker.address, ["other", "paused"]) as ingest:
        ingest.pause("paused")
        ingest.pause("paused")
        found = read(ingest, 50)
        assert {topic for topic, _ in found} == {"other"}
        assert len(ingest.consume(100, 0.1)) == 0
        ingest.resume("paused")
        assert sorted(value for _, value in read(ingest, 50)) == list(range(50))

        ingest.pause("paused")
        write(broker, "paused", range(50, 60))
        ingest.resume("paused")
        assert sorted(value for _, value in read(ingest, 10)) == list(range(50, 60))


def test_an_offset_that_is_not_there_is_an_error_and_no_jump(broker: Broker) -> None:
    write(broker, "short", range(3))
    positions = {("short", part): 10_000 for part in range(PARTITIONS)}

    with (
        Ingest(broker.address, ["short"], positions) as ingest,
        pytest.raises(OffsetLost, match="does not hold offset 10000"),
    ):
        wait_until(lambda: len(ingest.consume(10, 0.1)))


def test_a_topic_that_is_not_there_is_named(broker: Broker) -> None:
    with pytest.raises(TopicError, match="no topic 'absent'"):
        Ingest(broker.address, ["absent"])


def test_a_broker_that_is_not_there_is_named() -> None:
    with pytest.raises(BrokerUnreachable, match=r"127.0.0.1:1 "):
        Ingest("127.0.0.1:1", ["t"], timeout_s=0.3)


def test_a_broker_that_goes_away_is_told_once_and_found_again() -> None:
    with Broker() as broker:
        write(broker, "t", range(5))
        with Ingest(broker.address, ["t"]) as ingest:
            read(ingest, 5)
            broker.stop()

            with pytest.raises(BrokerUnreachable, match=broker.address):
                wait_until(lambda: len(ingest.consume(10, 0.1)))
            assert ingest.down_s > 0
            assert len(ingest.consume(10, 0.1)) == 0
            assert all(behind >= 0 for behind in ingest.lag(timeout_s=0.1).values())


def test_offsets_are_committed_for_those_who_look(broker: Broker) -> None:
    write(broker, "looked-at", range(30))

    with Ingest(broker.address, ["looked-at"], group="looked-at") as ingest:
        read(ingest, 30)
        ingest.commit(ingest.positions())
        consumer = ingest._consumers["looked-at"]

        def committed() -> bool:
            offsets = consumer.committed(consumer.assignment(), timeout=5)
            return sum(max(one.offset, 0) for one in offsets) == 30

        wait_until(committed)


def test_a_batch_stays_within_its_bytes_however_large_its_messages_are(broker: Broker) -> None:
    ensure_topics(broker.address, [TopicSpec("large", PARTITIONS)])
    sizes = [100_000] * 40 + [50] * 400 + [700_000] * 5 + [50] * 100
    with Producer(broker.address) as producer:
        for number, size in enumerate(sizes):
            producer.send("large", key=None, value=b"%07d" % number + bytes(size))
    limit = 16 * 2**20

    batches, seen = [], set()
    with Ingest(broker.address, ["large"], max_bytes=limit) as ingest:

        def all_came() -> bool:
            batch = ingest.consume(20_000, 0.2)
            messages = batch.messages.get("large", [])
            seen.update(int((one.value or b"")[:7]) for one in messages)
            batches.append(sum(len(one.value or b"") for one in messages))
            assert batch.nbytes >= batches[-1]
            return len(seen) == len(sizes)

        wait_until(all_came, "all messages")

    assert max(batches) <= max(limit // 32, 700_007)


def test_clients_that_are_only_kept_alive_lose_nothing(broker: Broker) -> None:
    write(broker, "alive", range(300))
    with Ingest(broker.address, ["alive"]) as ingest:
        first = read(ingest, 100, at_once=50)

        for turn in range(5):
            ingest.keep_alive()
            write(broker, "alive", range(300 + 10 * turn, 310 + 10 * turn))
        ingest.go_on()
        rest = read(ingest, 350 - len(first))

    values = [value for _, value in [*first, *rest]]
    assert sorted(values) == list(range(350))
    for key in range(10):
        of_key = [value for value in values if value % 10 == key]
        assert of_key == sorted(of_key)


def test_a_topic_that_was_paused_stays_so_when_the_others_go_on(broker: Broker) -> None:
    write(broker, "stopped", range(20))
    write(broker, "going", range(20))
    with Ingest(broker.address, ["stopped", "going"]) as ingest:
        ingest.pause("stopped")
        ingest.keep_alive()
        ingest.go_on()

        assert {topic for topic, _ in read(ingest, 20)} == {"going"}
        ingest.resume("stopped")
        assert {topic for topic, _ in read(ingest, 20)} == {"stopped"}
