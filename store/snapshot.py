"""A graph on disk: arrays as .npy, the rest as JSON, a checksum for each file.

    graph.json             version, relations, settings, and CRC-32 and bytes of every file
    ids.<type>.<array>.npy, features.<type>.npy
    <relation>.<direction>.<array>.npy

Arrays are written as they are in memory, so a load gives the same trees, and the same draws.
"""

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from store.features import Features

if TYPE_CHECKING:
    from store.graph import DynamicGraph

VERSION = 1
_CHUNK = 1 << 22  # bytes
_ID_ARRAYS = ("hashes", "offsets", "lengths", "free", "blob", "state")

G = TypeVar("G", bound="DynamicGraph")


def save(graph: "DynamicGraph", folder: Path) -> None:
    """Write a graph to `folder`, which is made; files of an older one are written over."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, int]] = {}
    for vertex_type, table in graph.ids.items():
        for name, array in table.arrays().items():
            place = f"ids.{list(graph.ids).index(vertex_type)}.{name}.npy"
            files[place] = _write(folder / place, array)
    for key, forest in graph.forests().items():
        for name, array in forest.arrays().items():
            place = f"{key}.{name}.npy"
            files[place] = _write(folder / place, array)
    for vertex_type, features in graph.features.items():
        place = f"features.{list(graph.ids).index(vertex_type)}.npy"
        files[place] = _write(folder / place, features.values)
    clock = graph.clock
    head = {
        "version": VERSION,
        "half_life_s": graph.half_life_s,
        "landmark_ms": None if clock is None else clock.landmark_ms,
        "now_ms": None if clock is None else clock.now_ms,
        "leaf_index": graph.leaf_index,
        "leaf_capacity": graph.leaf_capacity,
        "vertex_types": list(graph.ids),
        "relations": [
            {"name": one.name, "head": one.head, "tail": one.tail, "symmetric": one.symmetric}
            for one in graph.relations
        ],
        "files": files,
    }
    (folder / "graph.json").write_text(json.dumps(head, indent=1))


def load(kind: "type[G]", folder: Path, *, threads: int = 1) -> G:
    """Read what `save` wrote.

    Raises:
        ValueError: a file is missing, of another version, or not what was written.
    """
    from store.graph import Relation

    folder = Path(folder)
    try:
        head: dict[str, Any] = json.loads((folder / "graph.json").read_text())
        version = head["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds no graph that can be read: {error}") from error
    if version != VERSION:
        raise ValueError(f"{folder} is of version {version}: this program reads {VERSION}")
    graph = kind(
        [Relation(**one) for one in head["relations"]],
        leaf_index=head["leaf_index"],
        leaf_capacity=head["leaf_capacity"],
        half_life_s=head["half_life_s"],
        threads=threads,
    )
    if graph.clock is not None:
        graph.clock.landmark_ms, graph.clock.now_ms = head["landmark_ms"], head["now_ms"]
    for number, vertex_type in enumerate(head["vertex_types"]):
        arrays = {
            name: _read(folder, f"ids.{number}.{name}.npy", head["files"]) for name in _ID_ARRAYS
        }
        graph.ids[vertex_type].restore(arrays)
        place = f"features.{number}.npy"
        if place in head["files"]:
            graph.features[vertex_type] = Features()
            graph.features[vertex_type].values = np.array(_read(folder, place, head["files"]))
    for key, forest in graph.forests().items():
        forest.restore(
            {name: _read(folder, f"{key}.{name}.npy", head["files"]) for name in forest.arrays()}
        )
    return graph


def _write(path: Path, array: npt.NDArray[np.generic]) -> dict[str, int]:
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(file, header)
        checksum, size = 0, 0
        data = array.ravel().view(np.uint8).data
        for start in range(0, len(data), _CHUNK):
            part = data[start : start + _CHUNK]
            checksum = zlib.crc32(part, checksum)
            file.write(part)
            size += len(part)
    return {"crc32": checksum, "bytes": size}


def _read(folder: Path, name: str, files: dict[str, dict[str, int]]) -> npt.NDArray[np.generic]:
    try:
        array: npt.NDArray[np.generic] = np.load(folder / name, allow_pickle=False)
        want = files[name]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder / name} cannot be read: {error}") from error
    data = array.ravel().view(np.uint8).data
    if len(data) != want["bytes"] or zlib.crc32(data) != want["crc32"]:
        raise ValueError(f"{folder / name} is not what was written: take another snapshot")
    return array
