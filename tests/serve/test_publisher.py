"""The publisher, against a real server: what stands there in the end."""

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from serve import publisher as publisher_module
from serve import spaces, vectors
from serve.connection import SpaceLost, connect
from serve.publisher import Publisher, PublishReport
from serve.writers import CHUNK
from streams.embedded import RedisServer
from tests.serve.library import DIM, made, put, rows, times
from tests.servers import redis_binary


def value(client: Redis, title: str, space: str = "main") -> float | None:
    raw = client.hget(vectors.title_key(space, title), "vec")
    return None if raw is None else float(vectors.decode(raw, DIM)[0])


def test_a_title_stands_with_every_field_of_the_contract(redis_client: Redis) -> None:
    publisher = made(redis_client)
    titles = ["m1", "müde 2"]

    report = publisher.publish(
        titles, rows(1, 2), seq=5, step=9, time_ms=times(2), names=["Heat (1995)", None]
    )

    assert report == PublishReport(written=2, stale=0)
    assert redis_client.hgetall("upwell:main:t:m1") == {
        b"vec": vectors.encode(rows(1)),
        b"seq": b"5",
        b"step": b"9",
        b"time_ms": b"1700000000000",
        b"name": b"Heat (1995)",
    }
    assert value(redis_client, "müde 2") == 2
    assert not redis_client.hexists("upwell:main:t:müde 2", "name")


def test_every_write_is_told_in_the_updates_stream(redis_client: Redis) -> None:
    publisher = made(redis_client)

    publisher.publish(["a", "b"], rows(1, 2), seq=5, step=9, time_ms=times(2, 77))
    publisher.retire(["a"], seq=6, time_ms=78)

    entries = [fields for _, fields in redis_client.xrange("upwell:main:updates")]
    assert entries == [
        {b"title": b"a", b"seq": b"5", b"time_ms": b"77"},
        {b"title": b"b", b"seq": b"5", b"time_ms": b"77"},
        {b"title": b"a", b"seq": b"6", b"time_ms": b"78", b"gone": b"1"},
    ]


def test_the_space_remembers_the_highest_seq_and_its_step(redis_client: Redis) -> None:
    publisher = made(redis_client)
    assert publisher.last_seq() == 0

    publisher.publish(["a"], rows(1), seq=7, step=3, time_ms=times(1))
    publisher.publish(["b"], rows(1), seq=6, step=2, time_ms=times(1))

    space = spaces.get_space(redis_client, "main")
    assert space is not None
    assert (space.seq, space.step) == (7, 3)
    assert publisher.last_seq() == 7


def test_an_older_vector_never_replaces_a_newer_one(redis_client: Redis) -> None:
    publisher, late = made(redis_client), made(redis_client)
    put(publisher, "a", 2.0, seq=2)

    report = late.publish(["a", "b"], rows(1, 1), seq=1, step=0, time_ms=times(2))

    assert report == PublishReport(written=1, stale=1)
    assert (value(redis_client, "a"), value(redis_client, "b")) == (2, 1)


def test_the_same_publish_a_second_time_changes_nothing(redis_client: Redis) -> None:
    publisher = made(redis_client)
    put(publisher, "a", 1.0, seq=1)
    before = redis_client.hgetall("upwell:main:t:a")

    assert put(publisher, "a", 1.0, seq=1) == PublishReport(1, 0)

    assert redis_client.hgetall("upwell:main:t:a") == before


def test_a_retired_title_is_gone_and_only_a_newer_write_brings_it_back(
    redis_client: Redis,
) -> None:
    publisher = made(redis_client)
    publisher.publish(["a"], rows(1), seq=1, step=1, time_ms=times(1), names=["A"])

    assert publisher.retire(["a", "never"], seq=5, time_ms=9) == PublishReport(2, 0)

    assert value(redis_client, "a") is None
    assert put(publisher, "a", 1.0, seq=4) == PublishReport(0, 1)
    assert value(redis_client, "a") is None
    assert 0 < redis_client.ttl("upwell:main:t:a") <= publisher_module.MARK_S

    assert put(publisher, "a", 6.0, seq=6) == PublishReport(1, 0)

    assert value(redis_client, "a") == 6
    assert redis_client.ttl("upwell:main:t:a") == -1
    assert set(redis_client.hkeys("upwell:main:t:a")) == {b"vec", b"seq", b"step", b"time_ms"}


def test_a_late_retirement_does_not_take_a_newer_vector(redis_client: Redis) -> None:
    publisher = made(redis_client)
    put(publisher, "a", 2.0, seq=2)

    assert publisher.retire(["a"], seq=1, time_ms=1) == PublishReport(0, 1)

    assert value(redis_client, "a") == 2


def test_a_name_that_is_not_given_again_stays(redis_client: Redis) -> None:
    publisher = made(redis_client)
    publisher.publish(["a"], rows(1), seq=1, step=1, time_ms=times(1), names=["A"])

    put(publisher, "a", 2.0, seq=2)

    assert redis_client.hget("upwell:main:t:a", "name") == b"A"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_stops_the_whole_batch(redis_client: Redis, bad: float) -> None:
    publisher = made(redis_client)
    matrix = rows(*range(CHUNK + 2))
    matrix[CHUNK + 1, 2] = bad
    titles = [f"m{row}" for row in range(CHUNK + 2)]

    with pytest.raises(ValueError, match=rf"'m{CHUNK + 1}' .* is not finite \(1 such\) at step 7"):
        publisher.publish(titles, matrix, seq=1, step=7, time_ms=times(CHUNK + 2))

    assert value(redis_client, "m0") is None


@pytest.mark.parametrize(
    ("titles", "matrix", "seq", "message"),
    [
        (["a"], np.ones((1, DIM + 1), np.float32), 1, r"shape \(1, 3\)"),
        (["a", "b"], np.ones((1, DIM), np.float32), 1, r"2 titles"),
        (["a"], np.ones((1, DIM), np.float32), 0, "seq 0"),
        (["a"], np.ones((1, DIM), np.float32), 2**53, "seq 9007199254740992"),
        ([""], np.ones((1, DIM), np.float32), 1, "row 0 has 0 bytes"),
        (["a", "x" * 2000], np.ones((2, DIM), np.float32), 1, "row 1 has 2000 bytes"),
        (["\ud800"], np.ones((1, DIM), np.float32), 1, "UTF-8"),
    ],
)
def test_a_batch_that_cannot_be_is_refused_before_a_write(
    redis_client: Redis, titles: list[str], matrix: npt.NDArray[np.float32], seq: int, message: str
) -> None:
    publisher = made(redis_client)

    with pytest.raises(ValueError, match=message):
        publisher.publish(titles, matrix, seq=seq, step=1, time_ms=times(len(titles)))

    assert list(redis_client.scan_iter("upwell:main:t:*")) == []


def test_a_publish_before_its_space_is_refused(redis_client: Redis) -> None:
    with pytest.raises(ValueError, match="create_space"):
        put(Publisher(redis_client, "main"), "a", 1.0, seq=1)


def test_nothing_to_publish_is_no_call(redis_client: Redis) -> None:
    publisher = made(redis_client)

    assert publisher.publish(
        [], np.zeros((0, DIM), np.float32), seq=1, step=1, time_ms=times(0)
    ) == PublishReport(0, 0)
    assert publisher.last_seq() == 0


def test_a_batch_of_many_chunks_arrives_whole(redis_client: Redis) -> None:
    publisher = made(redis_client)
    count = CHUNK * 20 + 3
    titles = [f"m{row}" for row in range(count)]

    report = publisher.publish(titles, rows(*range(count)), seq=1, step=1, time_ms=times(count))

    assert report == PublishReport(count, 0)
    assert publisher.missing([*titles, "other"]) == ["other"]
    assert [value(redis_client, f"m{row}") for row in (0, CHUNK, count - 1)] == [
        0,
        CHUNK,
        count - 1,
    ]


def test_the_updates_stream_is_kept_short(redis_client: Redis) -> None:
    publisher = Publisher(redis_client, "main", updates_kept=100)
    publisher.create_space(DIM)

    for seq in range(1, 5):
        titles = [f"m{row}" for row in range(500)]
        publisher.publish(titles, rows(*range(500)), seq=seq, step=1, time_ms=times(500))

    assert 100 <= redis_client.xlen("upwell:main:updates") <= 400


def test_a_server_that_forgot_our_code_is_told_again(redis_client: Redis) -> None:
    publisher = made(redis_client)
    put(publisher, "a", 1.0, seq=1)

    redis_client.execute_command("FUNCTION FLUSH")

    assert put(publisher, "a", 2.0, seq=2).written == 1


def test_a_server_without_functions_runs_scripts(redis_client: Redis) -> None:
    with RedisServer(
        binary=redis_binary(), arguments=["--rename-command", "FUNCTION", ""]
    ) as server:
        client = connect(server.url)
        publisher = made(client)
        put(publisher, "a", 2.0, seq=2)
        client.execute_command("SCRIPT FLUSH")

        assert put(publisher, "a", 1.0, seq=1) == PublishReport(0, 1)
        assert publisher.retire(["a"], seq=3, time_ms=1) == PublishReport(1, 0)
        client.close()


def test_a_flushed_server_is_noticed_and_can_be_filled_again(redis_client: Redis) -> None:
    publisher = made(redis_client)
    put(publisher, "a", 1.0, seq=1)
    publisher.filled()
    assert publisher.check()

    redis_client.flushall()

    assert not publisher.check()
    with pytest.raises(SpaceLost, match=r"no meta.*publish every title again"):
        put(publisher, "a", 2.0, seq=2)
    assert redis_client.dbsize() == 0  # nothing half-made stands there
    assert publisher.create_space(DIM) is False
    put(publisher, "a", 2.0, seq=3)
    assert not publisher.check()
    publisher.filled()
    assert publisher.check()


def test_a_flush_between_create_and_filled_is_noticed(redis_client: Redis) -> None:
    publisher = made(redis_client)
    redis_client.flushall()

    with pytest.raises(SpaceLost):
        publisher.filled()
    with pytest.raises(SpaceLost):
        publisher.retire(["a"], seq=1, time_ms=1)

    assert redis_client.dbsize() == 0


def test_a_server_that_was_set_back_is_noticed(redis_client: Redis) -> None:
    publisher = made(redis_client)
    publisher.filled()
    put(publisher, "a", 1.0, seq=1)
    dump = redis_client.dump("upwell:main:meta")
    put(publisher, "a", 9.0, seq=9)

    redis_client.restore("upwell:main:meta", 0, dump, replace=True)

    assert not publisher.check()
    with pytest.raises(SpaceLost, match="seq 9 was written, but the highest known is 1"):
        put(publisher, "a", 10.0, seq=10)
    assert publisher.create_space(DIM) is True
    assert put(publisher, "a", 11.0, seq=11).written == 1


def test_a_space_made_anew_by_another_is_noticed(redis_client: Redis) -> None:
    publisher = made(redis_client)
    redis_client.flushall()
    made(redis_client)

    with pytest.raises(SpaceLost, match="made anew"):
        put(publisher, "a", 1.0, seq=1)


Step = tuple[int, str, str]  # seq, "put" or "retire", title


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from(["put", "retire"]), st.sampled_from("abc")),
        max_size=25,
        unique_by=lambda step: (step[0], step[2]),  # a seq writes a title once
    )
)
def test_in_whatever_order_writes_come_the_highest_seq_stands(
    redis_server: RedisServer, steps: Sequence[Step]
) -> None:
    client = connect(redis_server.url)
    client.flushall()
    publishers = [made(client), made(client)]
    newest: dict[str, Step] = {}

    for turn, (seq, kind, title) in enumerate(steps):
        # A fresh pair of eyes each time: this is two processes, not one that looks back.
        publisher = publishers[turn % 2]
        if kind == "put":
            put(publisher, title, float(seq), seq)
        else:
            publisher.retire([title], seq=seq, time_ms=seq)
        newest[title] = max(newest.get(title, (0, "", "")), (seq, kind, title))

    for title, (seq, kind, _) in newest.items():
        assert value(client, title) == (float(seq) if kind == "put" else None)
        assert client.hget(vectors.title_key("main", title), "seq") == str(seq).encode()
    client.close()


def test_two_publishers_at_once_leave_no_stale_vector(
    redis_server: RedisServer, redis_client: Redis
) -> None:
    """Each writes the same titles again and again, the one with odd, the other with even seqs."""
    made(redis_client)
    titles = [f"m{row}" for row in range(300)]
    rounds = 40

    def write(first: int) -> None:
        client = connect(redis_server.url)
        publisher = made(client)
        order = np.random.default_rng(first)
        for seq in order.permutation(np.arange(first, 2 * rounds, 2)).tolist():
            publisher.publish(titles, rows(*[seq] * 300), seq=seq, step=1, time_ms=times(300))
        client.close()

    writers = [threading.Thread(target=write, args=(first,)) for first in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert {value(redis_client, title) for title in titles} == {2 * rounds - 1}


def test_a_vector_that_hardly_moved_is_not_sent_until_it_has(redis_client: Redis) -> None:
    publisher = Publisher(redis_client, "main", epsilon=0.1)
    publisher.create_space(DIM)
    put(publisher, "a", 1.0, seq=1)

    assert put(publisher, "a", 1.06, seq=2) == PublishReport(0, 0, 1)
    assert put(publisher, "a", 1.12, seq=3) == PublishReport(1, 0, 0)  # small steps add up
    assert value(redis_client, "a") == pytest.approx(1.12)

    everything = publisher.publish(
        ["a", "b"], rows(1.12, 1), seq=4, step=1, time_ms=times(2), everything=True
    )
    assert everything == PublishReport(2, 0, 0)


def test_a_new_name_is_sent_though_the_vector_stands(redis_client: Redis) -> None:
    publisher = Publisher(redis_client, "main", epsilon=0.1)
    publisher.create_space(DIM)

    for seq, (name, written) in enumerate((("A", 1), ("A", 0), (None, 0), ("B", 1)), start=1):
        report = publisher.publish(["a"], rows(1), seq=seq, step=1, time_ms=times(1), names=[name])
        assert (report.written, report.unchanged) == (written, 1 - written)

    assert redis_client.hget("upwell:main:t:a", "name") == b"B"


def test_after_a_flush_what_has_not_changed_is_sent_again(redis_client: Redis) -> None:
    publisher = Publisher(redis_client, "main", epsilon=0.1)
    publisher.create_space(DIM)
    put(publisher, "a", 1.0, seq=1)
    redis_client.flushall()

    publisher.create_space(DIM)

    assert put(publisher, "a", 1.0, seq=2).written == 1


def test_an_epsilon_that_would_hold_everything_back_is_refused(redis_client: Redis) -> None:
    with pytest.raises(ValueError, match="epsilon 1"):
        Publisher(redis_client, "main", epsilon=1)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "other", "retire"]),
            st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True),
            st.sampled_from([1.0, 1.04, 1.08, 1.2, -1.0, 0.0]),
        ),
        max_size=20,
    )
)
def test_what_stands_is_always_within_epsilon_of_the_newest(
    redis_server: RedisServer, steps: Sequence[tuple[str, list[str], float]]
) -> None:
    """A second publisher writes in between, with seqs that are sometimes too high for the first."""
    client = connect(redis_server.url)
    client.flushall()
    publisher, other = Publisher(client, "main", epsilon=0.1), made(client)
    publisher.create_space(DIM)
    want: dict[str, tuple[int, float | None]] = {}

    for turn, (kind, titles, number) in enumerate(steps, start=1):
        seq = 2 * turn + (5 if kind == "other" else 0)
        writer = other if kind == "other" else publisher
        if kind == "retire":
            publisher.retire(titles, seq=seq, time_ms=1)
        else:
            matrix = rows(*[number] * len(titles))
            report = writer.publish(titles, matrix, seq=seq, step=1, time_ms=times(len(titles)))
            assert report.written + report.stale + report.unchanged == len(titles)
        for title in titles:
            if seq > want.get(title, (0, None))[0] and kind != "other":
                want[title] = seq, None if kind == "retire" else number
        if kind == "other":  # what the first does not know of, it cannot keep close to
            publisher._sent.forget(titles)
            want |= {
                title: (seq, number) for title in titles if seq > want.get(title, (0, None))[0]
            }

    for title, (_, number) in want.items():
        found = value(client, title)
        if number is None:
            assert found is None
        else:
            assert found == pytest.approx(number, rel=0.12, abs=1e-6)
    client.close()
