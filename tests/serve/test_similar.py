"""Neighbours, names and suggestions over a copy that stays as fresh as Redis."""

import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from serve.connection import connect
from serve.publisher import Publisher
from serve.reader import EmbeddingReader
from serve.similar import SimilarTitles, UnknownTitle
from serve.spaces import NoSpace
from streams.embedded import RedisServer
from tests.serve.library import live, times

CATALOGUE = {
    "m1": ("Toy Story (1995)", [1.0, 0.0, 0.0]),
    "m2": ("Toy Story 2 (1999)", [0.9, 0.1, 0.0]),
    "m3": ("Heat (1995)", [0.0, 1.0, 0.0]),
    "m4": ("Heat (1986)", [0.0, 0.9, 0.2]),
    "m5": (None, [-1.0, 0.0, 0.0]),
}


@pytest.fixture
def publisher(redis_client: Redis) -> Publisher:
    made = live(redis_client)
    made.publish(
        list(CATALOGUE),
        np.array([vector for _, vector in CATALOGUE.values()], np.float32),
        seq=1,
        step=1,
        time_ms=times(len(CATALOGUE)),
        names=[name for name, _ in CATALOGUE.values()],
    )
    return made


@pytest.fixture(params=["memory", "folder"])
def similar(
    redis_client: Redis, publisher: Publisher, request: pytest.FixtureRequest, tmp_path: Path
) -> SimilarTitles:
    return SimilarTitles(redis_client, folder=tmp_path if request.param == "folder" else None)


def test_neighbours_come_best_first_without_the_title_itself(similar: SimilarTitles) -> None:
    found = similar.similar("m1", k=9)

    assert [one.title for one in found] == ["m2", "m3", "m4", "m5"]
    assert found[0].name == "Toy Story 2 (1999)"
    assert found[0].score == pytest.approx(0.9 / np.hypot(0.9, 0.1))
    assert found[-1] == ("m5", None, pytest.approx(-1))
    assert len(similar.similar("m1", k=2)) == 2


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("m2", "m2"),
        ("Toy Story (1995)", "m1"),
        ("toy  STORY", "m1"),
        ("heat", "m3"),
        ("Heat (1986)", "m4"),
    ],
)
def test_a_title_is_found_by_id_or_by_name(similar: SimilarTitles, query: str, title: str) -> None:
    similar.refresh()

    assert similar.find(query) == title


def test_an_unknown_name_is_answered_with_close_ones(similar: SimilarTitles) -> None:
    similar.refresh()

    with pytest.raises(UnknownTitle, match=r"do you mean Toy Story \(1995\)") as caught:
        similar.find("Toi Story (1995)")
    assert caught.value.suggestions[0] == "Toy Story (1995)"
    with pytest.raises(UnknownTitle) as caught:
        similar.find("2 (19")
    assert caught.value.suggestions == ["Toy Story 2 (1999)"]
    with pytest.raises(UnknownTitle, match=r"'zzzzzz'$"):
        similar.find("zzzzzz")


def test_what_is_published_later_is_found_at_once(
    similar: SimilarTitles, publisher: Publisher
) -> None:
    similar.refresh()
    new = np.array([[1.0, 0.01, 0.0], [0.0, 0.0, 1.0]], np.float32)

    publisher.publish(
        ["new", "m3"], new, seq=2, step=1, time_ms=times(2), names=["New (2026)", "Renamed"]
    )
    publisher.retire(["m2"], seq=3, time_ms=1)

    found = similar.similar("toy story", k=9)
    assert [one.title for one in found] == ["new", "m3", "m4", "m5"]
    assert found[1].name == "Renamed"
    assert similar.find("heat") == "m4"
    assert similar.find("Renamed") == "m3"
    assert similar.name("m2") is None
    assert len(similar) == 5


def test_a_switch_replaces_the_copy(
    similar: SimilarTitles, publisher: Publisher, redis_client: Redis
) -> None:
    similar.refresh()

    other = live(redis_client, "other")
    other.publish(["x"], np.ones((1, 3), np.float32), seq=1, step=1, time_ms=times(1))

    assert similar.refresh() == 1
    assert len(similar) == 1


def test_no_live_space_is_said(redis_client: Redis) -> None:
    with pytest.raises(NoSpace, match="no embedding space is live"):
        SimilarTitles(redis_client).refresh()


Change = tuple[str, bool, float, float]


@settings(max_examples=40)
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from([f"m{number}" for number in range(12)]),
                st.booleans(),
                st.floats(-1, 1, width=16),
                st.sampled_from([-1.0, 1.0]),
            ),
            max_size=8,
            unique_by=lambda change: change[0],
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_the_copy_follows_any_publishes_and_retirements(
    redis_server: RedisServer, turns: list[list[Change]], shared: bool
) -> None:
    with tempfile.TemporaryDirectory() if shared else nullcontext() as folder:
        client = connect(redis_server.url)
        follow(client, turns, Path(folder) if folder else None)
        client.close()


def follow(client: Redis, turns: list[list[Change]], folder: Path | None) -> None:
    """Publish and retire; compare the copy to a dictionary after each turn."""
    client.flushall()
    publisher = live(client)
    similar = SimilarTitles(client, folder=folder)
    similar.refresh()
    want: dict[str, np.ndarray] = {}

    for turn, changes in enumerate(turns):
        there = {title: np.array([x, y, 1], np.float32) for title, up, x, y in changes if up}
        gone = [title for title, up, _, _ in changes if not up]
        publisher.publish(
            list(there),
            np.array(list(there.values()), np.float32).reshape(-1, 3),
            seq=2 * turn + 1,
            step=1,
            time_ms=times(len(there)),
            names=[title.upper() for title in there],
        )
        publisher.retire(gone, seq=2 * turn + 2, time_ms=1)
        want = {title: row for title, row in (want | there).items() if title not in gone}
        similar.refresh()

        assert len(similar) == len(want)
        query = np.array([1, 2, 3], np.float32)
        found = similar.near(query, k=100)
        scores = {
            title: float(row @ query / np.linalg.norm(row) / np.linalg.norm(query))
            for title, row in want.items()
        }
        assert {one.title: one.score for one in found} == pytest.approx(scores, abs=1e-6)
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        assert all(similar.find(title.upper()) == title for title in want)


def test_a_reader_of_a_named_space_can_be_given(redis_client: Redis, publisher: Publisher) -> None:
    live(redis_client, "other")

    assert SimilarTitles(EmbeddingReader(redis_client, space="main")).refresh() == 5


def test_a_canarys_title_is_nobodys_neighbour(similar: SimilarTitles, publisher: Publisher) -> None:
    titles = ["new", "upwell-canary:1", "m2"]
    publisher.publish(titles, np.eye(3, dtype=np.float32), seq=50, step=1, time_ms=times(3))

    found = similar.similar("new", 9)

    assert {one.title for one in found} == {*CATALOGUE}
