"""Gaps: plays that were passed over are read again, in their order, and no others."""

from hypothesis import given
from hypothesis import strategies as st

from streams.embedded import Broker
from streams.events import Message
from streams.gaps import next_key, read_range, with_missing
from streams.producer import Producer
from streams.topics import TopicSpec, ensure_topics

PARTITIONS, PLAYS = 3, 40


def play(partition: int, offset: int) -> Message:
    return Message("plays", partition, offset, b"u", b"{}", 0)


def read(partition: int, start: int, stop: int) -> list[Message]:
    return [play(partition, offset) for offset in range(start, stop)]


@given(
    st.lists(st.lists(st.booleans(), min_size=PLAYS, max_size=PLAYS), min_size=1, max_size=4),
    st.integers(1, 7),
)
def test_whatever_is_passed_over_each_play_goes_in_once_and_in_order(given_by_partition, size):
    """The plain oracle: all offsets from the first one that came, up to the last one that came."""
    came = [
        play(part, offset)
        for offset in range(PLAYS)
        for part, is_given in enumerate(given_by_partition)
        if is_given[offset]
    ]
    remembered: dict[str, bytes] = {}
    worked_on: dict[int, list[int]] = {}

    for start in range(0, len(came), size):
        whole, following = with_missing(came[start : start + size], remembered.get, read)
        remembered.update({key: raw for key, (_, raw) in following.items()})
        for one in whole:
            worked_on.setdefault(one.partition, []).append(one.offset)

    for part, offsets in worked_on.items():
        mine = [one.offset for one in came if one.partition == part]
        assert offsets == list(range(mine[0], mine[-1] + 1))
        assert remembered[next_key(part)] == str(mine[-1] + 1).encode()


def test_a_play_that_is_read_once_more_does_not_take_the_offset_back():
    remembered = {next_key(0): b"9"}

    whole, following = with_missing([play(0, 4), play(0, 5)], remembered.get, read)

    assert [one.offset for one in whole] == [4, 5]
    assert following == {next_key(0): (0, b"9")}


def test_what_still_stands_of_a_range_is_read(broker: Broker) -> None:
    ensure_topics(broker.address, [TopicSpec("gaps", 1)])
    with Producer(broker.address) as producer:
        for n in range(20):
            producer.send("gaps", key="u", value=str(n).encode(), partition=0)

    some = read_range(broker.address, "gaps", 0, 5, 9)
    beyond = read_range(broker.address, "gaps", 0, 17, 99)

    assert [(one.offset, one.value) for one in some] == [(n, b"%d" % n) for n in range(5, 9)]
    assert [one.offset for one in beyond] == [17, 18, 19]
