"""The fault scenarios, short: the whole of them is `make faults`.

And the oracle itself: it must see one event too few, one too many, and a title that should be gone.
"""

import numpy as np
import pytest

from streams.events import CoPlays
from streams.settings import GraphSettings
from streams.snapshot import load_snapshot
from tests.faults import corruption, kills, outages, poison
from tests.faults.oracle import Fold, compare
from tests.faults.rig import first_checkpoint

TITLES = 60
pytestmark = pytest.mark.timeout(600)  # a machine that does much else takes its time


def quiet(*_: object) -> None:
    """Nobody watches."""


def test_workers_that_are_killed_lose_nothing_and_double_nothing(tmp_path):
    found = kills.run(
        tmp_path, seed=3, kills=6, events=20_000, kafka=False, progress=quiet, titles=TITLES
    )

    assert not found.wrong
    assert (found.kills, found.events > 20_000, found.bad > 0) == (6, True, True)
    assert (found.lost, found.doubled, found.catalog_wrong, found.published_wrong) == (0, 0, 0, 0)
    assert (found.dead_missed, found.seq_regressions) == (0, 0)


def test_damage_to_a_checkpoint_is_found_and_the_one_before_is_used(tmp_path):
    found = corruption.run(tmp_path, seed=3, corruptions=60, progress=quiet)

    assert not found.wrong
    assert (found.corruptions, found.undetected) == (60, 0)


def test_poison_is_set_aside_with_its_reason_and_what_is_mended_acts_once(tmp_path):
    found = poison.run(tmp_path, seed=3, messages=1000, kafka=False, progress=quiet)

    assert not found.wrong
    assert found.kinds >= 15
    assert (found.good, found.poison, found.missed, found.good_set_aside) == (900, 100, 0, 0)
    assert (found.lost, found.doubled, found.redriven_twice) == (0, 0, 0)
    assert found.redriven > 0


def test_a_redis_that_goes_and_forgets_is_filled_again(tmp_path):
    found = outages.run(
        tmp_path,
        seed=3,
        length_s=1.0,
        kafka=False,
        progress=quiet,
        only=frozenset({"Redis killed, its data gone"}),
        events=1000,
    )

    assert not found.wrong
    assert (found.outages, len(found.resume_s), found.lost, found.doubled) == (1, 1, 0, 0)


class Nothing:
    """A log that holds nothing."""

    entries: dict[tuple[str, int], list[object]] = {}  # noqa: RUF012


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("oracle")
    first_checkpoint(root, TITLES)
    return root


@pytest.fixture
def state(checkpoints):
    return load_snapshot(checkpoints, GraphSettings()).state


def played(weight: float) -> CoPlays:
    return CoPlays(
        ["m1"], ["m2"], np.array([weight], np.float32), np.array([5]), np.zeros(1, np.int32)
    )


def test_the_oracle_agrees_with_the_first_checkpoint(state):
    assert not compare(state, Fold(Nothing(), "coplays", TITLES))


@pytest.mark.parametrize(("has", "must", "lost", "doubled"), [(3, 4, 1, 0), (8, 4, 0, 4)])
def test_the_oracle_sees_an_event_too_few_or_too_many(state, has, must, lost, doubled):
    fold = Fold(Nothing(), "coplays", TITLES)
    fold.weights["m1", "m2"] = must
    state.apply_coplays(played(has), np.array([5]))

    found = compare(state, fold)

    assert (found.lost, found.doubled, found.edges) == (lost, doubled, 1)


def test_the_oracle_sees_a_title_that_should_be_gone(state):
    fold = Fold(Nothing(), "coplays", TITLES)
    fold.catalog["m1"].retired = True

    assert any("m1" in one for one in compare(state, fold).catalog)
