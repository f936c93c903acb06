"""Tensors and a card on disk: a model is `model.safetensors` and `card.json`, and no pickle.

The card names the checksum of the weights, so that a folder of which only a part was written is
told from a whole one; it is written last, and each file under another name first. It carries the
format's version: a newer one is refused, not guessed at.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from model.semantic_gnn import SemanticGNN
from model.settings import ModelConfig
from model.unplayed import Unplayed

# 1: no way of a title's own row past the layers; up to 2: no dense features; up to 3: titles that
# nobody has played have no weights of their own.
FORMAT = 4
PAST_LAYERS = "past_layers.weight"


@dataclass(frozen=True, slots=True)
class Files:
    """Names of the two files in a folder, and in words what they hold."""

    what: str
    tensors: str
    card: str


FILES = Files("model", "model.safetensors", "card.json")


class ModelFolderError(ValueError):
    """A folder that holds no model that can be used."""


def save_model(folder: Path, model: SemanticGNN, card: dict[str, Any]) -> None:
    """Write a model, over one that may stand there.

    Args:
        card: data, settings, metrics, revision: anything that JSON can hold. The keys `format`,
            `sha256`, `config` and `names` are ours.
    """
    mine = {"config": asdict(model.config), "names": asdict(model.names())}
    save_tensors(folder, dict(model.state_dict()), {**card, **mine}, FILES)


def load_model(folder: Path) -> tuple[SemanticGNN, dict[str, Any]]:
    """A model in evaluation mode, and its card.

    Raises:
        ModelFolderError: no model, a torn one, or one of a newer format.
    """
    weights, card = load_tensors(folder, FILES, remedy="pretrain anew")
    try:
        names = card["names"]
        model = SemanticGNN(
            ModelConfig(**card["config"]), names["title"], names["concept"], names["relation"]
        )
        if card["format"] == 1:
            weights[PAST_LAYERS] = torch.zeros(model.config.dim, model.config.dim)
        if card["format"] < 4:
            weights |= {f"unplayed.{name}": one for name, one in Unplayed().state_dict().items()}
        model.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFolderError(f"{folder}: card and weights disagree: {error}") from error
    return model.eval(), card


def save_tensors(
    folder: Path, tensors: dict[str, Tensor], card: dict[str, Any], files: Files
) -> None:
    """Write tensors and a card; the card gets the keys `format` and `sha256`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / files.tensors
    part = path.with_name(path.name + ".part")
    save_file({name: one.contiguous() for name, one in tensors.items()}, part)
    with part.open("r+b") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    part.replace(path)
    _write(folder / files.card, json.dumps({**card, "format": FORMAT, "sha256": digest}).encode())


def load_tensors(
    folder: Path, files: Files, *, remedy: str, mapped: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` wrote.

    Args:
        remedy: what a user can do about files that are torn.
        mapped: whether the tensors are pages of the file, read as they are used. The file may be
            replaced meanwhile, but not written to.

    Raises:
        ModelFolderError: nothing there, torn, or of a newer format.
    """
    try:
        card = json.loads((folder / files.card).read_bytes())
        with (folder / files.tensors).open("rb") as stream:
            content = b"" if mapped else stream.read()
            digest = hashlib.file_digest(stream, "sha256") if mapped else hashlib.sha256(content)
    except OSError as error:
        raise ModelFolderError(
            f"{folder} holds no {files.what}: {error.filename}: {error.strerror}; {remedy}"
        ) from error
    except ValueError as error:
        raise ModelFolderError(f"{folder / files.card} is torn: {error}; {remedy}") from error
    version = card.get("format") if isinstance(card, dict) else None
    if not isinstance(version, int):
        raise ModelFolderError(f"{folder / files.card} names no format; {remedy}")
    if version > FORMAT:
        raise ModelFolderError(
            f"{folder} has format {version}, newer than {FORMAT}: upgrade upwell, or {remedy}"
        )
    if digest.hexdigest() != card.get("sha256"):
        raise ModelFolderError(
            f"{folder / files.tensors} is torn: its checksum is {digest.hexdigest()[:12]}, "
            f"the card says {str(card.get('sha256'))[:12]}; {remedy}"
        )
    try:
        return load_file(folder / files.tensors) if mapped else load(content), card
    except SafetensorError as error:
        raise ModelFolderError(f"{folder / files.tensors}: {error}; {remedy}") from error


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
