"""One node of Apache Kafka for tests: broker and controller (KRaft) in one process, on real data.

    <cache>/kafka/<sum of pom.xml>/*.jar   fetched by Maven once, and kept
    <folder>/data                          the log: it outlives a kill and a restart
    <folder>/server.properties             two listeners: PLAIN, and SECURE with TLS and a password

Unlike the embedded broker it keeps its log on disk, deletes records, and knows transactions. It is
started as the embedded servers are (streams/embedded.py): a free port, ready when it has answered,
and no orphan whatever becomes of us.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.data import user_cache
from streams.embedded import HOST, Child, _listens, _Server, free_port, spawn

POM = Path(__file__).with_name("pom.xml")
USER, PASSWORD = "upwell", "hunter2"
FETCH_S = 240.0


class Missing(RuntimeError):
    """What a real Kafka needs is not on this machine, and cannot be had."""


def jars() -> Path:
    """The folder of Kafka's jars, fetched where it is missing.

    Raises:
        Missing: no Java, no openssl, no Maven, or Maven could not get them.
    """
    for program in ("java", "openssl"):
        if shutil.which(program) is None:
            raise Missing(f"no `{program}`: install it (Java 17 or later)")
    folder = user_cache() / "kafka" / hashlib.sha256(POM.read_bytes()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    if shutil.which("mvn") is None:
        raise Missing("no `mvn` to fetch Apache Kafka with: install Maven")
    draft = folder.with_name(f".draft-{os.getpid()}")
    command = ["mvn", "-q", "-B", "-f", POM, "dependency:copy-dependencies"]
    try:
        done = subprocess.run(
            [*command, f"-DoutputDirectory={draft}"],
            capture_output=True,
            text=True,
            timeout=FETCH_S,
            check=False,
        )
        if done.returncode:
            raise Missing(f"Maven could not fetch Apache Kafka: {done.stdout[-500:]}")
        if not folder.is_dir():  # else another run was faster
            draft.rename(folder)
    except subprocess.TimeoutExpired:
        raise Missing(f"Maven could not fetch Apache Kafka within {FETCH_S:g} s") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


class Kafka(_Server):
    """A node of Apache Kafka; `address` is its plain listener, `secure_address` the other one.

    Args:
        folder: where its data and its log file go, and stay; none: a temporary one.
    """

    name = "kafka"
    remedy = "The integration tests need Java 17, and Maven for the first time."

    def __init__(self, *, folder: Path | None = None) -> None:
        super().__init__(folder=folder, port=None, start_timeout_s=60.0)
        self._jars = jars()
        self._cluster = base64.urlsafe_b64encode(b"\x10" + uuid.uuid4().bytes[1:]).decode()[:22]
        self._controller, self._secure = free_port(), free_port()

    @property
    def secure_address(self) -> str:
        return f"{HOST}:{self._secure}"

    @property
    def secure_client(self) -> dict[str, str]:
        """What a client of the secure listener sets."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": PASSWORD,
            "ssl.ca.location": str(self.folder / "ca.pem"),
        }

    def kill(self) -> None:
        """End it as a power cut would; `start` brings it back on the same data and port."""
        self.child.kill()

    def _launch(self, port: int) -> Child:
        self._prepare(port)
        return super()._launch(port)

    def _command(self, port: int) -> list[str | Path]:
        return self._java("kafka.Kafka", str(self.folder / "server.properties"))

    def _answers(self, port: int) -> bool:
        if not _listens(port):
            return False
        client = AdminClient({"bootstrap.servers": f"{HOST}:{port}", "log_level": 0})
        try:
            return client.list_topics(timeout=2.0).cluster_id == self._cluster
        except KafkaException:
            return False

    def _java(self, main: str, *arguments: str) -> list[str | Path]:
        # Light in memory, and quick to start rather than quick for long.
        options = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return ["java", *options, quiet, "-cp", f"{self._jars}/*", main, *arguments]

    def _prepare(self, port: int) -> None:
        """Write the settings, and format the storage where it is new."""
        properties = self.folder / "server.properties"
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{self._controller}",
            "controller.listener.names": "CONTROL",
            "inter.broker.listener.name": "PLAIN",
            "listeners": f"PLAIN://{HOST}:{port},SECURE://{HOST}:{self._secure},"
            f"CONTROL://{HOST}:{self._controller}",
            "advertised.listeners": f"PLAIN://{HOST}:{port},SECURE://{HOST}:{self._secure}",
            "listener.security.protocol.map": "PLAIN:PLAINTEXT,CONTROL:PLAINTEXT,SECURE:SASL_SSL",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.secure.plain.sasl.jaas.config": f'{login} user_{USER}="{PASSWORD}";',
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._certificate()),
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            # A broker that was killed is let in again once the controller has given up the old one.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "group.min.session.timeout.ms": "1000",
            "group.initial.rebalance.delay.ms": "0",
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
        }
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        if not (self.folder / "data").is_dir():
            arguments = ["format", "-t", self._cluster, "-c", str(properties)]
            self._run(self._java("kafka.tools.StorageTool", *arguments))

    def _certificate(self) -> Path:
        """A certificate for our address, which vouches for itself, and its key; made once."""
        both, certificate, key = (self.folder / name for name in ("keys.pem", "ca.pem", "key.pem"))
        if not both.exists():
            kind = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
            name = ["-subj", "/CN=kafka", "-addext", f"subjectAltName=IP:{HOST}"]
            self._run(["openssl", *kind, *name, "-keyout", key, "-out", certificate])
            both.write_bytes(key.read_bytes() + certificate.read_bytes())
        return both

    def _run(self, command: list[str | Path]) -> None:
        with spawn("kafka's set-up", command, log=self.log) as child:
            if child.wait(60.0):
                raise self._failed(f"could not be set up by {command[0]}", 0)
