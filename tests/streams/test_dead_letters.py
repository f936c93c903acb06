"""Dead letters: whole, with their reason, and sent again once."""

from streams.dead_letters import read_dead, redrive, set_aside
from streams.embedded import Broker
from streams.events import Message, decode_coplays
from streams.ingest import Ingest
from streams.producer import Producer
from streams.topics import DEAD, TopicSpec, ensure_topics
from tests.servers import wait_until


def bad(topic: str, offset: int, value: bytes, **changes) -> Message:
    fields = {"key": b"k", "timestamp_ms": 1_700_000_000_000, "headers": [("trace", b"1")]}
    return Message(topic, 2, offset, value=value, **{**fields, **changes})


def put(broker: Broker, messages: list[Message]) -> Producer:
    topic = messages[0].topic
    ensure_topics(broker.address, [TopicSpec(topic, 2), TopicSpec(topic + DEAD, 2)])
    producer = Producer(broker.address)
    set_aside(producer, decode_coplays(messages).dead, component="worker")
    return producer


def test_a_dead_letter_keeps_what_it_came_with_and_says_why_it_is_dead(broker: Broker) -> None:
    put(broker, [bad("why", 7, b"{")])

    (letter,) = read_dead(broker.address, "why")

    assert (letter.topic, letter.source, letter.stage) == ("why", "2:7", "decode")
    assert (letter.error, letter.reason) == ("DecodeError", "Input data was truncated")
    assert (letter.key, letter.value) == (b"k", b"{")
    assert letter.timestamp_ms == 1_700_000_000_000
    assert letter.headers == [("trace", b"1")]
    assert not letter.redriven
    assert not letter.truncated


def test_its_headers_are_those_of_kafka_connect(broker: Broker) -> None:
    put(broker, [bad("connect", 1, b"{", key=None, headers=None)])

    with Ingest(broker.address, ["connect.dead"]) as ingest:
        found: list[Message] = []
        wait_until(
            lambda: found.extend(ingest.consume(9, 0.2).messages.get("connect.dead", [])) or found
        )

    assert dict(found[0].headers or []) == {
        "__connect.errors.topic": b"connect",
        "__connect.errors.partition": b"2",
        "__connect.errors.offset": b"1",
        "__connect.errors.stage": b"decode",
        "__connect.errors.connector.name": b"worker",
        "__connect.errors.exception.class.name": b"DecodeError",
        "__connect.errors.exception.message": b"Input data was truncated",
    }


def test_a_letter_is_sent_again_once_and_by_choice(broker: Broker) -> None:
    values = [b"{", b"[", b'"']
    producer = put(broker, [bad("again", i, value) for i, value in enumerate(values)])

    first = redrive(producer, broker.address, "again", chosen=lambda one: one.value == b"[")
    second = redrive(producer, broker.address, "again")
    third = redrive(producer, broker.address, "again")

    assert (first, second, third) == (1, 2, 0)
    letters = read_dead(broker.address, "again")
    assert [letter.redriven for letter in letters] == [True, True, True]
    with Ingest(broker.address, ["again"]) as ingest:
        found: list[Message] = []
        wait_until(
            lambda: found.extend(ingest.consume(9, 0.2).messages.get("again", [])) or len(found) > 2
        )
    assert sorted(one.value or b"" for one in found) == sorted(values)
    assert {one.key for one in found} == {b"k"}
    assert found[0].headers == [("trace", b"1")]


def test_copies_of_a_letter_that_a_killed_worker_left_count_as_one(broker: Broker) -> None:
    for _ in range(2):
        producer = put(broker, [bad("copies", 7, b"{"), bad("copies", 8, b"[")])

    letters = read_dead(broker.address, "copies")
    sent = redrive(producer, broker.address, "copies", chosen=lambda one: one.source == "2:7")
    again = redrive(producer, broker.address, "copies")

    assert [letter.source for letter in letters] == ["2:7", "2:8"]
    assert (sent, again) == (1, 1)
    assert all(letter.redriven for letter in read_dead(broker.address, "copies"))


def test_a_value_that_is_too_large_for_the_broker_is_cut_and_not_sent_again(broker, caplog) -> None:
    topic = "too-large"
    ensure_topics(broker.address, [TopicSpec(topic, 1), TopicSpec(topic + DEAD, 1)])
    producer = Producer(broker.address, {"message.max.bytes": "200000"})
    dead = decode_coplays([bad(topic, 0, b"x" * 300_000), bad(topic, 1, b"{")]).dead

    set_aside(producer, dead, component="worker")

    letters = read_dead(broker.address, topic)
    assert [(len(one.value or b""), one.truncated) for one in letters] == [
        (65_536, True),
        (1, False),
    ]
    assert redrive(producer, broker.address, topic) == 1
    assert "1 dead letters of too-large were cut" in caplog.text


def test_a_topic_without_dead_letters_has_none(broker: Broker) -> None:
    assert read_dead(broker.address, "nothing-died") == []
    set_aside(Producer("127.0.0.1:1"), [], component="worker")
