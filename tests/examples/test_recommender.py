"""The example's shelves, over a real Redis that is published to meanwhile."""

import numpy as np
import pytest
from fastapi.testclient import TestClient

from examples.recommender.service import create_app
from serve.publisher import Publisher
from tests.servers import wait_until

NAMES = {"1": "Toy Story (1995)", "2": "A Bug's Life (1998)", "3": "Heat (1995)"}
VECTORS = np.array([[1, 0.1], [1, 0.2], [-1, 0.3]], np.float32)


def publish(publisher: Publisher, titles: list[str], vectors: np.ndarray, seq: int) -> None:
    names = [NAMES.get(title, f"New {title}") for title in titles]
    times = np.zeros(len(titles), np.int64)
    publisher.publish(titles, vectors, seq=seq, step=0, time_ms=times, names=names)


@pytest.fixture
def publisher(redis_client) -> Publisher:
    publisher = Publisher(redis_client, "main")
    publisher.create_space(2)
    publish(publisher, list(NAMES), VECTORS, seq=1)
    publisher.switch()
    return publisher


@pytest.fixture(params=["alone", "shared"])
def client(publisher, redis_url, request, tmp_path):
    folder = tmp_path if request.param == "shared" else None
    with TestClient(create_app(redis_url, folder)) as client:
        wait_until(lambda: client.get("/health").status_code == 200, "titles on the shelves")
        yield client


def test_because_you_watched_names_the_nearest_first(client):
    found = client.get("/because/toy story", params={"k": 2}).json()

    assert [title["name"] for title in found] == ["A Bug's Life (1998)", "Heat (1995)"]


def test_what_was_watched_is_not_recommended(client):
    found = client.get("/for-you", params={"watched": "1,3"}).json()

    assert [title["id"] for title in found] == ["2"]


def test_an_unknown_title_is_not_found(client):
    done = client.get("/because/Toy Storey")

    assert done.status_code == 404
    assert "Toy Story" in done.json()["detail"]


def test_a_new_title_comes_onto_the_shelf_by_itself(client, publisher):
    assert client.get("/new").json() == []

    publish(publisher, ["4"], np.array([[0.9, 0.1]], np.float32), seq=2)

    wait_until(lambda: client.get("/new").json(), "the new title is on the shelf")
    assert client.get("/new").json()[0]["name"] == "New 4"
    assert "4" in [title["id"] for title in client.get("/because/1").json()]


def test_the_shelves_stay_full_while_no_space_is_live(client, redis_client):
    redis_client.flushall()

    wait_until(lambda: client.get("/health").json()["trouble"], "the trouble is told")
    assert "no embedding space is live" in client.get("/health").json()["trouble"]
    assert len(client.get("/because/toy story").json()) == 2


def test_what_was_watched_must_be_named(client):
    assert client.get("/for-you", params={"watched": ","}).status_code == 422
    assert client.get("/for-you").status_code == 422
