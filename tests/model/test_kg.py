"""Embeddings of the semantic edges, and their completion."""

import numpy as np
import pytest
import torch

from model.kg import KINDS, complete, split, train_kg
from model.transe import triples


@pytest.fixture
def known(make_graph):
    """Twelve titles; directors follow genres."""
    return triples(
        make_graph(
            12,
            [],
            {
                "genre": [(title, title // 4) for title in range(12)],
                "director": [
                    (title, 2 * (title // 4) + more) for title in range(12) for more in (0, 1)
                ],
            },
        )
    )


def train(kind, known, steps=150):
    return train_kg(kind, known, dim=8, steps=steps, batch=64, lr=0.05, margin=2.0, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_to_complete_what_follows(known, kind):
    rest, held_out = split(known, 0.2, seed=1)

    found = complete(train(kind, rest).score, rest, held_out)

    assert found.triples == len(held_out.title) > 0
    assert found.mrr > 0.6  # of 3 genres chance is 0.61, of 6 directors (less one known) 0.46
    assert found.hits10 == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_the_vectors_have_the_gnns_width_and_length_one(known, kind):
    made = train(kind, known, steps=2).vectors

    assert made.concept_CD.shape == (known.num_concepts, 8)
    assert made.relation_RD.shape == (known.num_relations, 8)
    torch.testing.assert_close(made.concept_CD.norm(dim=1), torch.ones(known.num_concepts))


@pytest.mark.parametrize("kind", ["rotate", "complex", "distmult"])
def test_scores_of_all_concepts_at_once_are_the_models_own(known, kind, monkeypatch):
    kept = []
    import model.kg as kg

    make = kg._model
    monkeypatch.setattr(kg, "_model", lambda *given: kept.append(make(*given)) or kept[-1])
    made = train(kind, known, steps=3)
    h, r = torch.tensor([0, 5, 11]), torch.tensor([1, 2, 1])

    with torch.no_grad():
        got = made.score(h, r)
        for concept in range(known.num_concepts):
            tail = torch.full((3,), concept + known.num_titles)
            torch.testing.assert_close(got[:, concept], kept[0](h, r, tail), atol=1e-4, rtol=1e-4)


def test_ranks_are_filtered_and_among_the_concepts_of_the_relation(known):
    rest, held_out = split(known, 0.3, seed=0)
    rng = np.random.default_rng(0)
    table = rng.normal(size=(12, 3, known.num_concepts))

    found = complete(lambda h, r: torch.from_numpy(table[h, r]), rest, held_out)

    true = set(zip(known.title, known.relation, known.concept, strict=True))
    reciprocal = []
    for h, r, t in zip(held_out.title, held_out.relation, held_out.concept, strict=True):
        rivals = {c for _, of, c in true if of == r} - {c for a, of, c in true if (a, of) == (h, r)}
        above = sum(table[h, r, c] > table[h, r, t] for c in rivals)
        reciprocal.append(1 / (1 + above))
    assert found.mrr == pytest.approx(np.mean(reciprocal))


def test_holding_out_leaves_every_title_and_concept_one_triple(known):
    rest, held_out = split(known, 1.0, seed=0)

    assert len(held_out.title)
    assert set(rest.title) == set(known.title)
    assert set(rest.concept) == set(known.concept)


def test_no_triples_complete_nothing(make_graph):
    empty = triples(make_graph(3, [], {"genre": []}))

    made = train("rotate", empty)

    assert complete(made.score, empty, empty).triples == 0


def test_an_unknown_kind_is_named(known):
    with pytest.raises(ValueError, match=r"'transh'.*transe, rotate"):
        train("transh", known)
