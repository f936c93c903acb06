"""Log lines, as people and as machines read them."""

import io
import json
import logging
import threading

import pytest

from streams.logs import set_up


@pytest.fixture
def root():
    """The root logger, which is put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield root
    root.handlers = handlers
    root.setLevel(level)


def test_a_line_of_json_has_what_a_machine_looks_for(root):
    out = io.StringIO()
    set_up("INFO", "json", out)

    logging.getLogger("streams.intake").warning(
        "%d set aside; the first: %s", 3, "ünreadable\n", extra={"topic": "plays"}
    )

    (line,) = out.getvalue().splitlines()
    told = json.loads(line)
    assert told.pop("time").endswith("+00:00")
    assert told == {
        "level": "WARNING",
        "logger": "streams.intake",
        "thread": threading.current_thread().name,
        "message": "3 set aside; the first: ünreadable\n",
        "topic": "plays",
    }


def test_an_error_brings_its_traceback_in_the_same_line(root):
    out = io.StringIO()
    set_up("INFO", "json", out)

    try:
        raise ValueError("no such thing")
    except ValueError:
        logging.getLogger("x").exception("failed")

    (line,) = out.getvalue().splitlines()
    assert "ValueError: no such thing" in json.loads(line)["error"]


def test_text_is_for_people_and_what_is_below_the_level_is_left_out(root):
    out = io.StringIO()
    set_up("WARNING", "text", out)

    logging.getLogger("x").info("not this")
    logging.getLogger("x").warning("but this")

    assert out.getvalue().endswith(" WARNING x: but this\n")
    assert "not this" not in out.getvalue()
