"""A step on one part: what it leaves out changes nothing, and what it needs is brought."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.batch import GraphBatch
from model.crew import Crew
from model.part_training import Part, begin, train_parts
from model.settings import LossConfig, PretrainConfig
from partition.external import Even
from partition.hasp import hasp_subgraph
from partition.mincut import cut

EXACT = LossConfig(sources=16, hide_title=0.0, drop_edges=0.0)


@pytest.fixture
def halves(two_camps):
    """Camps in two parts; each knows a genre that none of its titles has."""
    graph, positives = two_camps
    partition = cut(graph, 2, seed=0)
    parts = [hasp_subgraph(graph, partition, part, max_coplay=4) for part in range(2)]
    return graph, positives, parts


def test_concepts_without_an_edge_are_left_out_and_the_step_is_the_same(halves, make_model):
    graph, positives, parts = halves
    config = PretrainConfig(steps=3, loss=EXACT, weight_decay=0.0)
    table = np.arange(20)
    lean = Part.of(parts[0], positives, table)
    whole = replace(lean, batch=GraphBatch.of(parts[0]))
    trained = []

    for part in (lean, whole):
        model = make_model(graph)
        progress = begin(model, config, seed=0)
        for group in progress.optimizer.param_groups:
            group["eps"] = 1e-3  # a gradient of nothing but rounding must not make a whole step
        train_parts(model, [part], config, Crew.alone(), progress)
        trained.append(model)

    assert (len(lean.batch.concepts), len(whole.batch.concepts)) == (1, 2)
    for name, one in trained[0].named_parameters():
        torch.testing.assert_close(one, trained[1].get_parameter(name), msg=name)
    assert not torch.equal(trained[0].concept_CD, make_model(graph).concept_CD)


@pytest.mark.parametrize(("external", "looks"), [(0, True), (3, False)])
def test_vectors_of_other_parts_are_made_only_where_no_titles_came_along(
    halves, make_model, external, looks
):
    graph, positives, _ = halves
    partition = cut(graph, 2, seed=0)
    sampler = Even(external) if external else None
    parts = [
        hasp_subgraph(graph, partition, part, max_coplay=4, sampler=sampler) for part in range(2)
    ]
    model = make_model(graph)
    config = PretrainConfig(steps=4, loss=EXACT)
    progress = begin(model, config, seed=0)

    train_parts(
        model,
        [Part.of(part, positives, np.arange(20)) for part in parts],
        config,
        Crew.alone(),
        progress,
    )

    assert (progress.last is not None) == looks
    assert np.isfinite(progress.losses).all()


def test_a_parameter_that_is_not_trained_stays_as_it_is(halves, make_model):
    graph, positives, parts = halves
    model = make_model(graph)
    for number in range(2):
        model.layer(number).beta_R.requires_grad_(False)
    before = model.layer(0).beta_R.clone()
    config = PretrainConfig(steps=3, loss=EXACT, weight_decay=0.5)

    train_parts(
        model,
        [Part.of(parts[0], positives, np.arange(20))],
        config,
        Crew.alone(),
        begin(model, config, seed=0),
    )

    assert torch.equal(model.layer(0).beta_R, before)
    assert not torch.equal(model.translation_RD, make_model(graph).translation_RD)
