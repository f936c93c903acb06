"""What /livez, /readyz and /metrics say, over HTTP."""

import http.client
import threading

import pytest

from streams.console.server import Answer, Server, health_routes
from streams.health import Health, Partitions, lane, wrong


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def server(health):
    server = Server("127.0.0.1", 0, health_routes(health))
    yield server
    server.close()


def get(server: Server, path: str, *, method: str = "GET", host: str | None = None):
    """Status, headers and text of one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, text


def test_a_partition_that_stands_still_while_messages_wait_is_named():
    clock = Clock()
    partitions = Partitions(60, clock=clock)
    partitions.see({("coplays", 0): 5, ("coplays", 1): 7}, {("coplays", 0): 9, ("coplays", 1): 3})

    clock.now += 50
    partitions.see({("coplays", 0): 6, ("coplays", 1): 7}, {("coplays", 0): 9, ("coplays", 1): 3})
    assert partitions.trouble() is None
    clock.now += 11

    assert partitions.trouble() == (
        "partition 1 of 'coplays' has stood at offset 7 for 61 s while 3 messages wait"
    )
    partitions.see({("coplays", 0): 6, ("coplays", 1): 8}, {("coplays", 0): 9, ("coplays", 1): 2})
    assert partitions.trouble() is None


def test_a_partition_in_which_nothing_waits_may_stand_for_ever():
    clock = Clock()
    partitions = Partitions(60, clock=clock)
    for _ in range(5):
        partitions.see({("coplays", 0): 5}, {("coplays", 0): 0})
        clock.now += 1000
    partitions.see({("coplays", 0): 5}, {("coplays", 0): 4})
    clock.now += 59

    assert partitions.trouble() is None


def test_a_lane_is_alive_while_its_thread_takes_turns():
    clock, stop = Clock(), threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    probe = lane("refresh", thread, lambda: 100.0, 60, clock=clock)

    assert probe() is None
    clock.now = 161
    assert probe() == "the refresh thread has not taken a turn for 61 s"
    stop.set()
    thread.join()
    assert probe() == "the refresh thread has ended; the log says why"


def test_livez_names_what_fails(health, server):
    health.watch("broker", lambda: None)
    assert get(server, "/livez")[::2] == (200, "ok\n")

    health.watch("refresh", lambda: "it has ended")
    health.watch("training", lambda: "it hangs")

    assert get(server, "/livez")[::2] == (503, "refresh: it has ended\ntraining: it hangs\n")
    assert wrong(health.troubles()).keys() == {"refresh", "training"}


def test_readyz_holds_once_there_is_nothing_to_wait_for(health, server):
    assert get(server, "/readyz")[::2] == (503, "ready: the worker is starting\n")

    health.unready = None

    assert get(server, "/readyz")[::2] == (200, "ok\n")


def test_an_unknown_path_says_which_there_are(server):
    status, headers, text = get(server, "/nope")

    assert status == 404
    assert "/livez /readyz" in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_a_loopback_server_answers_to_its_own_names_alone(server):
    assert get(server, "/livez", host="localhost:1")[0] == 200
    assert get(server, "/livez", host="[::1]:1")[0] == 200
    assert get(server, "/livez", host="evil.example")[0] == 421


def test_nothing_can_be_changed(server):
    assert get(server, "/livez", method="POST")[0] == 501
    assert get(server, "/livez", method="HEAD")[::2] == (200, "")


def test_a_route_that_fails_is_an_answer_too(server):
    def fails() -> Answer:
        raise ValueError("no such thing")

    server.add({"/broken": fails})

    assert get(server, "/broken")[::2] == (500, "no such thing\n")
    assert get(server, "/livez")[0] == 200


def test_a_taken_port_is_named(server):
    with pytest.raises(OSError, match=rf"127.0.0.1:{server.port} cannot be listened on.*operate"):
        Server("127.0.0.1", server.port, {})
