"""The prequential protocol on small streams: what it counts, and what no score may see."""

from dataclasses import replace

import numpy as np
import pytest

from model.evaluation.arms import ARMS
from model.evaluation.counts import cocount_scorer
from model.evaluation.queries import Asker, answer
from model.evaluation.run import Options, evaluate
from model.evaluation.stream import ALWAYS, Stream, Windows, hold_back
from model.evaluation.world import World
from model.settings import LossConfig, MicroConfig, ModelConfig, PretrainConfig

TITLES = 30
SMALL = Options(
    windows=3,
    questions=50,
    retrain_every=2,
    model=ModelConfig(dim=8, max_coplay=4),
    pretrain=PretrainConfig(transe_steps=4, steps=4, loss=LossConfig(sources=16)),
    micro=MicroConfig(steps=2, loss=LossConfig(sources=16)),
)


def quiet(step: str, done: int, total: int, note: str = "") -> None:
    pass


def make_stream(*, plays: int = 300, users: int = 12, seed: int = 0) -> Stream:
    """Users who stay in one of three camps; a title's genre is its camp."""
    rng = np.random.default_rng(seed)
    user = rng.integers(users, size=plays)
    title = (user % 3) * 10 + rng.integers(10, size=plays)
    last: dict[int, int] = {}
    pairs = []
    for row in range(plays):
        before = last.get(int(user[row]))
        if before is not None and title[before] != title[row]:
            pairs.append((title[row], title[before], row))
        last[int(user[row])] = row
    later, earlier, pair_row = (np.array(one, np.int64) for one in zip(*pairs, strict=True))
    return Stream(
        titles=[f"m{number}" for number in range(TITLES)],
        arrival_ms=np.full(TITLES, ALWAYS),
        relations=["genre"],
        concepts=[f"genre:{number}" for number in range(3)],
        triple_title=np.arange(TITLES),
        triple_relation=np.zeros(TITLES, np.int64),
        triple_concept=np.arange(TITLES) // 10,
        users=user,
        plays=title,
        time_ms=np.arange(plays, dtype=np.int64) * 1000,
        pair_later=later,
        pair_earlier=earlier,
        pair_weight=np.ones(len(pairs), np.float32),
        pair_row=pair_row,
    )


@pytest.fixture(scope="module")
def figures():
    stream, _ = hold_back(make_stream(), 4, 3, seed=0)
    return evaluate(stream, SMALL, quiet)


def numbers(value):
    if isinstance(value, dict):
        for one in value.values():
            yield from numbers(one)
    elif isinstance(value, list):
        for one in value:
            yield from numbers(one)
    elif isinstance(value, float):
        yield value


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_gives_every_figure_with_its_interval(figures, arm):
    found = figures["arms"][arm]

    for task in ("e1", "e2"):
        for metric in ("recall20", "ndcg20", "mrr"):
            one = found[task][metric]
            assert 0 <= one["low"] <= one["value"] <= one["high"] <= 1
    assert {"auc", "recall20"} <= found["cold_pool"].keys()
    assert found["seconds_per_window"] >= 0
    assert "drift_cosine" in found


def test_no_figure_is_nan(figures):
    assert np.isfinite(list(numbers(figures))).all()


def with_future(stream: Stream, window: int, windows: Windows) -> Stream:
    """The same stream, but from `window` on everybody plays title 29 after title 0, many times,
    and title 29 comes to the catalogue only then, with title 0's genre beside its own."""
    plays = stream.plays.copy()
    start = int(windows.bounds[window])
    plays[start::2], plays[start + 1 :: 2] = 29, 0
    late = stream.pair_row >= start
    arrival = stream.arrival_ms.copy()
    arrival[29] = stream.time_ms[start]
    planted = replace(
        stream,
        arrival_ms=arrival,
        plays=plays,
        pair_later=np.where(late, 29, stream.pair_later),
        pair_earlier=np.where(late, 0, stream.pair_earlier),
        pair_weight=np.where(late, np.float32(1000), stream.pair_weight),
        triple_title=np.append(stream.triple_title, 29),
        triple_relation=np.append(stream.triple_relation, 0),
        triple_concept=np.append(stream.triple_concept, 0),
    )
    return planted.without_plays(arrival[planted.plays] > planted.time_ms)


def test_no_arm_sees_a_future_edge_or_a_future_concept():
    plain = make_stream()
    plain = replace(plain, arrival_ms=np.where(np.arange(TITLES) == 29, 2**62, plain.arrival_ms))
    plain = plain.without_plays(plain.plays == 29)
    windows = Windows.of(plain, 3)
    planted = with_future(plain, 2, windows)
    assert len(planted) == len(plain)

    without, with_it = (evaluate(one, SMALL, quiet)["arms"] for one in (plain, planted))

    for arm in ARMS:
        for task in ("e1", "e2"):
            before = without[arm][task]["windows"]
            assert before[:2] == with_it[arm][task]["windows"][:2], arm
    changed = [without[arm]["e1"]["windows"][2] != with_it[arm]["e1"]["windows"][2] for arm in ARMS]
    assert any(changed)  # the plant is seen once it is the past of a later question


def test_all_equal_scores_are_worth_chance():
    stream = make_stream()
    windows = Windows.of(stream, 3)
    world = World(stream)
    world.arrive(0)
    world.ingest(slice(0, windows.cut))
    questions = Asker(stream, most=10_000, seed=0).ask(windows.rows(0), world)

    got = answer(
        questions,
        lambda mix: np.zeros((mix.shape[0], TITLES), np.float32),
        world.known_T,
        world.plays_T,
    )

    candidates = TITLES - np.array(
        [
            len(set(row.indices) - {target})
            for row, target in zip(questions.seen, questions.target, strict=True)
        ]
    )
    np.testing.assert_allclose(got.e1, (candidates + 1) / 2)


def test_ranks_agree_with_a_sort_of_each_question():
    stream, _ = hold_back(make_stream(seed=3), 5, 3, seed=1)
    windows = Windows.of(stream, 3)
    world = World(stream)
    world.arrive(int(stream.time_ms[windows.bounds[1] - 1]))
    world.ingest(slice(0, windows.cut))
    questions = Asker(stream, most=10_000, seed=0).ask(windows.rows(0), world)
    scorer = cocount_scorer(world, 5.0)

    got = answer(questions, scorer, world.known_T, world.plays_T)

    for at in range(len(questions)):
        scores = scorer(questions.mean[[at]])[0]
        seen = set(questions.seen[[at]].indices.tolist()) - {int(questions.target[at])}
        among = [one for one in range(TITLES) if world.known_T[one] and one not in seen]
        wanted = scores[questions.target[at]]
        above = sum(scores[one] > wanted for one in among)
        level = sum(scores[one] == wanted for one in among) - 1
        assert got.e2[at] == 1 + above + level / 2


def test_a_title_without_plays_is_ranked_among_its_like():
    stream, held = hold_back(make_stream(seed=1), 6, 3, seed=0)
    windows = Windows.of(stream, 3)
    world = World(stream)
    world.arrive(int(stream.time_ms[windows.bounds[1] - 1]))
    world.ingest(slice(0, windows.cut))
    questions = Asker(stream, most=10_000, seed=0).ask(windows.rows(0), world)

    got = answer(questions, cocount_scorer(world, 5.0), world.known_T, world.plays_T)

    assert len(got.cold)
    assert set(questions.target[got.cold]) <= set(held.tolist())
    assert (got.cold_pool <= (world.plays_T[world.known_T] == 0).sum()).all()


@pytest.mark.parametrize(
    "change",
    [
        {
            "triple_title": np.zeros(0, np.int64),
            "triple_relation": np.zeros(0, np.int64),
            "triple_concept": np.zeros(0, np.int64),
        },
        {"users": np.zeros(300, np.int64)},
        {"time_ms": np.zeros(300, np.int64)},
        {"relations": ["genre", "nobody's"]},
    ],
    ids=["no concepts", "one user", "all at one time", "a relation without edges"],
)
def test_poor_data_gives_figures_and_no_nan(change):
    stream = replace(make_stream(), **change)

    found = evaluate(stream, SMALL, quiet)

    assert set(found["arms"]) == set(ARMS)
    assert np.isfinite(list(numbers(found))).all()


def test_a_wrong_arm_is_named():
    with pytest.raises(ValueError, match="'cocounts'"):
        Options(arms=("cocounts",))


def test_models_of_parts_are_held_against_the_whole_graphs_and_each_other():
    options = replace(SMALL, arms=("frozen_fresh_graph",), parts=(2, 3), seeds=(0, 1))

    found = evaluate(make_stream(), options, quiet)

    assert list(found["parts"]) == ["hasp_2", "random_2", "hasp_3", "random_3"]
    whole = found["arms"]["frozen_fresh_graph"]["e1"]["mrr"]["value"]
    for name, one in found["parts"].items():
        assert one["seeds"] == 2
        paired = one["difference"]["e1"]["mrr"]
        assert paired["low"] <= paired["value"] <= paired["high"]
        assert paired["value"] == pytest.approx(one["e1"]["mrr"]["value"] - whole)
        assert one["parts"] == int(name[-1])
    cut, dealt = (found["parts"][name]["e1"]["mrr"]["value"] for name in ("hasp_3", "random_3"))
    against = found["parts"]["hasp_3"]["against_random"]["e1"]["mrr"]["value"]
    assert against == pytest.approx(cut - dealt)


@pytest.mark.parametrize(
    "wrong", [{"parts": (1,)}, {"parts": (2,), "arms": ("incremental",)}], ids=["one", "no whole"]
)
def test_parts_that_cannot_be_compared_are_refused(wrong):
    with pytest.raises(ValueError, match="want 2 or more each, and the arm 'frozen_fresh_graph'"):
        Options(**wrong)


def test_fewer_plays_than_windows_is_refused():
    with pytest.raises(ValueError, match="take fewer windows"):
        evaluate(make_stream(plays=20), replace(SMALL, windows=11), quiet)


def test_plays_out_of_order_are_refused():
    stream = make_stream()

    with pytest.raises(ValueError, match="time_ms falls after row 0"):
        replace(stream, time_ms=stream.time_ms[::-1].copy())


def test_a_retraining_takes_as_many_steps_as_it_is_given():
    told = []
    options = replace(SMALL, arms=("retrain",), retrain_steps=6)

    figures = evaluate(
        make_stream(), options, lambda step, done, total, note="": told.append((step, total))
    )

    assert [total for step, total in dict.fromkeys(told) if "gnn" in step] == [4, 6]
    assert figures["protocol"]["retrain_steps"] == 6
    with pytest.raises(ValueError, match="retrain_steps is 0"):
        replace(SMALL, retrain_steps=0)
