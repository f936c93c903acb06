"""TLS: the right authority lets us in; a wrong one, none, and plain text are refused in words.

The wheel's server speaks no TLS: a small proxy of ours ends it in front of a real server, with a
certificate that openssl makes for the test.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serve.connection import RedisRefused, RedisUnreachable, connect
from serve.publisher import Publisher
from serve.reader import EmbeddingReader
from streams.embedded import RedisServer, free_port, spawn
from tests.serve.library import DIM, put
from tests.servers import wait_until

SECRET = "hunter2"


def authority(folder: Path, name: str) -> Path:
    """A self-signed authority: the path of its certificate, its key beside it."""
    path = folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    files = ["-keyout", str(path.with_suffix(".key")), "-out", str(path)]
    subprocess.run([*command, *files, "-subj", f"/CN={name}"], check=True, capture_output=True)
    return path


def certificate(folder: Path, signer: Path, host: str) -> Path:
    """A server's certificate for `host`, signed: the path, its key beside it."""
    path = folder / f"server-{host}.pem"
    key, request = path.with_suffix(".key"), path.with_suffix(".csr")
    extensions = folder / "extensions"
    extensions.write_text(f"subjectAltName={host}\n")
    for command in (
        ["req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", "/CN=r"],
        [
            "x509",
            "-req",
            "-in",
            request,
            "-CA",
            signer,
            "-CAkey",
            signer.with_suffix(".key"),
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            extensions,
            "-out",
            path,
        ],
    ):
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    return path


@contextmanager
def tls_before(server: RedisServer, cert: Path, client_ca: Path | None = None) -> Iterator[int]:
    """A port that speaks TLS and hands on to `server`; with `client_ca`, to known clients only."""
    port = free_port()
    program = Path(__file__).with_name("tls_proxy.py")
    given = [str(port), str(server.port), cert, *([client_ca] if client_ca else [])]
    log = cert.with_suffix(".log")
    with spawn("proxy", [sys.executable, program, *given], log=log) as proxy:
        wait_until(lambda: listens(port), f"a proxy; {proxy.tail()}")
        yield port


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def ca(folder: Path) -> Path:
    return authority(folder, "ca")


def test_embeddings_go_through_tls(folder: Path, ca: Path, redis_server: RedisServer) -> None:
    cert = certificate(folder, ca, "IP:127.0.0.1")
    with tls_before(redis_server, cert) as port:
        client = connect(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={ca}")
        client.flushall()
        publisher = Publisher(client, "main")
        publisher.create_space(DIM)
        put(publisher, "a", 1.0, 1)
        publisher.switch()

        assert EmbeddingReader(client).get_many(["a"]).found.all()

        client.close()


def test_a_wrong_or_no_authority_is_refused_at_once(
    folder: Path, ca: Path, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    cert = certificate(folder, ca, "IP:127.0.0.1")
    other = authority(folder, "other")
    with tls_before(redis_server, cert) as port:
        for query in (f"?ssl_ca_certs={other}", ""):
            with pytest.raises(RedisRefused, match="certificate is not accepted") as caught:
                connect(f"rediss://me:{SECRET}@127.0.0.1:{port}/0{query}")

            assert f"127.0.0.1:{port}" in str(caught.value)
            assert "ssl_ca_certs=FILE" in str(caught.value)
            assert SECRET not in str(caught.value) + caplog.text


def test_a_certificate_of_another_host_is_refused(
    folder: Path, ca: Path, redis_server: RedisServer
) -> None:
    cert = certificate(folder, ca, "DNS:elsewhere")
    with (
        tls_before(redis_server, cert) as port,
        pytest.raises(RedisRefused, match="certificate is not accepted"),
    ):
        connect(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={ca}")


def test_plain_text_to_a_tls_port_says_what_may_be_wrong(
    folder: Path, ca: Path, redis_server: RedisServer
) -> None:
    cert = certificate(folder, ca, "IP:127.0.0.1")
    with (
        tls_before(redis_server, cert) as port,
        pytest.raises(RedisUnreachable, match=rf"127.0.0.1:{port}.*rediss://") as caught,
    ):
        connect(f"redis://me:{SECRET}@127.0.0.1:{port}/0", startup_timeout_s=0.1)

    assert SECRET not in str(caught.value)


def test_tls_to_a_plain_port_says_what_may_be_wrong(redis_server: RedisServer) -> None:
    with pytest.raises(RedisUnreachable, match=r"redis:// \(not rediss://\)"):
        connect(f"rediss://{redis_server.address}/0", startup_timeout_s=0.1, timeout_s=0.5)


def test_a_file_of_authorities_that_is_not_there_is_named(redis_server: RedisServer) -> None:
    with pytest.raises(ValueError, match="no-such-file"):
        connect(f"rediss://{redis_server.address}/0?ssl_ca_certs=/no-such-file")


def test_a_client_that_must_show_a_certificate_shows_it(
    folder: Path, ca: Path, redis_server: RedisServer
) -> None:
    cert = certificate(folder, ca, "IP:127.0.0.1")
    query = f"?ssl_ca_certs={ca}"
    mine = f"&ssl_certfile={cert}&ssl_keyfile={cert.with_suffix('.key')}"
    with tls_before(redis_server, cert, client_ca=ca) as port:
        client = connect(f"rediss://127.0.0.1:{port}/0{query}{mine}")
        assert client.ping()
        client.close()

        with pytest.raises(RedisUnreachable):
            connect(f"rediss://127.0.0.1:{port}/0{query}", startup_timeout_s=0.1)
