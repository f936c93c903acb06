"""A real cluster of three: the contract holds where a space's keys lie in different slots."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from redis import Redis

from serve import spaces, vectors
from serve.cache import CachedReader
from serve.connection import RedisUnreachable, SpaceLost, connect
from serve.publisher import PublishReport
from serve.reader import EmbeddingReader
from serve.similar import SimilarTitles, similar_titles
from serve.status import read_status, write_status
from serve.topology import address_of, nodes
from streams.embedded import RedisServer, free_port
from tests.serve.library import DIM, live, made, put, rows, times
from tests.servers import redis_binary, wait_until

SLOTS = 16_384


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[RedisServer]]:
    """Three primaries that share all slots."""
    with ExitStack() as stack:
        servers = []
        for number in range(3):
            bus = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
            server = RedisServer(
                binary=redis_binary(),
                arguments=[*bus, "--cluster-config-file", f"nodes-{number}.conf"],
            )
            servers.append(stack.enter_context(server))
        clients = [stack.enter_context(Redis(port=server.port)) for server in servers]
        bounds = [SLOTS * number // 3 for number in range(4)]
        for client, first, end in zip(clients, bounds, bounds[1:], strict=False):
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
        for server, args in zip(servers, [one._arguments for one in servers], strict=True):
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", server.port, args[3])

        def agreed() -> bool:
            infos = [client.execute_command("CLUSTER INFO") for client in clients]
            return all(
                info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"
                for info in infos
            )

        wait_until(agreed, "a cluster")
        yield servers


@pytest.fixture
def client(cluster: list[RedisServer]) -> Iterator[Redis]:
    client = connect(f"redis+cluster://{cluster[0].address}", startup_timeout_s=20)
    for node in nodes(client):
        node.flushall()
    yield client
    client.close()


def test_titles_lie_on_every_node_and_are_read_from_there(client: Redis) -> None:
    titles = [f"m{row}" for row in range(3000)]
    publisher = live(client)
    report = publisher.publish(
        titles, rows(*range(3000)), seq=1, step=2, time_ms=times(3000), names=titles
    )

    assert report == PublishReport(3000, 0)
    assert all(node.dbsize() > 500 for node in nodes(client))
    matrix, found, versions = EmbeddingReader(client).get_many(["m7", "missing", "m2999"])
    np.testing.assert_array_equal(matrix[:, 0], [7, 0, 2999])
    assert found.tolist() == [True, False, True]
    assert versions.seq.tolist() == [1, -1, 1]
    assert EmbeddingReader(client).all()[0] == sorted(titles)
    assert EmbeddingReader(client).names(["m7", "missing"]) == ["m7", None]
    assert client.xlen("upwell:main:updates") == 3000
    assert publisher.missing(["m1", "missing"]) == ["missing"]


def test_the_highest_seq_stands_and_the_counters_know_it(client: Redis) -> None:
    publisher, late = made(client), made(client)
    put(publisher, "a", 2.0, 2)

    report = late.publish(["a", "b"], rows(1, 1), seq=1, step=1, time_ms=times(2))
    retired = late.retire(["a"], seq=1, time_ms=1)

    assert (report, retired) == (PublishReport(1, 1), PublishReport(0, 1))
    assert publisher.last_seq() == 2
    told = [fields[b"title"] for _, fields in client.xrange("upwell:main:updates")]
    assert told == [b"a", b"b"]
    publisher.retire(["a"], seq=3, time_ms=1)
    assert put(publisher, "a", 9.0, 2) == PublishReport(0, 1)
    assert client.hget(vectors.title_key("main", "a"), "vec") is None
    assert put(publisher, "a", 9.0, 4) == PublishReport(1, 0)
    assert client.ttl(vectors.title_key("main", "a")) == -1


def test_a_flush_is_noticed_before_a_write(client: Redis) -> None:
    publisher = live(client)
    put(publisher, "a", 1.0, 1)
    for node in nodes(client):
        node.flushall()

    assert not publisher.check()
    with pytest.raises(SpaceLost, match="publish every title again"):
        put(publisher, "a", 2.0, 2)
    assert sum(node.dbsize() for node in nodes(client)) == 0
    assert publisher.create_space(DIM, index=True) is False
    put(publisher, "a", 2.0, 3)
    publisher.switch()
    assert publisher.check()


def test_a_node_that_forgot_our_code_is_told_again(client: Redis) -> None:
    publisher = made(client)
    put(publisher, "a", 1.0, 1)
    for node in nodes(client):
        node.script_flush()

    titles = [f"m{row}" for row in range(50)]
    report = publisher.publish(titles, rows(*range(50)), seq=2, step=1, time_ms=times(50))

    assert report.written == 50


def test_spaces_are_switched_rolled_back_and_dropped(client: Redis) -> None:
    for name in ("a", "b"):
        put(live(client, name), "m", 1.0, 1)

    assert spaces.rollback(client) == "a"
    assert spaces.drop(client, "b") == 1
    assert [space.name for space in spaces.list_spaces(client)] == ["a"]
    assert not [key for node in nodes(client) for key in node.scan_iter("upwell:b:*")]


def test_followers_caches_and_neighbours_work(client: Redis) -> None:
    publisher = live(client)
    follower = EmbeddingReader(client).follower()
    follower.poll()
    matrix = np.eye(DIM, dtype=np.float32)
    publisher.publish(["a", "b", "c"], matrix, seq=1, step=1, time_ms=times(3))

    assert [update.title for update in follower.poll(0.1).updates] == ["a", "b", "c"]
    similar = SimilarTitles(client)
    assert len(similar.similar("a")) == 2
    assert len(similar_titles(client, "a")) == 2
    with CachedReader(client) as cache:
        wait_until(lambda: cache._space)
        cache.get_many(["a"])
        put(publisher, "a", 5.0, 2)
        wait_until(lambda: cache.get_many(["a"]).matrix[0, 0] == 5)
    write_status(client, "w", {"step": 1})
    assert read_status(client)["w"]["step"] == 1


def test_readers_never_mix_two_spaces(cluster: list[RedisServer], client: Redis) -> None:
    asked = [f"m{row}" for row in range(40)]
    done = threading.Event()
    bad: list[str] = []

    def fill(number: int) -> None:
        publisher = made(client, f"s{number}")
        publisher.publish(asked, rows(*[number] * 40), seq=1, step=1, time_ms=times(40))
        publisher.switch()

    def read() -> None:
        with EmbeddingReader(f"redis+cluster://{cluster[1].address}") as reader:
            while not done.is_set():
                matrix, found, versions = reader.get_many(asked)
                if not found.all() or set(np.unique(matrix)) != {float(versions.space[1:])}:
                    bad.append(f"{versions.space}: {found.sum()} found, {np.unique(matrix)}")

    fill(0)
    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(1, 15):
        fill(number)
        spaces.drop(client, f"s{number - 1}")
    done.set()
    for thread in threads:
        thread.join()

    assert bad == []


def test_a_cluster_that_does_not_answer_is_named_without_the_password() -> None:
    port = free_port()
    with pytest.raises(RedisUnreachable) as caught:
        connect(f"redis+cluster://me:hunter2@127.0.0.1:{port}", startup_timeout_s=0.1)

    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_its_address_names_its_nodes(client: Redis, cluster: list[RedisServer]) -> None:
    assert cluster[0].address in address_of(client)
