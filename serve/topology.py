"""Where Redis is: URLs and the clients that they stand for.

    redis://[user:password@]host[:port]/db                      one server
    rediss://...                                                the same, through TLS
    unix://path                                                 a socket
    redis+sentinel://[user:password@]host[:port],host.../NAME   the primary that sentinels call so
    redis+cluster://[user:password@]host[:port]                 the cluster that this node is of

TLS is `rediss+sentinel://` and `rediss+cluster://`. Options of the client go behind a
question mark (`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`), with sentinels also `db`.
"""

import os
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis import Redis
from redis.cluster import RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

_PLAIN = ("redis", "rediss", "unix")
_CLUSTER = ("redis+cluster", "rediss+cluster")
_SENTINEL = ("redis+sentinel", "rediss+sentinel")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_PORT, _SENTINEL_PORT = 6379, 26379


def address(url: str) -> str:
    """host:port of a URL, or its socket's path: what may stand in a message.

    Raises:
        ValueError: it is no URL of ours; its text is not repeated, since it may hold a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PLAIN + _SENTINEL + _CLUSTER:
        raise ValueError(
            "a Redis URL begins with redis://, rediss://, unix://, redis+sentinel:// or "
            "redis+cluster://" + (f", not {parts.scheme!r}://" if parts.scheme else "")
        )
    if parts.scheme == "unix":
        return parts.path
    if parts.scheme in _SENTINEL:
        hosts = ",".join(f"{host}:{port}" for host, port in _sentinels(parts))
        return f"{_name(parts)} (sentinels {hosts})"
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"Redis URL for {parts.hostname}: its port is no number") from None
    return f"{parts.hostname or 'localhost'}:{port or _PORT}"


def address_of(client: Redis) -> str:
    """What `address` says of the URL that a client was made of."""
    if isinstance(client, RedisCluster):
        return ",".join(sorted(client.nodes_manager.startup_nodes))
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        known = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
        hosts = ",".join(f"{one.get('host')}:{one.get('port')}" for one in known)
        return f"{pool.service_name} (sentinels {hosts})"
    known_one = pool.connection_kwargs
    if "path" in known_one:
        return str(known_one["path"])
    return f"{known_one.get('host', 'localhost')}:{known_one.get('port', _PORT)}"


def make_client(url: str, retry: Retry, options: Mapping[str, Any]) -> Redis:
    """The client of a URL; that of a cluster is connected, any other is not yet.

    It is a `Redis` for the type checker: a `RedisCluster` takes the same calls of ours.

    Args:
        options: of `redis.Redis`.

    Raises:
        ValueError: the URL is none, or names a file that cannot be read.
        redis.RedisError, redis.exceptions.RedisClusterException: the cluster does not answer.
    """
    where = address(url)
    parts = urlsplit(url)
    _check_files({**dict(parse_qsl(parts.query)), **options})
    try:
        if parts.scheme in _SENTINEL:
            return _behind_sentinels(parts, retry, options)
        if parts.scheme in _CLUSTER:
            plain = url.replace("+cluster", "", 1)
            cluster: Any = RedisCluster.from_url(plain, retry=retry, **options)
            return cast(Redis, cluster)
        client: Redis = Redis.from_url(url, retry=retry, **options)
        return client
    except ValueError as error:
        raise ValueError(f"Redis URL for {where}: {error}") from None


def is_cluster(client: Redis) -> bool:
    return isinstance(client, RedisCluster)


def nodes(client: Redis) -> list[Redis]:
    """A client of each primary, of which each holds a part of the keys; one server is its own."""
    if not isinstance(client, RedisCluster):
        return [client]
    return [client.get_redis_connection(node) for node in client.get_primaries()]


def _behind_sentinels(parts: SplitResult, retry: Retry, options: Mapping[str, Any]) -> Redis:
    given: dict[str, Any] = {**dict(parse_qsl(parts.query)), **options}
    if "db" in given:
        given["db"] = int(given["db"])
    for key, raw in (("username", parts.username), ("password", parts.password)):
        if raw:
            given[key] = unquote(raw)
    if parts.scheme.startswith("rediss"):
        given["ssl"] = True
    patience = {key: value for key, value in given.items() if key.startswith("socket_")}
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        _sentinels(parts), sentinel_kwargs={**patience, "protocol": 2}, **given
    )
    client: Redis = sentinels.master_for(  # type: ignore[no-untyped-call]
        _name(parts), redis_class=Redis, retry=retry
    )
    return client


def _sentinels(parts: SplitResult) -> list[tuple[str, int]]:
    found = []
    for part in parts.netloc.rpartition("@")[2].split(","):
        host, _, port = part.partition(":")
        if not host or (port and not port.isdigit()):
            raise ValueError("Redis URL: sentinels are written host:port,host:port")
        found.append((host, int(port or _SENTINEL_PORT)))
    return found


def _name(parts: SplitResult) -> str:
    name = parts.path.strip("/")
    if not name:
        raise ValueError(
            "Redis URL: behind the sentinels stands the primary's name: "
            "redis+sentinel://host:port/NAME"
        )
    return name


def _check_files(given: Mapping[str, Any]) -> None:
    """A missing file would look like a server that does not answer."""
    for key in _FILES:
        path = given.get(key)
        if path is not None and not os.access(path, os.R_OK):
            raise ValueError(f"{key}={path} of the Redis URL: no file that this user can read")
