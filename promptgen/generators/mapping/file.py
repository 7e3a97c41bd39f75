"""The mapping network in NVIDIA's files: its shape, and what is not supported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from promptgen.errors import ModelFileError
from promptgen.loading.stored_modules import StoredModule

LAYER = re.compile(r"mapping\.fc(\d+)\.(weight|bias)")


def mapping_shape(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Return the fields of a `MappingConfig` that the shapes of a file's tensors tell.

    Raises:
        ModelFileError: there is no mapping network among them.
    """
    layers = len({match[1] for key in tensors if (match := LAYER.fullmatch(key))})
    first, last = tensors.get("mapping.fc0.weight"), tensors.get(f"mapping.fc{layers - 1}.weight")
    embed = tensors.get("mapping.embed.weight")
    matrices = [value for value in (first, last, embed) if value is not None]
    if first is None or last is None or any(value.ndim != 2 or not value.numel() for value in matrices):
        raise ModelFileError(f"{path}: expected a mapping network of layers fc0, fc1, ...; is it another model's file?")
    embedded, classes = (0, 0) if embed is None else embed.shape
    return {
        "latent_dim": first.shape[1] - embedded,
        "style_dim": last.shape[0],
        "mapping_layers": layers,
        "mapping_width": first.shape[0],
        "class_count": classes,
        "embedding_dim": embedded or None,
    }


def mapping_rate(network: StoredModule) -> float:
    """Return the learning-rate multiplier of the mapping layers of a stored network.

    Raises:
        ModelFileError: the network or its mapping computes something that is not supported.
    """
    network.require(img_channels=3)
    for name, layer in network.child("mapping").children().items():
        layer.require(activation="linear" if name == "embed" else "lrelu")
    return network.child("mapping.fc0").number("bias_gain", float)
