"""A data set, and a checkpoint of it, small enough for a test to make."""

from pathlib import Path

import numpy as np

from model.pretrain import Pretrained
from model.settings import PretrainConfig
from streams.bootstrap import History, bootstrap
from streams.coplay import Pairing
from streams.data import Dataset
from streams.settings import GraphSettings

TITLES, USERS, PLAYS = 40, 20, 600
QUICK = PretrainConfig(transe_steps=20, steps=20)


def small_data() -> Dataset:
    """Titles m0.., each with a genre and a director, played at random."""
    rng = np.random.default_rng(3)
    kinds = ["Comedy", "Drama", "Crime", "Western"]
    return Dataset(
        users=[f"u{n}" for n in range(USERS)],
        titles=[f"m{n}" for n in range(TITLES)],
        names=[f"Film {n}" for n in range(TITLES)],
        years=np.full(TITLES, 1999),
        concepts=[{"genre": [kinds[n % 4]], "director": [f"d{n % 7}"]} for n in range(TITLES)],
        play_users=np.sort(rng.integers(0, USERS, PLAYS)),
        play_titles=rng.integers(0, TITLES, PLAYS),
        play_ratings=np.ones(PLAYS, np.float32),
        play_time_ms=np.arange(PLAYS, dtype=np.int64) * 1000,
    )


def small_checkpoint(root: Path, *, seed: int = 0, titles: int = TITLES, **more) -> Pretrained:
    """Bootstrap a checkpoint of the small data, or of its first titles, under `root`."""
    data = small_data()
    plays = np.flatnonzero(data.play_titles < titles)
    return bootstrap(
        History(data, plays, np.arange(titles)[::-1] if seed else np.arange(titles)),
        root,
        graph=GraphSettings(),
        pairing=Pairing(),
        config=QUICK,
        seed=seed,
        report=lambda *_: None,
        **more,
    )
