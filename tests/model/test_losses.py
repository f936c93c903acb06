import math

import pytest
import torch
from torch.nn import functional

from model.losses import (
    Candidates,
    CandidateSampler,
    Shares,
    distillation,
    exact_softmax,
    sampled_softmax,
)


def everyone(titles):
    return Candidates(torch.arange(titles), torch.zeros(titles))


def rows_of(share_ST):
    """A dense table as compressed rows."""
    line, target = share_ST.nonzero(as_tuple=True)
    count = torch.bincount(line, minlength=len(share_ST))
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), count.cumsum(0)])
    return Shares(ptr, target, share_ST[line, target])


def test_with_all_titles_as_candidates_the_softmax_is_exact():
    torch.manual_seed(0)
    z = torch.randn(7, 4)
    source, target = torch.tensor([2, 5]), torch.tensor([[1, 1, 3], [6, 0, 2]])

    loss = sampled_softmax(z, source, target, everyone(7))

    score = z @ z.T
    score.fill_diagonal_(-math.inf)
    log_p = torch.log_softmax(score, 1)
    want = -torch.stack([log_p[i, t] for i, row in zip(source, target, strict=True) for t in row])
    torch.testing.assert_close(loss, want.mean())


def test_the_estimated_sum_is_right_on_average():
    torch.manual_seed(0)
    z = 0.5 * torch.randn(60, 4)
    source, target = torch.arange(5), torch.arange(5, 15).view(5, 2)
    sampler = CandidateSampler(torch.rand(60) * 10, uniform=15, popular=15)
    generator = torch.Generator().manual_seed(1)

    losses = [sampled_softmax(z, source, target, sampler.draw(generator)) for _ in range(400)]

    exact = sampled_softmax(z, source, target, everyone(60))
    assert float(torch.stack(losses).mean()) == pytest.approx(float(exact), abs=0.02)


def test_few_titles_are_all_taken():
    sampler = CandidateSampler(torch.zeros(5), uniform=3, popular=3)

    drawn = sampler.draw(torch.Generator())

    assert drawn.title_K.tolist() == [0, 1, 2, 3, 4]
    assert not drawn.log_weight_K.any()


def test_without_any_popularity_all_draws_are_even():
    sampler = CandidateSampler(torch.zeros(50), uniform=5, popular=5)

    drawn = sampler.draw(torch.Generator().manual_seed(0))

    assert torch.isfinite(drawn.log_weight_K).all()


def test_a_small_catalogue_is_counted_in_whole_and_nothing_is_drawn():
    popularity = torch.rand(50)

    drawn = CandidateSampler(popularity, uniform=5, popular=5, exact=49)
    whole = CandidateSampler(popularity, uniform=5, popular=5, exact=50)

    assert not drawn.exact
    assert whole.exact
    assert whole.draw(torch.Generator()).title_K.tolist() == list(range(50))


def test_distillation_is_nothing_where_nothing_moved():
    z = torch.randn(3, 4)

    assert float(distillation(z, z)) == pytest.approx(0.0, abs=1e-6)


def test_distillation_of_vectors_of_one_length_is_one_less_their_cosine():
    torch.manual_seed(0)
    z, old = (functional.normalize(torch.randn(5, 4), dim=1) * 3 for _ in range(2))

    want = (1 - functional.cosine_similarity(z, old, dim=1)).mean()
    torch.testing.assert_close(distillation(z, old), want)


def test_distillation_holds_lengths_too_however_short_a_vector_is():
    old = torch.tensor([[4.0, 0.0], [0.0, 1.0]])

    assert float(distillation(1.1 * old, old)) == pytest.approx(0.1**2 / 2)


def test_a_published_vector_of_almost_no_length_does_not_outweigh_all_others():
    old = torch.tensor([[4.0, 0.0], [0.0, 1e-12]])
    z = old + torch.tensor([[0.0, 0.0], [0.0, 0.4]])

    assert float(distillation(z, old)) < 1.0


def test_the_exact_softmax_is_the_cross_entropy_of_what_was_counted():
    torch.manual_seed(0)
    z = torch.randn(6, 4)
    source, weight = torch.tensor([4, 1]), torch.tensor([0.75, 0.25])
    share = torch.rand(2, 6)
    share[[0, 1], source] = 0.0
    share /= share.sum(1, keepdim=True)

    loss = exact_softmax(z, source, rows_of(share), weight)

    want = 0.0
    for row, title in enumerate(source.tolist()):
        others = [other for other in range(6) if other != title]
        log_p = torch.log_softmax(z[others] @ z[title], 0)
        want -= weight[row] * (share[row, others] * log_p).sum()
    torch.testing.assert_close(loss, want)


@pytest.mark.parametrize("at_once", [1, 18, 1000])
def test_the_gradient_of_the_exact_softmax_is_that_of_autograd(at_once, monkeypatch):
    monkeypatch.setattr("model.losses.LOGITS", at_once)
    torch.manual_seed(1)
    z = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    source, weight = torch.tensor([7, 2, 3]), torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    share = torch.rand(3, 9, dtype=torch.float64)
    share[torch.arange(3), source] = 0.0
    share /= share.sum(1, keepdim=True)
    logit = (z[source] @ z.T).scatter(1, source[:, None], -torch.inf)
    plain = -(weight * (share * torch.log_softmax(logit, 1).nan_to_num(neginf=0.0)).sum(1)).sum()

    (want,) = torch.autograd.grad(3 * plain, z)
    (got,) = torch.autograd.grad(3 * exact_softmax(z, source, rows_of(share), weight), z)

    torch.testing.assert_close(got, want)


def test_the_exact_softmax_stands_scores_of_any_size():
    z = torch.tensor([[1e3, 0.0], [1e3, 0.0], [-1e3, 0.0]], requires_grad=True)
    share = torch.tensor([[0.0, 1.0, 0.0]])

    loss = exact_softmax(z, torch.tensor([0]), rows_of(share), torch.ones(1))
    loss.backward()

    assert float(loss.detach()) == pytest.approx(0.0)
    assert bool(torch.isfinite(z.grad).all())
