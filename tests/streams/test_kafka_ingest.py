"""Ingest and dead letters on Apache Kafka: what the embedded broker passes, and what it lacks.

It lacks: records that are deleted, transactions, TLS and passwords, a log that outlives a kill.
"""

import threading

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from streams.dead_letters import read_dead, redrive, set_aside
from streams.events import CoPlay, decode_coplays, encode
from streams.ingest import Ingest, OffsetLost
from streams.producer import Producer
from streams.topics import DEAD, BrokerUnreachable, TopicSpec, ensure_topics, partitions
from tests.kafka.node import Kafka
from tests.servers import wait_until
from tests.streams import test_dead_letters, test_ingest
from tests.streams.test_ingest import PARTITIONS, read, write


@pytest.fixture(scope="session")
def broker(kafka: Kafka) -> Kafka:
    """The tests of the embedded broker, which are run again below, get this one."""
    return kafka


@pytest.mark.parametrize(
    "test",
    [
        test_ingest.test_it_goes_on_from_the_positions_that_it_is_given,
        test_ingest.test_a_catalog_event_does_not_wait_behind_a_backlog,
        test_ingest.test_a_paused_topic_waits_and_loses_nothing,
        test_ingest.test_an_offset_that_is_not_there_is_an_error_and_no_jump,
        test_ingest.test_a_topic_that_is_not_there_is_named,
        test_ingest.test_offsets_are_committed_for_those_who_look,
        test_dead_letters.test_a_dead_letter_keeps_what_it_came_with_and_says_why_it_is_dead,
        test_dead_letters.test_its_headers_are_those_of_kafka_connect,
        test_dead_letters.test_a_letter_is_sent_again_once_and_by_choice,
    ],
    ids=lambda test: test.__name__.removeprefix("test_"),
)
def test_what_holds_on_the_embedded_broker_holds_here(test, broker: Kafka) -> None:
    test(broker)


def test_records_that_were_deleted_are_an_error_and_no_jump(kafka: Kafka) -> None:
    ensure_topics(kafka.address, [TopicSpec("cut", 1)])
    with Producer(kafka.address) as producer:
        for value in range(100):
            producer.send("cut", key=None, value=b"%d" % value)
    admin = AdminClient({"bootstrap.servers": kafka.address})
    for deleted in admin.delete_records([TopicPartition("cut", 0, 40)]).values():
        deleted.result()

    with (
        Ingest(kafka.address, ["cut"], {("cut", 0): 39}) as ingest,
        pytest.raises(OffsetLost, match="does not hold offset 39"),
    ):
        wait_until(lambda: len(ingest.consume(10, 0.1)))
    with Ingest(kafka.address, ["cut"], {("cut", 0): 40}) as ingest:
        assert [value for _, value in read(ingest, 60)] == list(range(40, 100))
    with Ingest(kafka.address, ["cut"]) as ingest:  # no offset yet: from what there is
        assert len(read(ingest, 60)) == 60


def test_partitions_that_a_topic_is_given_later_are_read_too(kafka: Kafka, monkeypatch) -> None:
    monkeypatch.setattr("streams.ingest.LOOK_S", 0.1)
    ensure_topics(kafka.address, [TopicSpec("grown", 1), TopicSpec("same", 1)])
    with Producer(kafka.address) as producer:
        producer.send("grown", key=None, value=b"1")
    admin = AdminClient({"bootstrap.servers": kafka.address})

    with Ingest(kafka.address, ["same", "grown"]) as ingest:
        assert read(ingest, 1) == [("grown", 1)]
        for grown in admin.create_partitions([NewPartitions("grown", 3)]).values():
            grown.result()
        wait_until(lambda: partitions(admin, ["grown"]) == {"grown": 3})
        with Producer(kafka.address) as producer:
            for part in range(3):
                producer.send("grown", key=None, value=b"%d" % (2 + part), partition=part)
        assert sorted(value for _, value in read(ingest, 3)) == [2, 3, 4]
        positions = ingest.positions()

    assert positions == {("same", 0): 0, ("grown", 0): 2, ("grown", 1): 1, ("grown", 2): 1}


def test_what_a_transaction_took_back_is_not_seen_and_positions_pass_it(kafka: Kafka) -> None:
    ensure_topics(kafka.address, [TopicSpec("transacted", 1)])
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": kafka.address, "transactional.id": "transacted"}
    )
    producer.init_transactions(30)
    for value, ending in [(1, "commit"), (2, "abort"), (3, "commit")]:
        producer.begin_transaction()
        producer.produce("transacted", b"%d" % value)
        producer.flush()
        getattr(producer, f"{ending}_transaction")(30)

    with Ingest(kafka.address, ["transacted"]) as ingest:
        assert [value for _, value in read(ingest, 2)] == [1, 3]
        wait_until(lambda: len(ingest.consume(9, 0.1)) or ingest.caught_up)
        positions = ingest.positions()
    with Ingest(kafka.address, ["transacted"], positions) as ingest:
        wait_until(lambda: len(ingest.consume(9, 0.1)) or ingest.caught_up)
        assert ingest.positions() == positions


def test_a_broker_that_was_killed_comes_back_and_nothing_is_lost_or_doubled(kafka: Kafka) -> None:
    count = 30_000
    write(kafka, "killed", [])
    dead_at, outages, values = count // 3, [], []
    killed = threading.Event()

    def send() -> None:
        with Producer(kafka.address, timeout_s=120) as producer:
            for value in range(count):
                if value == 2 * dead_at:  # the rest must find it dead, or no outage is seen
                    producer.flush()
                    killed.wait(90)
                producer.send("killed", key=b"%d" % (value % 10), value=b"%d" % value)
                if value % 1000 == 0:
                    producer.flush()

    sender = threading.Thread(target=send)
    with Ingest(kafka.address, ["killed"]) as ingest:

        def enough() -> bool:
            try:
                batch = ingest.consume(500, 0.1)
            except BrokerUnreachable as error:
                outages.append(error)
                kafka.start()
                return False
            values.extend(int(one.value or b"") for one in batch.messages.get("killed", []))
            if not outages and kafka.running and len(values) > dead_at:
                kafka.kill()
                killed.set()
            return len(values) >= count

        sender.start()
        try:
            wait_until(enough, "all was read", within_s=90)
        finally:
            kafka.start()
            sender.join()
        wait_until(lambda: len(ingest.consume(9, 0.1)) or not any(ingest.lag().values()))

    assert len(outages) == 1
    assert sorted(values) == list(range(count))
    for key in range(10):
        of_key = [value for value in values if value % 10 == key]
        assert of_key == sorted(of_key)


def test_a_bad_event_is_set_aside_and_mended_and_read_once(kafka: Kafka) -> None:
    good = [encode(CoPlay("a", f"b{n}", 1_700_000_000_000)) for n in range(50)]
    bad = [b"{", b"null", encode(CoPlay("a", "a", 1))]
    names = ["mended", "mended" + DEAD]
    ensure_topics(kafka.address, [TopicSpec("mended", PARTITIONS), TopicSpec(names[1], 1)])
    with Producer(kafka.address) as producer, Ingest(kafka.address, ["mended"]) as ingest:
        for value in [*good, *bad]:
            producer.send("mended", key=None, value=value)
        producer.flush()
        messages = []
        wait_until(
            lambda: (
                messages.extend(ingest.consume(99, 0.1).messages.get("mended", []))
                or len(messages) == 53
            )
        )
        decoded = decode_coplays(messages)
        set_aside(producer, decoded.dead, component="worker")

        assert len(decoded.pairs) == 50
        letters = read_dead(kafka.address, "mended")
        assert sorted(one.value or b"" for one in letters) == sorted(bad)
        sent = [redrive(producer, kafka.address, "mended") for _ in range(2)]
        assert sent == [3, 0]
        again = []
        wait_until(
            lambda: (
                again.extend(ingest.consume(99, 0.1).messages.get("mended", [])) or len(again) == 3
            )
        )
    assert sorted(one.value or b"" for one in again) == sorted(bad)


def test_topics_are_stamped_by_the_broker_and_compacted_where_asked(kafka: Kafka) -> None:
    ensure_topics(kafka.address, [TopicSpec("stamped", 2, compacted=True)])

    with Producer(kafka.address) as producer:
        producer.send("stamped", key=b"k", value=b"v", timestamp_ms=5)
    with Ingest(kafka.address, ["stamped"]) as ingest:
        found = []
        wait_until(
            lambda: found.extend(ingest.consume(9, 0.1).messages.get("stamped", [])) or found
        )

    assert found[0].timestamp_ms > 1_600_000_000_000


def test_all_goes_over_tls_and_a_password(kafka: Kafka, tmp_path) -> None:
    address, client = kafka.secure_address, kafka.secure_client
    topics = [TopicSpec("secret", 2), TopicSpec("secret" + DEAD, 1)]
    assert ensure_topics(address, topics, client) == {"secret": 2, "secret.dead": 1}

    with Producer(address, client) as producer, Ingest(address, ["secret"], None, client) as ingest:
        for value in range(20):
            producer.send("secret", key=None, value=b"%d" % value)
        producer.flush()
        assert sorted(value for _, value in read(ingest, 20)) == list(range(20))

    assert read_dead(address, "secret", client) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sasl.password": "wrong"}, "Invalid username or password.*sasl_password_file"),
        ({"ssl.ca.location": None}, "certificate.*kafka.ssl_ca_file"),
    ],
    ids=["password", "authority"],
)
def test_a_wrong_password_or_authority_is_told(kafka: Kafka, changes, why) -> None:
    client = {**kafka.secure_client, **changes}
    client = {key: value for key, value in client.items() if value is not None}

    with pytest.raises(BrokerUnreachable, match=why):
        ensure_topics(kafka.secure_address, [TopicSpec("never", 1)], client, timeout_s=2.0)
