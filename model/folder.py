"""A model on disk: `model.safetensors` (weights), `card.json` (what they are), and no pickle.

The card names the checksum of the weights, so that a folder of which only a part was written is
told from a whole one; it is written last, and each file under another name first. It carries the
format's version: a newer one is refused, not guessed at.
"""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from model.semantic_gnn import SemanticGNN
from model.settings import ModelConfig

FORMAT = 1
WEIGHTS, CARD = "model.safetensors", "card.json"


class ModelFolderError(ValueError):
    """A folder that holds no model that can be used."""


def save_model(folder: Path, model: SemanticGNN, card: dict[str, Any]) -> None:
    """Write a model, over one that may stand there.

    Args:
        card: data, settings, metrics, revision: anything that JSON can hold. The keys `format`,
            `sha256`, `config` and `names` are ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: one.contiguous() for name, one in model.state_dict().items()})
    full = {
        **card,
        "format": FORMAT,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "config": asdict(model.config),
        "names": {
            "title": model.title_names,
            "concept": model.concept_names,
            "relation": model.relation_names,
        },
    }
    _write(folder / WEIGHTS, weights)
    _write(folder / CARD, json.dumps(full).encode())


def load_model(folder: Path) -> tuple[SemanticGNN, dict[str, Any]]:
    """A model in evaluation mode, and its card.

    Raises:
        ModelFolderError: no model, a torn one, or one of a newer format.
    """
    try:
        card = json.loads((folder / CARD).read_bytes())
        weights = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise ModelFolderError(
            f"{folder} holds no model: {error.filename}: {error.strerror}; run `upwell pretrain`"
        ) from error
    except ValueError as error:
        raise ModelFolderError(f"{folder / CARD} is torn: {error}; pretrain anew") from error
    version = card.get("format") if isinstance(card, dict) else None
    if not isinstance(version, int):
        raise ModelFolderError(f"{folder / CARD} names no format; pretrain anew")
    if version > FORMAT:
        raise ModelFolderError(
            f"{folder} has format {version}, newer than {FORMAT}: upgrade upwell, or pretrain anew"
        )
    digest = hashlib.sha256(weights).hexdigest()
    if digest != card.get("sha256"):
        raise ModelFolderError(
            f"{folder / WEIGHTS} is torn: its checksum is {digest[:12]}, "
            f"the card says {str(card.get('sha256'))[:12]}; pretrain anew"
        )
    try:
        names = card["names"]
        model = SemanticGNN(
            ModelConfig(**card["config"]), names["title"], names["concept"], names["relation"]
        )
        model.load_state_dict(load(weights))
    except (KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelFolderError(f"{folder}: card and weights disagree: {error}") from error
    return model.eval(), card


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
