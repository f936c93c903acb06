"""Operators' commands: what was set aside, and which checkpoints are whole."""

import json

import pytest
import typer
import typer.testing

from streams import checkpoint
from streams.cli_operate import register
from streams.dead_letters import set_aside
from streams.embedded import Broker
from streams.events import Message, decode_coplays
from streams.ingest import Ingest
from streams.producer import Producer
from streams.topics import DEAD, TopicSpec, ensure_topics
from tests.servers import wait_until

COMMANDS = ["dead-letters list", "dead-letters show", "dead-letters redrive"]
COMMANDS += ["checkpoint list", "checkpoint verify"]


@pytest.fixture
def upwell():
    """Calls the commands as the program does; an error comes back as `exception`."""
    app = typer.Typer()
    register(app)
    return lambda *arguments: typer.testing.CliRunner().invoke(app, arguments)


@pytest.fixture
def topic(broker: Broker, monkeypatch, request) -> str:
    """A topic of this test's own, with three dead letters."""
    name = f"operate-{abs(hash(request.node.name))}"
    monkeypatch.setenv("UPWELL_KAFKA__BOOTSTRAP", broker.address)
    ensure_topics(broker.address, [TopicSpec(name, 1), TopicSpec(name + DEAD, 1)])
    values = [b"{", b'{"a": "\xff"}', b'{"a": "x", "b": "x", "time_ms": 1}']
    messages = [
        Message(name, 0, row, b"k", value, 1_700_000_000_000, [("trace", b"\x00\x01")])
        for row, value in enumerate(values)
    ]
    with Producer(broker.address) as producer:
        set_aside(producer, decode_coplays(messages).dead, component="worker")
    return name


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two checkpoints, where the settings look for them."""
    root = tmp_path / "checkpoints"
    monkeypatch.setenv("UPWELL_CHECKPOINT__FOLDER", str(root))
    for step in (1, 2):
        meta = {"step": step, "state": {"seq": step * 10, "positions": [["coplays", 0, 70]]}}
        checkpoint.write(
            root, lambda folder: (folder / "a.npy").write_bytes(b"12345") and None, meta
        )
    return root


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_has_an_example(upwell, command):
    done = upwell(*command.split(), "--help")

    assert done.exit_code == 0
    assert f"Example: upwell {command}" in done.output.replace("`", "")


def test_letters_are_listed_with_their_reason(upwell, topic):
    done = upwell("dead-letters", "list", topic)

    assert done.exit_code == 0
    assert "0:0" in done.output
    assert "DecodeError: Input data was truncated" in done.output
    assert done.output.endswith("3 dead letters\n")


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ([], ["0:0", "0:1", "0:2"]),
        (["--error", "ValueError"], ["0:2"]),
        (["--reason", "UTF-8"], ["0:1"]),
        (["--stage", "catalog"], []),
        (["--since-h", "1"], []),
    ],
)
def test_letters_are_listed_by_choice(upwell, topic, options, ids):
    done = upwell("dead-letters", "list", topic, "--json", *options)

    assert [one["id"] for one in json.loads(done.output)] == ids


def test_a_letter_is_shown_whole(upwell, topic):
    done = upwell("dead-letters", "show", topic, "0:1", "--json")

    letter = json.loads(done.output)
    assert letter["value"] == "base64:eyJhIjogIv8ifQ=="
    assert letter["headers"] == {"trace": "\\x00\\x01"}
    assert (
        "reason       Input data was truncated"
        in upwell("dead-letters", "show", topic, "0:0").output
    )
    assert "has no dead letter 9:9" in str(upwell("dead-letters", "show", topic, "9:9").exception)


def test_letters_are_sent_again_once(upwell, topic, broker):
    dry = upwell("dead-letters", "redrive", topic, "--dry-run")
    odd = upwell("dead-letters", "redrive", topic, "0:0", "7:7")
    one = upwell("dead-letters", "redrive", topic, "0:0")
    rest = upwell("dead-letters", "redrive", topic)
    none = upwell("dead-letters", "redrive", topic)

    assert dry.output == f"3 dead letters would be sent to {topic}, 0 were cut\n"
    assert "no dead letter 7:7; nothing was sent" in str(odd.exception)
    sent = [done.output.split()[0] for done in (one, rest, none)]
    assert sent == ["1", "2", "0"]
    assert "0 dead letters" in upwell("dead-letters", "list", topic).output
    assert upwell("dead-letters", "list", topic, "--all").output.count("sent again") == 3
    with Ingest(broker.address, [topic]) as ingest:
        found: list[Message] = []
        wait_until(
            lambda: found.extend(ingest.consume(9, 0.2).messages.get(topic, [])) or len(found) == 3
        )
    assert found[0].value == b"{"


def test_checkpoints_are_listed_with_what_they_hold(upwell, root):
    (root / "00000001" / "a.npy").write_bytes(b"1234")

    found = json.loads(upwell("checkpoint", "list", "--json").output)

    assert [one["number"] for one in found] == ["00000001", "00000002"]
    assert "a.npy has 4 bytes, not 5" in found[0]["damage"]
    assert (found[1]["seq"], found[1]["step"], found[1]["messages"]) == (20, 2, 70)
    table = upwell("checkpoint", "list").output
    assert "damaged" in table
    assert "whole" in table


def test_a_damaged_checkpoint_is_exit_code_1(upwell, root):
    assert upwell("checkpoint", "verify").output == "00000001  whole\n00000002  whole\n"
    (root / "00000002" / "a.npy").write_bytes(b"1234!")

    done = upwell("checkpoint", "verify", str(root))

    assert done.exit_code == 1
    assert "a.npy was changed after it was written" in done.output
    assert "1 checkpoints under" in str(done.exception)


def test_no_checkpoint_is_a_failure_that_says_how_to_make_one(upwell, tmp_path):
    done = upwell("checkpoint", "verify", str(tmp_path))

    assert "`upwell pretrain` makes one" in str(done.exception)
