"""A graph on disk: arrays as .npy, the rest as JSON, a checksum for each file.

    graph.json             version, relations, settings, and CRC-32 and bytes of every file
    ids.<type>.<array>.npy, features.<type>.npy
    <relation>.<direction>.<array>.npy

Arrays are written as they are in memory, so a load gives the same trees, and the same draws; and so
they can be used from where they lie on disk (`mapped`). Who writes to the graph need not wait for
the disk: `take` copies it, and the copy is saved beside the changes that follow.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from store.features import Features
from store.memory import copied

if TYPE_CHECKING:
    from store.graph import DynamicGraph

VERSION = 2
OLDER = 1  # what is read, too
LARGE = ("table", "words")
_CHUNK = 1 << 22  # bytes
_ID_ARRAYS = ("hashes", "offsets", "lengths", "free", "blob", "state")

G = TypeVar("G", bound="DynamicGraph")


@dataclass(frozen=True, slots=True)
class Image:
    """All that a graph is at one moment, ready to be written.

    Attributes:
        head: what graph.json says, but for the files.
        arrays: by file name.
    """

    head: dict[str, Any]
    arrays: dict[str, npt.NDArray[np.generic]]

    def save(self, folder: Path) -> None:
        """Write it to `folder`, which is made; files of an older one are written over."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {name: _write(folder / name, array) for name, array in self.arrays.items()}
        (folder / "graph.json").write_text(json.dumps({**self.head, "files": files}, indent=1))


def take(graph: "DynamicGraph", *, copy: bool) -> Image:
    """The graph as it is; without `copy` it holds until the next change only.

    Raises:
        MemoryError: there is no room for a copy.
    """
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for number, table in enumerate(graph.ids.values()):
        arrays |= {f"ids.{number}.{name}.npy": array for name, array in table.arrays().items()}
    for key, forest in graph.forests().items():
        arrays |= {f"{key}.{name}.npy": array for name, array in forest.arrays().items()}
    for vertex_type, features in graph.features.items():
        arrays[f"features.{list(graph.ids).index(vertex_type)}.npy"] = features.values
    if copy:
        arrays = {name: copied(array) for name, array in arrays.items()}
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
    }
    return Image(head, arrays)


def load(kind: "type[G]", folder: Path, *, threads: int = 1, mapped: bool = False) -> G:
    """Read what `Image.save` wrote.

    Args:
        mapped: leave edges on disk until they are used, and their checksums unread. What changes is
            kept in memory; the files stay as they are, and must stay there.

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
    if version not in (OLDER, VERSION):
        readable = f"{OLDER} and {VERSION}"
        raise ValueError(f"{folder} is of version {version}: this program reads {readable}")
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
        arrays = {
            name: _read(folder, f"{key}.{name}.npy", head["files"], mapped and name in LARGE)
            for name in forest.arrays()
        }
        forest.restore(arrays, keep=mapped)
        if version == OLDER:
            forest.upgrade()
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


def _read(
    folder: Path, name: str, files: dict[str, dict[str, int]], mapped: bool = False
) -> npt.NDArray[np.generic]:
    mapped = mapped and bool(files.get(name, {}).get("bytes"))
    mode: Literal["c"] | None = "c" if mapped else None  # what is written stays in this process
    try:
        array: npt.NDArray[np.generic] = np.load(folder / name, mode, allow_pickle=False)
        want = files[name]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder / name} cannot be read: {error}") from error
    same = array.nbytes == want["bytes"]
    if same and not mapped:
        same = zlib.crc32(array.ravel().view(np.uint8).data) == want["crc32"]
    if not same:
        raise ValueError(f"{folder / name} is not what was written: take another snapshot")
    return array
