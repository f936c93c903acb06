"""Failpoints: off by default, at the pass that was asked for, and never at a name that is none."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streams import failpoints

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _disarmed(monkeypatch):
    monkeypatch.delenv(failpoints.VARIABLE, raising=False)
    yield
    failpoints.arm("")


def test_nothing_happens_where_nothing_is_armed():
    failpoints.arm()

    for name in failpoints.POINTS:
        failpoints.reach(name)


def test_the_disk_is_full_at_the_pass_that_was_asked_for_and_only_then():
    failpoints.arm("checkpoint.drafted:full:3")

    failpoints.reach("checkpoint.drafted")
    failpoints.reach("checkpoint.placed")
    failpoints.reach("checkpoint.drafted")
    with pytest.raises(OSError, match="No space left"):
        failpoints.reach("checkpoint.drafted")
    failpoints.reach("checkpoint.drafted")


@pytest.mark.parametrize(
    ("aim", "passes"), [("publish.before:kill:2", 2), ("publish.before:kill:1:1", 1)]
)
def test_a_kill_is_a_sigkill_at_once_or_a_moment_later(aim, passes):
    program = (
        "import time\n"
        "from streams import failpoints\n"
        "failpoints.arm()\n"
        f"for n in range({passes}):\n"
        "    print(n, flush=True)\n"
        "    failpoints.reach('publish.before')\n"
        "time.sleep(60)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={failpoints.VARIABLE: aim, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == [str(n) for n in range(passes)]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("checkpoint.sideways:kill", "no point 'checkpoint.sideways'"),
        ("publish.after:explode", "no action 'explode'"),
        ("publish.after:kill:often", "want POINT:ACTION:PASS"),
        ("publish.after:kill:0", "want a pass from 1"),
        ("publish.after:hold:1:-5", "want a pass from 1"),
    ],
)
def test_what_cannot_be_aimed_at_is_refused(text, match):
    with pytest.raises(ValueError, match=match):
        failpoints.arm(text)


def test_each_point_is_passed_somewhere_in_the_program():
    sources = "".join(path.read_text() for path in (ROOT / "streams").rglob("*.py"))

    missing = [name for name in failpoints.POINTS if f'reach("{name}")' not in sources]

    assert not missing
