"""A small recommender: "because you watched", and a shelf of titles that are new.

    UPWELL_REDIS=redis://127.0.0.1:6379/0 uvicorn examples.recommender.service:app

    GET /because/{title}?k=10    the nearest titles to one, by id or name
    GET /for-you?watched=1,260   the nearest to the mean of some titles
    GET /new?k=10                titles that came in since the service started, the newest first
    GET /health                  how many titles there are; 503 until there are some

It knows Upwell's Redis contract through `serve` alone: no torch, no Kafka. A local copy of the
space follows its updates stream, so that a title published a second ago is on the shelf, and so
that the shelves stay full while Redis is away. With UPWELL_COPY=/some/folder, all workers of the
service on a machine share one copy (`uvicorn --workers 4`).
"""

import logging
import os
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from serve.connection import RedisFailed
from serve.reader import EmbeddingReader
from serve.similar import Neighbour, SimilarTitles, UnknownTitle
from serve.spaces import NoSpace

SHELF = 100  # new titles that are remembered
FOLLOW_S = 0.2  # how often the copy takes over what was published

Count = Annotated[int, Query(ge=1, le=100)]

log = logging.getLogger(__name__)


class Title(BaseModel):
    """A title on a shelf; `score` is its cosine to what was asked for."""

    id: str
    name: str | None
    score: float | None = None


class Shelves:
    """The local copy of the live space, and what is new in it. One lock: searches are short."""

    def __init__(self, similar: SimilarTitles) -> None:
        self._similar = similar
        self._lock = threading.Lock()
        self._new: deque[str] = deque(maxlen=SHELF)
        self.trouble: str | None = None

    def follow(self, stop: threading.Event) -> None:
        """Keep the copy right until `stop` is set; while Redis is away, what is there serves."""
        while True:
            try:
                with self._lock:
                    self._similar.refresh()
                    self._new.extend(self._similar.take_new())
                self.trouble = None
            except (RedisFailed, NoSpace) as error:
                if self.trouble is None:
                    log.warning("the copy stays as it is: %s", error)
                self.trouble = str(error)
            if stop.wait(FOLLOW_S):
                return

    def __len__(self) -> int:
        return len(self._similar)

    def because(self, title: str, k: int) -> list[Title]:
        with self._lock:
            key = self._similar.find(title)
            return [
                _shelved(one)
                for one in self._similar.near(self._similar.vector(key), k, without=(key,))
            ]

    def for_you(self, watched: list[str], k: int) -> list[Title]:
        with self._lock:
            ids = [self._similar.find(title) for title in watched]
            mean = np.mean([self._similar.vector(one) for one in ids], axis=0)
            return [_shelved(one) for one in self._similar.near(mean, k, without=ids)]

    def new(self, k: int) -> list[Title]:
        with self._lock:
            newest = list(self._new)[::-1][:k]
            return [Title(id=title, name=self._similar.name(title)) for title in newest]


def create_app(redis_url: str, folder: Path | None = None) -> FastAPI:
    """The service over one Redis; `folder`: for a copy that processes share."""
    shelves: list[Shelves] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        with EmbeddingReader(redis_url) as reader:
            shelves.append(Shelves(SimilarTitles(reader, folder=folder)))
            thread = threading.Thread(target=shelves[0].follow, args=(stop,), daemon=True)
            thread.start()
            yield
            stop.set()
            thread.join()

    app = FastAPI(title="Because you watched", lifespan=lifespan)

    @app.exception_handler(UnknownTitle)
    def unknown(_: Request, error: UnknownTitle) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 404)

    @app.get("/because/{title}")
    def because(title: str, k: Count = 10) -> list[Title]:
        return shelves[0].because(title, k)

    @app.get("/for-you")
    def for_you(watched: Annotated[str, Query(min_length=1)], k: Count = 10) -> list[Title]:
        titles = [one for one in watched.split(",") if one]
        if not titles:
            raise HTTPException(422, "watched: give ids or names with commas between")
        return shelves[0].for_you(titles, k)

    @app.get("/new")
    def new(k: Count = 10) -> list[Title]:
        return shelves[0].new(k)

    @app.get("/health")
    def health() -> JSONResponse:
        told = {"titles": len(shelves[0]), "trouble": shelves[0].trouble}
        return JSONResponse(told, 200 if told["titles"] else 503)

    return app


def _shelved(one: Neighbour) -> Title:
    return Title(id=one.title, name=one.name, score=round(one.score, 4))


def _app() -> FastAPI:
    folder = os.environ.get("UPWELL_COPY")
    url = os.environ.get("UPWELL_REDIS", "redis://127.0.0.1:6379/0")
    return create_app(url, Path(folder) if folder else None)


app = _app()
