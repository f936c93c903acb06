"""The catalogue over a real graph, held against a plain dictionary."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.edges import EdgeBatch, Op
from store.graph import DynamicGraph, Relation
from streams.catalog import Catalog
from streams.events import CatalogEntry, Retirement

COPLAY = Relation("coplay", "title", "title", symmetric=True)


def entry(title: str, time_ms: int, *concepts: str, name: str | None = None) -> CatalogEntry:
    """Concepts as "relation:value"."""
    by_relation: dict[str, list[str]] = {}
    for concept in concepts:
        relation, value = concept.split(":")
        by_relation.setdefault(relation, []).append(value)
    return CatalogEntry(title, time_ms, by_relation, name)


def empty(**options) -> tuple[DynamicGraph, Catalog]:
    graph = DynamicGraph([COPLAY])
    return graph, Catalog(graph, **options)


def concepts_of(graph: DynamicGraph) -> dict[str, set[str]]:
    """Title -> its concepts, as the edges of the graph tell."""
    titles = graph.ids["title"]
    found: dict[str, set[str]] = {title: set() for title in titles.names(titles.live_ids())}
    for number, relation in enumerate(graph.relations):
        if relation.tail == "concept":
            heads, tails, weights = graph.edges(number)
            assert (weights == 1).all()
            names = graph.ids["concept"].names(tails)
            for title, concept in zip(titles.names(heads), names, strict=True):
                assert concept.startswith(relation.name + ":")
                found[title].add(concept)
    return found


def features_of(graph: DynamicGraph) -> dict[str, list[float]]:
    """Title -> its features, where it has any."""
    titles = graph.ids["title"]
    live = titles.live_ids()
    if not graph.num_features("title"):
        return {}
    rows = graph.get_features("title", live).tolist()
    return {title: row for title, row in zip(titles.names(live), rows, strict=True) if any(row)}


def watch_together(graph: DynamicGraph, a: str, b: str) -> None:
    ids = graph.ids["title"].intern([a, b])
    graph.apply(
        EdgeBatch(
            np.zeros(1, np.int16),
            ids[:1],
            ids[1:],
            np.ones(1, np.float32),
            np.full(1, Op.ADD, np.uint8),
            np.zeros(1, np.int64),
        )
    )


def test_an_entry_replaces_the_concepts_of_its_title():
    graph, catalog = empty()
    catalog.apply([entry("m", 1, "genre:a", "genre:b", "actor:x"), entry("n", 1, "genre:b")])

    change = catalog.apply([entry("m", 2, "genre:b", "genre:c")])

    assert concepts_of(graph) == {"m": {"genre:b", "genre:c"}, "n": {"genre:b"}}
    touched = graph.ids["concept"].names(change.concepts)
    assert sorted(touched) == ["actor:x", "genre:a", "genre:c"]
    assert graph.ids["title"].names(change.titles) == ["m"]
    assert (change.rows.tolist(), change.time_ms.tolist()) == ([0], [2])


def test_each_applied_entry_tells_its_row_even_where_a_later_one_replaced_it():
    graph, catalog = empty()

    change = catalog.apply([entry("m", 1), entry("n", 1), entry("m", 2), entry("m", 0)])

    rows = sorted(zip(graph.ids["title"].names(change.titles), change.rows.tolist(), strict=True))
    assert rows == [("m", 0), ("m", 2), ("n", 1)]
    assert change.ignored == 1


def test_a_retired_title_leaves_every_edge_and_an_older_entry_cannot_bring_it_back():
    graph, catalog = empty()
    catalog.apply([entry("m", 1, "genre:a"), entry("n", 1, "genre:a")])
    watch_together(graph, "m", "n")
    (at,) = graph.ids["title"].find(["m"])

    change = catalog.apply([Retirement("m", 5)])

    assert concepts_of(graph) == {"n": {"genre:a"}}
    assert graph.num_edges(graph.relation_id("coplay")) == 0
    assert change.retired == {"m": 5}
    assert change.retired_ids.tolist() == [at]
    assert graph.ids["concept"].names(change.concepts) == ["genre:a"]
    assert catalog.playable(["m", "n", "new"]).tolist() == [False, True, True]

    assert catalog.apply([entry("m", 4, "genre:a")]).ignored == 1
    assert "m" not in catalog
    assert catalog.apply([entry("m", 6, "genre:b")]).ignored == 0
    assert concepts_of(graph)["m"] == {"genre:b"}
    assert catalog.playable(["m"]).all()


def test_a_title_that_is_retired_and_published_again_at_once_has_lost_its_coplays():
    graph, catalog = empty()
    catalog.apply([entry("m", 1, "genre:a")])
    watch_together(graph, "m", "n")

    change = catalog.apply([Retirement("m", 2), entry("m", 3, "genre:a")])

    assert concepts_of(graph)["m"] == {"genre:a"}
    assert graph.num_edges(graph.relation_id("coplay")) == 0
    assert change.retired == {}
    assert graph.ids["title"].names(change.titles) == ["m"]


def test_a_title_without_concepts_is_a_title():
    graph, catalog = empty()

    change = catalog.apply([CatalogEntry("m", 1, {"genre": []}), CatalogEntry("n", 1, {})])

    assert concepts_of(graph) == {"m": set(), "n": set()}
    assert len(change.titles) == 2
    assert len(catalog) == 2


def test_unknown_relations_can_be_refused():
    graph, catalog = empty(unknown_relations="refuse")
    catalog.apply([entry("m", 1, "genre:a")], learn=True)

    change = catalog.apply([entry("m", 2, "mood:x"), entry("n", 2, "genre:b")])

    assert list(change.refused) == [0]
    assert "'mood' is unknown" in change.refused[0]
    assert concepts_of(graph) == {"m": {"genre:a"}, "n": {"genre:b"}}


def test_features_of_another_width_are_refused_and_the_title_is_left_as_it_was():
    graph, catalog = empty()
    first = msgspec.structs.replace(entry("m", 1, "genre:a"), features=[1.0, 2.0])
    other = msgspec.structs.replace(entry("m", 2, "genre:b"), features=[1.0])

    change = catalog.apply([first, other])

    assert change.refused == {
        1: "features has 1 numbers, those of the catalogue have 2: send as many, or none"
    }
    assert concepts_of(graph) == {"m": {"genre:a"}}
    assert features_of(graph) == {"m": [1.0, 2.0]}


def test_names_are_kept_for_human_eyes():
    _, catalog = empty()
    catalog.apply([entry("m", 1, name="Heat"), entry("n", 1)])

    assert catalog.names_of(["m", "n", "x"]) == ["Heat", None, None]


def test_a_batch_of_nothing_changes_nothing():
    _, catalog = empty()

    change = catalog.apply([])

    assert [len(column) for column in (change.titles, change.concepts, change.retired_ids)] == [
        0,
        0,
        0,
    ]


CONCEPTS = st.sets(st.sampled_from(["genre:a", "genre:b", "actor:a", "actor:b", "year:1"]))
FEATURES = st.sampled_from([None, [], [1.0, 2.0], [3.0, 4.0], [5.0, 6.0, 7.0]])
EVENTS = st.lists(
    st.tuples(st.sampled_from("mnop"), st.integers(0, 6), st.one_of(st.none(), CONCEPTS), FEATURES),
    max_size=25,
)


def event(
    title: str, time_ms: int, concepts: set[str] | None, features: list[float] | None
) -> CatalogEntry:
    if concepts is None:
        return Retirement(title, time_ms)
    made = entry(title, time_ms, *sorted(concepts), name=f"{title}{time_ms}")
    return msgspec.structs.replace(made, features=features)


@given(EVENTS, st.lists(st.integers(1, 8), max_size=25), st.data())
def test_late_and_repeated_events_in_any_batches_end_as_a_dictionary_would(events, cuts, data):
    events = events + data.draw(
        st.lists(st.sampled_from(events), max_size=5) if events else st.just([])
    )
    known: dict[str, tuple[int, set[str] | None, list[float] | None]] = {}
    ignored = refused = width = 0
    for title, time_ms, concepts, features in events:
        if time_ms < known.get(title, (0,))[0]:
            ignored += 1
        elif concepts is not None and features and width and len(features) != width:
            refused += 1
        else:
            known[title] = (time_ms, concepts, features)
            if concepts is not None:
                width = width or len(features or [])

    graph, catalog = empty()
    left = list(events)
    passed_over = set_aside = 0
    while left:
        size = cuts.pop() if cuts else len(left)
        before = concepts_of(graph)
        change = catalog.apply([event(*one) for one in left[:size]])
        after = concepts_of(graph)
        passed_over += change.ignored
        set_aside += len(change.refused)
        changed = {
            concept
            for title in before.keys() | after.keys()
            for concept in before.get(title, set()) ^ after.get(title, set())
        }
        assert changed <= set(
            graph.ids["concept"].names(change.concepts) if len(graph.ids) > 1 else []
        )
        left = left[size:]

    alive = {title: concepts for title, (_, concepts, _) in known.items() if concepts is not None}
    assert concepts_of(graph) == alive
    assert features_of(graph) == {title: known[title][2] for title in alive if known[title][2]}
    assert (passed_over, set_aside) == (ignored, refused)
    assert len(catalog) == len(alive)
    assert catalog.playable(list("mnop")).tolist() == [
        title in alive or title not in known for title in "mnop"
    ]
    assert catalog.names_of(list(alive)) == [f"{title}{known[title][0]}" for title in alive]


@given(EVENTS, EVENTS)
def test_a_catalogue_read_back_goes_on_as_if_it_had_never_stopped(tmp_path_factory, first, second):
    folder: Path = tmp_path_factory.mktemp("catalog")
    graph, catalog = empty()
    catalog.apply([event(*one) for one in first])
    catalog.save(folder / "catalog")
    graph.save(folder / "graph")

    graph_again = DynamicGraph.load(folder / "graph")
    again = Catalog.load(folder / "catalog", graph_again)
    changes = [one.apply([event(*item) for item in second]) for one in (catalog, again)]

    assert concepts_of(graph) == concepts_of(graph_again)
    assert features_of(graph) == features_of(graph_again)
    assert changes[0].refused == changes[1].refused
    for name in ("titles", "rows", "time_ms", "concepts", "retired_ids"):
        np.testing.assert_array_equal(getattr(changes[0], name), getattr(changes[1], name))
    assert changes[0].retired == changes[1].retired


@pytest.mark.parametrize("damage", [None, b"", b"[[1]]"])
def test_a_damaged_catalogue_is_refused(tmp_path, damage):
    if damage is not None:
        (tmp_path / "catalog.json").write_bytes(damage)

    with pytest.raises(ValueError, match="holds no catalogue"):
        Catalog.load(tmp_path, DynamicGraph([COPLAY]))
