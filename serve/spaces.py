"""Embedding spaces: made, filled, made live by one write, left for rollback, dropped.

Vectors of two spaces cannot be compared; a full retrain therefore fills a new one beside the live
one. `upwell:current` names the live one. Each space's meta says when it was filled, and when it was
last made live: that is the order in which `rollback` goes back.
"""

import json
import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from serve import search, vectors
from serve.connection import call, call_all
from serve.topology import address_of, nodes

_SCAN = 5_000  # keys looked at in one step of a scan
_UNLINK = 1_000  # keys deleted at once

log = logging.getLogger(__name__)


class NoSpace(ValueError):
    """There is no such space, or none that is live: which, and what to do."""


@dataclass(frozen=True, slots=True)
class Space:
    """A space as its meta describes it.

    `seq` is the highest that was published to it, `epoch` a token of this filling, `search` how the
    server finds neighbours in it (serve/search.py). Times are milliseconds since the Unix epoch; 0:
    never. `current`: it is the live one.
    """

    name: str
    dim: int
    step: int
    schema: int
    seq: int
    created_ms: int
    filled_ms: int
    live_ms: int
    relations: tuple[str, ...]
    epoch: str
    search: str
    current: bool


def current(client: Redis) -> str | None:
    """The live space's id; None where there is none."""
    raw: bytes | None = call(client, "GET", vectors.CURRENT)
    return None if raw is None else raw.decode()


def get_space(client: Redis, space: str) -> Space | None:
    """One space, or None where it does not exist."""
    meta = _meta(client, space)
    return _parse(space, meta, current(client)) if meta else None


def list_spaces(client: Redis) -> list[Space]:
    """All spaces, the newest first."""
    live = current(client)
    names = sorted(raw.decode() for raw in call(client, "SMEMBERS", vectors.SPACES))
    metas = call_all(client, [("HGETALL", vectors.meta_key(name)) for name in names])
    found = [_parse(name, meta, live) for name, meta in zip(names, metas, strict=True) if meta]
    return sorted(found, key=lambda space: (-space.created_ms, space.name))


def create(
    client: Redis, space: str, *, dim: int, step: int = 0, relations: Sequence[str] = ()
) -> Space:
    """The space, made if need be; one that stands already keeps its epoch and its vectors.

    Raises:
        ValueError: the name cannot be one, or the space stands with another `dim`.
    """
    vectors.check_space(space)
    if dim < 1:
        raise ValueError(f"dim {dim} of space {space!r}: a vector has at least 1 component")
    fields = {
        "dim": dim,
        "dtype": "float32",
        "schema": vectors.SCHEMA,
        "step": step,
        "created_ms": now_ms(),
        "relations": json.dumps(list(relations)),
        "seq": 0,
        "filled_ms": 0,
        "live_ms": 0,
        "epoch": secrets.token_hex(8),
    }
    key = vectors.meta_key(space)
    call(client, "SADD", vectors.SPACES, space)
    # Two may make the same space at once: whoever comes first with a field sets it, and when either
    # is through, every field is set. The epoch comes last: without it, there is no space yet.
    call_all(client, [("HSETNX", key, field, value) for field, value in fields.items()])
    made = get_space(client, space)
    if made is None:
        raise NoSpace(f"space {space!r} was dropped while it was made; try again")
    if made.schema != vectors.SCHEMA:
        raise ValueError(
            f"space {space!r} has schema {made.schema}, and this program writes {vectors.SCHEMA}; "
            "fill a new space"
        )
    if made.dim != dim:
        raise ValueError(
            f"space {space!r} has vectors of {made.dim}, not {dim}: "
            f"fill a new space, or drop this one: upwell spaces drop {space}"
        )
    return made


def switch(client: Redis, space: str) -> str | None:
    """Make `space` the live one, and return the one that was before.

    Raises:
        NoSpace: there is no such space, or it is not filled.
    """
    found = get_space(client, space)
    if found is None:
        known = ", ".join(one.name for one in list_spaces(client)) or "none"
        raise NoSpace(f"no space {space!r} at {address_of(client)}; there are: {known}")
    if not found.filled_ms:
        raise NoSpace(f"space {space!r} is not complete yet; readers would miss titles")
    newest = max((one.live_ms for one in list_spaces(client)), default=0)
    before = current(client)
    call(client, "SET", vectors.CURRENT, space)
    call(client, "HSET", vectors.meta_key(space), "live_ms", max(now_ms(), newest + 1))
    return before


def rollback(client: Redis) -> str:
    """Make the space live that was live before the current one; return its id.

    Twice goes back two spaces, not to and fro: the one that was left counts as never live.

    Raises:
        NoSpace: there is none to go back to.
    """
    found = list_spaces(client)
    earlier = [space for space in found if space.live_ms and not space.current]
    if not earlier:
        raise NoSpace("no space was live before this one; `upwell spaces list` shows all")
    target = max(earlier, key=lambda space: space.live_ms)
    call(client, "SET", vectors.CURRENT, target.name)
    for space in found:
        if space.current:
            call(client, "HSET", vectors.meta_key(space.name), "live_ms", 0)
    return target.name


def drop(client: Redis, space: str) -> int:
    """Delete a space, and return how many titles' keys went.

    Raises:
        NoSpace: there is no such space.
        ValueError: it is the live one.
    """
    vectors.check_space(space)
    if current(client) == space:
        raise ValueError(f"space {space!r} is live; switch to another, then drop it")
    meta = _meta(client, space)
    search.drop(client, space, meta.get(b"search", b"").decode())
    known = call(client, "SREM", vectors.SPACES, space)
    # Meta first: without it, a publisher that still runs is refused.
    known += call(client, "UNLINK", vectors.meta_key(space))
    gone = 0
    for keys in scan(client, space):
        for start in range(0, len(keys), _UNLINK):
            lot = keys[start : start + _UNLINK]
            gone += sum(call_all(client, [("UNLINK", key) for key in lot]))
    call(client, "UNLINK", vectors.updates_key(space))
    if not known and not gone:
        raise NoSpace(f"no space {space!r} at {address_of(client)}; `upwell spaces list` shows all")
    return gone


def prune(client: Redis, keep: int) -> list[str]:
    """Drop the oldest spaces beyond `keep`, the live one among them; return their ids.

    A space that was never live counts only once it is older than the live one: a newer one is being
    filled.
    """
    spaces = list_spaces(client)
    live = next((space for space in spaces if space.current), None)
    if live is None:
        return []
    old = sorted(
        (space for space in spaces if not space.current and space.created_ms <= live.created_ms),
        key=lambda space: (space.live_ms, space.created_ms),
        reverse=True,
    )
    doomed = [space.name for space in old[max(keep - 1, 0) :]]
    for name in doomed:
        log.info("space %s: %d keys dropped", name, drop(client, name))
    return doomed


def scan(client: Redis, space: str) -> Iterator[list[bytes]]:
    """The keys of a space's titles, in lots; one that is there throughout comes at least once."""
    pattern = vectors.title_prefix(space) + "*"  # a space's id has no character special to a glob
    for node in nodes(client):
        cursor: Any = 0
        while True:
            cursor, keys = call(node, "SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN)
            if keys:
                yield keys
            if int(cursor) == 0:
                break


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _meta(client: Redis, space: str) -> dict[bytes, bytes]:
    meta: dict[bytes, bytes] = call(client, "HGETALL", vectors.meta_key(space))
    return meta


def _parse(name: str, meta: dict[bytes, bytes], live: str | None) -> Space:
    def number(field: str) -> int:
        return int(meta.get(field.encode(), b"0"))

    return Space(
        name=name,
        dim=number("dim"),
        step=number("step"),
        schema=number("schema"),
        seq=number("seq"),
        created_ms=number("created_ms"),
        filled_ms=number("filled_ms"),
        live_ms=number("live_ms"),
        relations=tuple(json.loads(meta.get(b"relations", b"[]"))),
        epoch=meta.get(b"epoch", b"").decode(),
        search=meta.get(b"search", b"").decode(),
        current=name == live,
    )
