"""Code of ours that runs inside the server: loaded when it is missing, called by name.

Where the server has FUNCTIONs (Redis 7, Valkey) and we may load them, it is a library, which is
persisted and replicated; else it is a script, called by its digest. Its names carry a digest of the
source, so that two versions of us can publish through one server.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError, RedisError

from serve.connection import RedisFailed, RedisRefused, call, call_all
from serve.topology import is_cluster, nodes

_BODY = Path(__file__).with_name("server.lua").read_text()
_DIGEST = hashlib.sha256(_BODY.encode()).hexdigest()[:10]
_NAMES = {  # with their flags
    **dict.fromkeys(("put", "retire", "put_one", "retire_one", "record", "note"), ""),
    "get": "'no-writes'",
}

LIBRARY = (
    f"#!lua name=upwell_{_DIGEST}\n{_BODY}\n"
    + "\n".join(
        f"redis.register_function{{function_name='upwell_{name}_{_DIGEST}', "
        f"callback={name}, flags={{{flags}}}}}"
        for name, flags in _NAMES.items()
    )
    + "\n"
)
GET_FUNCTION = f"upwell_get_{_DIGEST}"
SCRIPTS = {name: f"{_BODY}\nreturn {name}(KEYS, ARGV)\n" for name in _NAMES}

Command = tuple[Any, ...]


class ServerScript:
    """The commands that call the functions of server.lua on one server."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        # In a cluster, the client would ask before each FCALL where it belongs; not so for EVALSHA.
        self._functions = not is_cluster(client)
        self._loaded = False

    def command(self, name: str, keys: Sequence[Any], args: Sequence[Any]) -> Command:
        """The command that calls `name`; raises RedisFailed where it cannot be loaded."""
        if not self._loaded:
            self.load()
        if self._functions:
            return ("FCALL", f"upwell_{name}_{_DIGEST}", len(keys), *keys, *args)
        return ("EVALSHA", _sha1(SCRIPTS[name]), len(keys), *keys, *args)

    def load(self) -> None:
        """Bring the code to the server: at first use, and again where it has forgotten it."""
        if self._functions:
            try:
                call(self._client, "FUNCTION LOAD", "REPLACE", LIBRARY)
            except RedisRefused:
                self._functions = False
            except RedisFailed as error:
                if "unknown command" not in str(error):
                    raise
                self._functions = False
        if not self._functions:
            for node in nodes(self._client):
                call_all(node, [("SCRIPT LOAD", source) for source in SCRIPTS.values()])
        self._loaded = True


def is_missing(error: RedisError) -> bool:
    """Whether a call failed because the server does not know our code (yet, or no more)."""
    return isinstance(error, NoScriptError) or "Function not found" in str(error)


def _sha1(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
