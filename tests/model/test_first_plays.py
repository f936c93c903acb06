import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import logsumexp

from model import first_plays
from model.align import drift
from model.first_plays import Questions, Rivals, Scores, first_played, learn_first_plays, newton
from model.inference import Embedder
from model.positives import Positives
from model.reading import Reading
from model.unplayed import SHARED, WEIGHTS

SEMANTIC = {"genre": [(title, title % 3) for title in range(12)]}


def pairs(rows, time_ms=None):
    a, b = np.array([row[:2] for row in rows], np.int32).reshape(-1, 2).T
    weight = np.array([row[2] for row in rows], np.float32)
    return Positives(a, b, weight, np.asarray(time_ms or range(len(rows)), np.int64))


def read(graph):
    return Reading.of(graph, max_coplay=3)


def test_all_pairs_of_one_moment_are_one_question_whichever_way_round_they_stand():
    window = pairs([(5, 1, 1.0), (2, 5, 1.0), (3, 5, 1.0), (7, 8, 1.0)], [10, 10, 10, 11])

    asked = Questions.of(window, 9)

    by_target = dict(zip(asked.target.tolist(), asked.partners.toarray(), strict=True))
    assert sorted(by_target) == [5, 7, 8]  # of a lone pair nobody knows which came first
    np.testing.assert_allclose(by_target[5], np.isin(np.arange(9), [1, 2, 3]) / 3)
    np.testing.assert_array_equal(by_target[7], np.arange(9) == 8)


def test_a_play_at_another_moment_is_another_question():
    window = pairs([(5, 1, 1.0), (5, 2, 1.0)], [10, 11])

    assert sorted(Questions.of(window, 9).target.tolist()) == [1, 2, 5, 5]


def test_a_title_that_was_played_before_the_window_is_not_played_first(make_graph):
    graph = make_graph(6, [(0, 1, 1.0), (1, 2, 2.0), (3, 4, 1.0)], {"genre": []})

    assert first_played(read(graph), pairs([(1, 2, 2.0), (3, 4, 1.0)])).tolist() == [2, 3, 4]


def test_what_is_drawn_stands_for_all(monkeypatch):
    monkeypatch.setattr(first_plays, "QUESTIONS", 3)
    window = pairs([(0, other, 1.0) for other in range(1, 9)])
    first = np.zeros(9, bool)
    first[5:] = True

    drawn = Questions.of(window, 9).drawn(np.random.default_rng(0), first)

    assert len(drawn.target) == 6
    assert drawn.weight[first[drawn.target]].sum() == 4
    assert drawn.weight[~first[drawn.target]].sum() == 12


@pytest.mark.parametrize("rivals", [True, False])
@pytest.mark.parametrize("free", [np.arange(len(WEIGHTS)), np.array([1, 2, 5])])
def test_newton_finds_the_mode_that_a_general_optimiser_finds(rivals, free):
    rng = np.random.default_rng(0)
    questions, played, titles, width = 40, 5, 6, len(WEIGHTS)
    out = sparse.csr_array(np.arange(played) == np.arange(questions)[:, None] % 9)  # some
    answer = (np.arange(questions) + 1) % 9  # none of those

    def noise(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    scores = Scores(
        Rivals(noise(questions, 3), noise(played, 3), out),
        noise(questions, titles),
        noise(questions, titles),
        noise(questions),
        noise(titles, width - SHARED),
        rng.random(titles),
    )
    weight, prior, mean = rng.random(questions), np.diag(rng.random(width) + 0.5), rng.random(width)

    def loss(some):
        theta = mean.copy()
        theta[free] = some
        pool = scores.features(slice(None)).astype(float) @ theta[1:] + scores.log_weight_P
        rival = scores.rivals.scores(slice(None)).astype(float)
        rival = np.where(np.isneginf(rival), rival, theta[0] * rival)
        logit = np.concatenate([rival if rivals else np.full_like(rival, -np.inf), pool], 1)
        asked = np.arange(questions) if rivals else np.flatnonzero(answer >= played)
        lost = logsumexp(logit, axis=1)[asked] - logit[asked, answer[asked]]
        away = theta - mean
        return weight[asked] @ lost + away @ prior @ away / 2

    theta, precision = newton(scores, answer, weight, mean, prior, free=free, rivals=rivals)

    found = theta[free]
    np.testing.assert_allclose(found, minimize(loss, mean[free], tol=1e-10).x, atol=2e-3)
    np.testing.assert_array_equal(np.delete(theta, free), np.delete(mean, free))
    steps = np.eye(len(free)) * 1e-3
    curvature = [
        [
            loss(found + a + b) - loss(found + a - b) - loss(found - a + b) + loss(found - a - b)
            for b in steps
        ]
        for a in steps
    ]
    want = np.array(curvature) / 4e-6
    np.testing.assert_allclose(precision[np.ix_(free, free)], want, rtol=0.02, atol=0.02)


def test_titles_of_the_window_are_seen_as_they_were_before_it(make_graph, make_model):
    history = [(0, 1, 1.0), (1, 2, 2.0), (0, 2, 1.0)]
    before = make_graph(12, history, SEMANTIC)
    after = make_graph(12, [*history, (8, 9, 5.0)], SEMANTIC)
    then, now = Embedder(make_model(before)), Embedder(make_model(after))

    then.full(before)
    now.full_from(read(after), hidden=np.array([8, 9], np.int32))

    np.testing.assert_allclose(now.vectors(np.arange(12)), then.vectors(np.arange(12)), atol=1e-6)


@pytest.fixture
def rich_are_played(make_graph, make_model):
    """Titles 0 to 19 play among themselves; of the others, those with many concepts now do, too."""
    rng = np.random.default_rng(0)
    history = [(int(a), int(b), 1.0) for a, b in rng.integers(0, 20, (80, 2)) if a != b]
    window = [(20 + number, int(rng.integers(20)), 1.0) for number in range(10)]
    semantic = {"genre": [(title, title % 4) for title in range(40)]}
    semantic["keyword"] = [(title, word) for title in range(20, 30) for word in range(5)]
    semantic["keyword"] += [(40, 0), (40, 1), (40, 2)]  # and this one nobody has played
    graph = make_graph(42, [*history, *window], semantic)
    return graph, make_model(graph), pairs(window)


def test_what_is_played_first_teaches_how_the_rest_is_read(rich_are_played):
    graph, model, window = rich_are_played
    question = Embedder(model)
    question.full(graph)
    mean = question.vectors(np.arange(20)).mean(0)
    before = question.vectors(np.array([40, 41])) @ mean

    events = learn_first_plays(model, read(graph), window, np.random.default_rng(0))

    question.full(graph)
    after = question.vectors(np.array([40, 41])) @ mean
    assert events == 10
    assert after[0] - after[1] > before[0] - before[1] + 0.2


def test_nothing_is_learnt_where_every_title_is_played(make_graph, make_model):
    graph = make_graph(3, [(0, 1, 1.0), (1, 2, 1.0)], {"genre": [(0, 0)]})
    model = make_model(graph)
    before = model.unplayed.theta.clone()

    assert learn_first_plays(model, read(graph), pairs([]), np.random.default_rng(0)) == 0
    assert (
        learn_first_plays(model, read(graph), pairs([(0, 1, 0.5)]), np.random.default_rng(0)) == 0
    )
    assert torch.equal(model.unplayed.theta, before)


def test_where_nobody_starts_anything_the_unplayed_sink(rich_are_played):
    graph, model, _ = rich_are_played
    old = pairs([(0, 1, 0.5), (1, 2, 0.5), (2, 3, 0.5), (3, 4, 0.5)])
    embedder = Embedder(model)
    embedder.full(graph)
    mean, rest = embedder.vectors(np.arange(20)).mean(0), np.array([40, 41])
    before = embedder.vectors(rest) @ mean

    assert learn_first_plays(model, read(graph), old, np.random.default_rng(0)) == 0

    embedder.full(graph)
    assert (embedder.vectors(rest) @ mean < before).all()


def test_the_unplayed_may_keep_their_share_of_the_probability(rich_are_played):
    graph, model, window = rich_are_played
    bare, after = Embedder(model.clone()), Embedder(model)

    learn_first_plays(model, read(graph), window, np.random.default_rng(0), same_mass=True)

    first = np.arange(20, 30, dtype=np.int32)
    for one in (bare, after):
        one.full_from(read(graph), hidden=first)
    question = bare.vectors(window.b)
    mass = [logsumexp(question @ one.vectors(np.arange(20, 42)).T, axis=1) for one in (bare, after)]
    np.testing.assert_allclose(mass[0].mean(), mass[1].mean(), atol=0.1)
    assert not torch.equal(model.unplayed.theta, bare.model.unplayed.theta)


def test_vectors_move_no_further_than_they_may(rich_are_played):
    graph, model, window = rich_are_played
    before, after, free = Embedder(model.clone()), Embedder(model), model.clone()
    learn_first_plays(free, read(graph), window, np.random.default_rng(0))

    learn_first_plays(model, read(graph), window, np.random.default_rng(0), least_cosine=0.99)

    before.full(graph)
    after.full(graph)
    rest = np.arange(30, 42)
    moved = drift(after.vectors(rest), before.vectors(rest)).mean_cosine
    assert 0.98 < moved < 0.9999
    start = before.model.unplayed.theta
    assert (model.unplayed.theta - start).norm() < 0.9 * (free.unplayed.theta - start).norm()


def test_what_was_learnt_long_ago_fades(rich_are_played, monkeypatch):
    graph, model, window = rich_are_played
    short, known = model.clone(), {}

    for one, memory in ((model, 1e12), (short, 20.0)):  # of all windows, or of two
        monkeypatch.setattr(first_plays, "MEMORY", memory)
        for _ in range(10):
            learn_first_plays(one, read(graph), window, np.random.default_rng(0))
        known[memory] = float(one.unplayed.precision.trace())

    assert known[20.0] < known[1e12] / 2


def test_a_sample_of_the_unplayed_teaches_about_what_all_of_them_do(rich_are_played, monkeypatch):
    graph, model, window = rich_are_played
    few = model.clone()
    learn_first_plays(model, read(graph), window, np.random.default_rng(0))
    monkeypatch.setattr(first_plays, "AT_RISK", 6)

    learn_first_plays(few, read(graph), window, np.random.default_rng(0))

    np.testing.assert_allclose(few.unplayed.theta, model.unplayed.theta, atol=0.25)
