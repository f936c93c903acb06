"""What the demo needs before it can stream: data, a plan, and a pretrained checkpoint, all cached.

The checkpoint's name is a sum over all that it depends on: data, plan, seed, and the code of the
rooms that made it. So a cached one is never an old one.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streams import checkpoint
from streams.bootstrap import History, Report, bootstrap, spread_ties
from streams.coplay import Pairing
from streams.data import Dataset, fetch_ml1m, load_ml1m, user_cache
from streams.demo.plan import Plan, make_plan
from streams.settings import GraphSettings
from streams.warmup import warm_up

Int64s = npt.NDArray[np.int64]
KEPT = 3  # pretrained checkpoints in the cache
_ROOMS = ("store", "partition", "model")


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that streaming needs.

    Attributes:
        time_ms: event time of each play, no two of one second alike, shape (P,).
        checkpoints: folder with the checkpoint that the worker starts from.
        pretrained_now: whether it was made now, not found.
    """

    data: Dataset
    plan: Plan
    time_ms: Int64s
    checkpoints: Path
    pretrained_now: bool


def prepare(
    *, plays: int, new_titles: int, seed: int, pairing: Pairing, folder: Path, report: Report
) -> Prepared:
    """Fetch, plan and pretrain what is not there yet.

    Args:
        folder: a copy of the checkpoint is made here: the worker adds to it.

    Raises:
        DataFailed: the data set cannot be had.
        ValueError: more plays to stream than there are.
        OSError: no space.
    """
    from model.settings import PretrainConfig

    cache = user_cache()
    # Here, where a bar tells of it, and not in the worker: kernels are compiled once a machine.
    report("kernels", 0, 1, "")
    warm_up(GraphSettings())
    report("kernels", 1, 1, "")

    def told(step: str, done: int, total: int) -> None:
        report(step, done, total, "")

    found = fetch_ml1m(cache, told)
    data = load_ml1m(found, seed=seed)
    plan = make_plan(
        data.play_titles, data.num_concepts, plays=plays, new_titles=new_titles, seed=seed
    )
    time_ms = spread_ties(data.play_time_ms)
    name = _name(found, plan, pairing, seed, asdict(PretrainConfig()))
    place = cache / "demo" / name
    made_now = checkpoint.newest(place)[0] is None
    if made_now:
        shutil.rmtree(place, ignore_errors=True)
        held_back = np.zeros(len(data.titles), bool)
        held_back[plan.new_titles] = True
        history = History(data, plan.history, np.flatnonzero(~held_back))
        bootstrap(
            history,
            place,
            graph=GraphSettings(),
            pairing=pairing,
            config=PretrainConfig(),
            seed=seed,
            report=report,
        )
        _forget_old(place.parent)
    place.touch()
    shutil.copytree(place, folder)
    return Prepared(data, plan, time_ms, folder, made_now)


def _name(found: Path, plan: Plan, pairing: Pairing, seed: int, config: object) -> str:
    sum_ = hashlib.sha256(json.dumps([seed, config, asdict(pairing)], sort_keys=True).encode())
    for column in (plan.history, plan.new_titles):
        sum_.update(column.tobytes())
    sum_.update((found / "about.json").read_bytes())
    root = Path(__file__).resolve().parent.parent.parent
    rooms = [path for room in _ROOMS for path in sorted((root / room).glob("*.py"))]
    for path in (*rooms, root / "streams" / "bootstrap.py", root / "streams" / "coplay.py"):
        sum_.update(path.read_bytes())
    return sum_.hexdigest()[:16]


def _forget_old(cache: Path) -> None:
    ages = sorted(cache.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in ages[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
