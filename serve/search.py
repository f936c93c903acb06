"""Nearest titles by the server itself, where it can: a Redis search index, or a vector set.

    upwell:{space}:index    FT      over the space's hashes: vec (HNSW, cosine) and name
    upwell:{space}:vectors  VSET    element = title; written by the publisher in the same call

Which of the two a space has stands in its meta (`search`: "ft", "vset", or ""); it is made with the
space and dropped with it. A search index is kept by the server, from the hashes as they are; a
vector set must be written beside them, so it is only begun with an empty space. Both are
approximate (HNSW). Where there is neither, serve/similar.py searches a local copy, exactly.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from redis import Redis
from redis.exceptions import RedisError

from serve import vectors
from serve.connection import RedisFailed, call, call_many
from serve.topology import is_cluster

FT = "ft"
VSET = "vset"
NONE = ""


def index_name(space: str) -> str:
    return f"upwell:{space}:index"


def vset_key(space: str) -> str:
    return f"upwell:{space}:vectors"


def supported(client: Redis) -> str:
    """What the server can do for us, and lets us: FT, VSET or NONE."""
    if is_cluster(client):
        return NONE
    listed, counted = call_many(client, [("FT._LIST",), ("VCARD", vset_key("none"))])
    if not isinstance(listed, RedisError):
        return FT
    return NONE if isinstance(counted, RedisError) else VSET


def create(client: Redis, space: str, dim: int) -> str:
    """Make what the server supports for a space, and return which; raises RedisFailed."""
    kind = supported(client)
    if kind == FT:
        schema = [
            *("vec", "VECTOR", "HNSW", 6, "TYPE", "FLOAT32", "DIM", dim),
            *("DISTANCE_METRIC", "COSINE"),
            *("name", "TEXT", "NOSTEM"),
        ]
        over = ("ON", "HASH", "PREFIX", 1, vectors.title_prefix(space))
        try:
            call(client, "FT.CREATE", index_name(space), *over, "SCHEMA", *schema)
        except RedisFailed as error:
            if "already exists" not in str(error):
                raise
    return kind


def drop(client: Redis, space: str, kind: str) -> None:
    """Take away a space's index; its hashes stay. One that is gone already is no error."""
    if kind == FT:
        call_many(client, [("FT.DROPINDEX", index_name(space))])
    elif kind == VSET:
        call(client, "UNLINK", vset_key(space))


def nearest(
    client: Redis, space: str, kind: str, vector: npt.NDArray[np.float32], k: int
) -> list[tuple[str, float]]:
    """The `k` titles nearest to a vector, and their cosines, best first.

    Args:
        vector: shape (dim,), not all zeros.

    Raises:
        RedisFailed: Redis failed, or has no such index.
    """
    raw = vectors.encode(vector)
    if kind == VSET:
        answer = call(client, "VSIM", vset_key(space), "FP32", raw, "WITHSCORES", "COUNT", k)
        pairs = answer.items() if isinstance(answer, dict) else _pairs(answer)
        return [(title.decode(), 2 * float(score) - 1) for title, score in pairs]
    query = f"*=>[KNN {k} @vec $v AS distance]"
    given = ("PARAMS", 2, "v", raw, "SORTBY", "distance", "LIMIT", 0, k, "DIALECT", 2)
    found = _hits(
        call(client, "FT.SEARCH", index_name(space), query, *given, "RETURN", 1, "distance")
    )
    prefix = len(vectors.title_prefix(space).encode())
    return [
        (key[prefix:].decode(), 1 - float(fields[b"distance"])) for key, fields in found.items()
    ]


def named(client: Redis, space: str, words: str, limit: int) -> dict[str, str]:
    """Titles whose names have all these words, in any case and order: name by title. FT only."""
    terms = " ".join(_escaped(word) for word in words.split())
    if not terms:
        return {}
    given = ("RETURN", 1, "name", "LIMIT", 0, limit, "DIALECT", 2)
    found = _hits(call(client, "FT.SEARCH", index_name(space), f"@name:({terms})", *given))
    prefix = len(vectors.title_prefix(space).encode())
    return {key[prefix:].decode(): fields[b"name"].decode() for key, fields in found.items()}


def _escaped(word: str) -> str:
    """A word of a query in which no character has a meaning of its own."""
    return "".join(char if char.isalnum() or char == "_" else f"\\{char}" for char in word)


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _hits(answer: Any) -> dict[bytes, dict[bytes, bytes]]:
    """Fields by key, in order, of an answer of FT.SEARCH in RESP2."""
    return {key: dict(_pairs(fields)) for key, fields in _pairs(answer[1:])}
