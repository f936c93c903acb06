import numpy as np
import pytest

from partition.budget import Cost, bytes_of, fit
from tests.partition.changes import camps

COST = Cost(fixed=1000, title=100, node=10, edge=1)


@pytest.fixture
def graph(make_graph):
    coplays = camps(np.random.default_rng(0), 120, 4, 2000)
    return make_graph(120, coplays, {"genre": [(title, title % 5) for title in range(120)]})


def test_all_fits_one_part_where_there_is_room(graph):
    found = fit(graph, 10**9, max_coplay=None, cost=COST)

    assert found.num_parts == 1
    assert found.tried == []


@pytest.mark.parametrize("multiple", [1, 2, 3])
def test_the_parts_fit_the_budget_and_the_trainers(graph, multiple):
    whole = fit(graph, 10**9, max_coplay=None, cost=COST).bytes[0]

    found = fit(graph, whole // 3, max_coplay=None, cost=COST, multiple=multiple)

    assert found.num_parts % multiple == 0
    assert max(found.bytes) <= whole // 3
    assert found.bytes == [bytes_of(part, COST) for part in found.parts]
    assert all(size > whole // 3 for _, size in found.tried)
    assert found.num_parts <= 6  # no wild guess


def test_a_budget_that_not_even_a_title_fits_says_what_one_needs(graph):
    with pytest.raises(ValueError, match=r"a budget of 500 bytes .* takes 1,160; give more memory"):
        fit(graph, 500, max_coplay=None, cost=COST)


def test_parts_that_never_fit_are_given_up(graph):
    with pytest.raises(ValueError, match=r"2 parts still take .* of a budget of 2,000"):
        fit(graph, 2000, max_coplay=None, cost=COST, most=2, multiple=2)
