"""A small recommender: "because you watched", and a shelf of titles that are new.

    pip install fastapi uvicorn
    UPWELL_REDIS=redis://127.0.0.1:6379/0 uvicorn examples.recommender.service:app

    GET /because/{title}?k=10    the nearest titles to one, by id or name
    GET /for-you?watched=1,260   the nearest to the mean of some titles
    GET /new?k=10                titles that came in since the service started, the newest first

It knows Upwell's Redis contract through `serve` alone: no torch, no Kafka. A local copy of the
space follows its updates stream, so that a title published a second ago is on the shelf.
"""

import os
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import numpy as np
from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel

from serve.reader import EmbeddingReader
from serve.similar import Neighbour, SimilarTitles, UnknownTitle

SHELF = 100  # new titles that are remembered
FOLLOW_S = 0.2  # how often the copy takes over what was published

Count = Annotated[int, Query(ge=1, le=100)]


class Title(BaseModel):
    """A title on a shelf; `score` is its cosine to what was asked for."""

    id: str
    name: str | None
    score: float | None = None


class Shelves:
    """The local copy of the live space, and what is new in it. One lock: copies are small."""

    def __init__(self, reader: EmbeddingReader) -> None:
        self._reader = reader
        self._similar = SimilarTitles(reader)
        self._lock = threading.Lock()
        self._new: deque[str] = deque(maxlen=SHELF)
        self._follower = reader.follower()
        self._follower.poll()  # from here on it tells what is published
        self._similar.refresh()
        self._known = set(reader.all()[0])

    def follow(self, stop: threading.Event) -> None:
        """Keep the copy right until `stop` is set."""
        while not stop.wait(FOLLOW_S):
            with self._lock:
                lot = self._follower.poll()
                # After a reset (a switch, a flush, a broken connection) nothing is known of what
                # was published meanwhile: look at all.
                published = (
                    self._reader.all()[0]
                    if lot.reset
                    else [update.title for update in lot.updates if not update.gone]
                )
                fresh = [title for title in published if title not in self._known]
                self._known.update(fresh)
                self._new.extend(dict.fromkeys(fresh))
                self._similar.refresh()

    def because(self, title: str, k: int) -> list[Title]:
        with self._lock:
            return [_shelved(one) for one in self._similar.similar(title, k)]

    def for_you(self, watched: list[str], k: int) -> list[Title]:
        with self._lock:
            ids = [self._similar.find(title) for title in watched]
            batch = self._reader.get_many(ids)
            rows = batch.matrix[batch.found]
            unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            return [_shelved(one) for one in self._similar.near(unit.mean(0), k, without=ids)]

    def new(self, k: int) -> list[Title]:
        with self._lock:
            newest = list(self._new)[::-1][:k]
            return [Title(id=title, name=self._similar.name(title)) for title in newest]


def create_app(redis_url: str) -> FastAPI:
    """The service over one Redis."""
    shelves: list[Shelves] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        with EmbeddingReader(redis_url) as reader:
            shelves.append(Shelves(reader))
            thread = threading.Thread(target=shelves[0].follow, args=(stop,), daemon=True)
            thread.start()
            yield
            stop.set()
            thread.join()

    app = FastAPI(title="Because you watched", lifespan=lifespan)

    @app.get("/because/{title}")
    def because(title: str, k: Count = 10) -> list[Title]:
        try:
            return shelves[0].because(title, k)
        except UnknownTitle as error:
            raise HTTPException(404, str(error)) from None

    @app.get("/for-you")
    def for_you(watched: str, k: Count = 10) -> list[Title]:
        try:
            return shelves[0].for_you([one for one in watched.split(",") if one], k)
        except UnknownTitle as error:
            raise HTTPException(404, str(error)) from None

    @app.get("/new")
    def new(k: Count = 10) -> list[Title]:
        return shelves[0].new(k)

    return app


def _shelved(one: Neighbour) -> Title:
    return Title(id=one.title, name=one.name, score=round(one.score, 4))


app = create_app(os.environ.get("UPWELL_REDIS", "redis://127.0.0.1:6379/0"))
