"""Named points at which a test may have this process die: what a fault run aims at.

    UPWELL_FAILPOINT=checkpoint.inside:kill:3     SIGKILL at the third pass
    UPWELL_FAILPOINT=publish.before:kill:1:2.5    SIGKILL 2.5 ms after the first pass
    UPWELL_FAILPOINT=refresh.taken:hold:2:500     the second pass waits for 500 ms
    UPWELL_FAILPOINT=checkpoint.drafted:full:1    the first pass finds the disk full

Several stand with commas between. Off unless the variable is set when a command starts; a point
that nobody aims at costs one look into an empty dictionary.
"""

import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

log = logging.getLogger(__name__)

VARIABLE: Final = "UPWELL_FAILPOINT"
POINTS: Final = frozenset(
    {
        "recovery.loaded",  # the checkpoint is read, nothing else is done
        "recovery.replaying",  # each batch before the worker has caught up
        "recovery.caught_up",  # nothing is published yet
        "recovery.opened",  # the space is taken up, and not filled
        "ingest.read",  # a batch is read
        "ingest.folded",  # it acts on the state
        "refresh.taken",  # dirty titles are taken out, and not published
        "publish.before",
        "publish.after",
        "retire.before",
        "retire.after",
        "checkpoint.before",
        "checkpoint.inside",  # the state is written, the model is not
        "checkpoint.drafted",  # all is written, and not in its place
        "checkpoint.placed",  # it is in its place, older ones still stand
        "checkpoint.after",
        "commit.before",
        "commit.after",
        "training.handover",  # new weights passed the gate, and are not in force
        "sessions.paired",  # a batch of plays is paired, nothing is written
        "sessions.written",  # pairs and memory are with the broker, nothing is acked
    }
)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


_ACTIONS: Final[dict[str, Callable[[], None]]] = {
    "kill": _kill,
    "full": _full,
    "hold": lambda: None,
}


@dataclass(slots=True)
class _Aim:
    action: str
    left: int
    after_s: float


_armed: dict[str, _Aim] = {}
_lock = threading.Lock()


def arm(text: str | None = None) -> None:
    """Aim at the points that `text`, by default the variable, names; disarm all others.

    Raises:
        ValueError: no such point or action, or a number that is none.
    """
    text = os.environ.get(VARIABLE, "") if text is None else text
    aims = dict(_parse(one) for one in text.split(",") if one)
    with _lock:
        _armed.clear()
        _armed.update(aims)
    for name, aim in aims.items():
        log.warning("%s: %s at pass %d of %s", VARIABLE, aim.action, aim.left, name)


def reach(name: str) -> None:
    """The program passes the point `name`.

    Raises:
        OSError: the disk is full, where that is what was asked for.
    """
    if _armed:
        _fire(name)


def _fire(name: str) -> None:
    with _lock:
        aim = _armed.get(name)
        if aim is None:
            return
        aim.left -= 1
        if aim.left:
            return
        del _armed[name]
    if aim.action == "kill" and aim.after_s:  # on, meanwhile: it dies inside of what comes next
        timer = threading.Timer(aim.after_s, _kill)
        timer.daemon = True
        timer.start()
        return
    time.sleep(aim.after_s)
    _ACTIONS[aim.action]()


def _parse(text: str) -> tuple[str, _Aim]:
    parts = text.split(":")
    name, action, count, after_ms = [*parts, *("kill", "1", "0")[len(parts) - 1 :]][:4]
    if name not in POINTS:
        raise ValueError(f"{VARIABLE}: no point {name!r}; there are: {', '.join(sorted(POINTS))}")
    if action not in _ACTIONS:
        raise ValueError(f"{VARIABLE}: no action {action!r}; there are: {', '.join(_ACTIONS)}")
    try:
        aim = _Aim(action, int(count), float(after_ms) / 1000)
    except ValueError:
        raise ValueError(f"{VARIABLE}: {text!r}: want POINT:ACTION:PASS:MILLISECONDS") from None
    if aim.left < 1 or not 0 <= aim.after_s < 60:
        raise ValueError(f"{VARIABLE}: {text!r}: want a pass from 1, and less than a minute")
    return name, aim
