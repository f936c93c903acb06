"""Topics and the producer, against the real broker and against none."""

import pytest

from streams.embedded import Broker
from streams.events import CatalogEntry, Play, Retirement
from streams.ingest import Ingest
from streams.producer import Producer, TooLarge
from streams.topics import BrokerUnreachable, TopicSpec, ensure_topics, wait_for_broker
from tests.servers import silent_port


def test_topics_are_made_once_and_left_as_they_are(broker: Broker) -> None:
    first = ensure_topics(broker.address, [TopicSpec("made", 3), TopicSpec("kept", 1, True)])
    again = ensure_topics(broker.address, [TopicSpec("made", 7), TopicSpec("kept", 1, True)])

    assert first == again == {"made": 3, "kept": 1}


def test_a_broker_that_is_not_there_is_named() -> None:
    with pytest.raises(BrokerUnreachable, match=r"no Kafka broker answers at 127.0.0.1:1 "):
        wait_for_broker("127.0.0.1:1", timeout_s=0.3)


def test_a_broker_that_never_answers_is_named() -> None:
    with silent_port() as port, pytest.raises(BrokerUnreachable, match=f"127.0.0.1:{port}"):
        wait_for_broker(f"127.0.0.1:{port}", timeout_s=0.3)


def test_what_was_not_delivered_is_told() -> None:
    producer = Producer("127.0.0.1:1", timeout_s=0.5)
    producer.send("t", key="k", value=b"v")

    with pytest.raises(BrokerUnreachable, match=r"127.0.0.1:1 "):
        producer.flush()
    assert producer.delivered == 0
    assert producer.waiting == 0


def test_a_message_that_no_broker_takes_is_refused(broker: Broker) -> None:
    producer = Producer(broker.address, {"message.max.bytes": "2000"})

    with pytest.raises(TooLarge, match="3000 bytes"):
        producer.send("t", key="k", value=b"v" * 3000)


def test_the_catalogue_is_published_in_its_wire_format(broker: Broker) -> None:
    topic = "published"
    ensure_topics(broker.address, [TopicSpec(topic, 1)])
    told = []
    heat = CatalogEntry("m1", 5, {"genre": ["Crime"]}, name="Heat")

    with Producer(broker.address) as producer:
        sent = producer.publish_catalog(
            topic, [heat, Retirement("m2", 7)], delivered=lambda: told.append(1)
        )
        producer.publish_plays(topic, [Play("u", "m1", 9)])
        with pytest.raises(ValueError, match="reserved"):
            producer.publish_catalog(topic, [CatalogEntry("m3", 1, {"coplay": ["x"]})])

    assert (sent, len(told), producer.delivered) == (2, 2, 3)
    with Ingest(broker.address, [topic]) as ingest:
        found = []
        while len(found) < 3:
            found += ingest.consume(10, 1.0).messages.get(topic, [])
    assert [(one.key, one.value) for one in found] == [
        (b"m1", b'{"title":"m1","time_ms":5,"concepts":{"genre":["Crime"]},"name":"Heat"}'),
        (b"m2", None),
        (b"u", b'{"user":"u","title":"m1","time_ms":9,"seconds":null}'),
    ]
    assert found[1].timestamp_ms == 7


def test_a_program_that_fails_does_not_wait_for_what_it_queued() -> None:
    def fail() -> None:
        with Producer("127.0.0.1:1") as producer:
            producer.send("t", key="k", value=b"v")
            raise KeyError

    with pytest.raises(KeyError):
        fail()


def test_topics_know_what_they_are_for() -> None:
    assert TopicSpec("c", compacted=True).config()["cleanup.policy"] == "compact"
    assert TopicSpec("c").config()["message.timestamp.type"] == "LogAppendTime"
    assert TopicSpec("c.dead").config()["message.timestamp.type"] == "CreateTime"
