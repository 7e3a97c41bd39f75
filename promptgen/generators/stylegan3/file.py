"""Read StyleGAN3 from the published pickles.

Sizes, sampling rates, paddings and the order of the layers are attributes of the stored objects; widths, classes and
filters follow from the tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from promptgen.errors import ConfigError, ModelFileError
from promptgen.generators.stylegan3.config import StyleGAN3Config
from promptgen.loading.inspection.persistent import STYLEGAN3
from promptgen.loading.published import json_object, read_weights, state_of
from promptgen.loading.stored_modules import StoredModule, read_network
from promptgen.strict import validate

ENTRY = "G_ema"
SETTINGS = "_init_kwargs"
"""Name of the settings in the metadata of a safetensors file."""

KNOWN_SETTINGS = (
    *("channel_base", "channel_max", "conv_kernel", "use_radial_filters", "magnitude_ema_beta", "num_fp16_res"),
    *("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs"),
)
"""Settings from which the layers of a safetensors file can be computed; others would change them."""

_MAPPING = re.compile(r"mapping\.fc(\d+)\.weight")


def read_stylegan3(path: Path) -> tuple[StyleGAN3Config, dict[str, Tensor]]:
    """Return the shape of a published network, and its tensors by dotted name.

    Args:
        path: the pickle, or safetensors of the same tensors with the settings as JSON under `SETTINGS` in the metadata.

    Raises:
        ModelFileError: the file cannot be read, is of another network, or asks for something that is not supported.
    """
    content = read_weights(path, partial(read_network, family=STYLEGAN3, entry=ENTRY))
    if isinstance(content, StoredModule):
        tensors = content.tensors()
        shape = _mapping_shape(tensors, path) | _attributes(content, tensors)
    else:
        tensors = state_of(content, ENTRY, path)
        settings = json_object(str(content.get(SETTINGS, "")), SETTINGS, path)
        shape = _mapping_shape(tensors, path) | _settings(settings, path)
    try:
        return validate(StyleGAN3Config, shape), tensors
    except ConfigError as error:
        raise ModelFileError(f"{path}: not a supported StyleGAN3: {error}; is it another model's file?") from error


def _mapping_shape(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Return the fields of the configuration that the shapes of the mapping network tell."""
    layers = len([key for key in tensors if _MAPPING.fullmatch(key)])
    first, last = tensors.get("mapping.fc0.weight"), tensors.get(f"mapping.fc{layers - 1}.weight")
    embed = tensors.get("mapping.embed.weight")
    matrices = [value for value in (first, last, embed) if value is not None]
    if first is None or last is None or any(value.ndim != 2 or not value.numel() for value in matrices):
        raise ModelFileError(f"{path}: expected a mapping network of layers fc0, fc1, ...; is it another model's file?")
    embedded = 0 if embed is None else embed.shape[0]
    return {
        "latent_dim": first.shape[1] - embedded,
        "style_dim": last.shape[0],
        "mapping_layers": layers,
        "mapping_width": first.shape[0],
        "class_count": 0 if embed is None else embed.shape[1],
        "embedding_dim": embedded or None,
    }


def _settings(settings: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the fields of the configuration that the settings of a safetensors file tell."""
    if odd := sorted(map(str, settings.keys() - set(KNOWN_SETTINGS))):
        raise ModelFileError(f"{path}: the setting {odd[0]:.80} is not supported in a safetensors file; use the pickle")
    kernel, radial = settings.get("conv_kernel", 3), settings.get("use_radial_filters", False)
    if (kernel, radial) not in ((3, False), (1, True)):
        raise ModelFileError(f"{path}: conv_kernel and use_radial_filters are neither of T nor of R; use the pickle")
    return {
        "size": settings.get("img_resolution", 0),
        "variant": "r" if radial else "t",
        "channel_base": settings.get("channel_base", 32768),
        "channel_max": settings.get("channel_max", 512),
    }


def _attributes(network: StoredModule, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the fields of the configuration that the attributes of the stored objects tell."""
    network.require(img_channels=3)
    for name, layer in network.child("mapping").children().items():
        layer.require(activation="linear" if name == "embed" else "lrelu")
    synthesis = network.child("synthesis")
    names = synthesis.attributes.get("layer_names")
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise synthesis.fault("synthesis has no list layer_names")
    layers = [_layer(synthesis.child(name), tensors) for name in names]
    return {
        "size": network.number("img_resolution", int),
        "variant": "r" if any(layer["radial"] for layer in layers) else "t",
        "mapping_rate": network.child("mapping.fc0").number("bias_gain", float),
        "input": _input(synthesis.child("input")),
        "layers": layers,
        "output_scale": synthesis.number("output_scale", float),
    }


def _input(module: StoredModule) -> dict[str, Any]:
    width, height = module.numbers("size", 2)
    if width != height:
        raise module.fault(f"{module.shown} has {width} x {height} pixels, expected a square")
    rate, bandwidth = module.number("sampling_rate", float), module.number("bandwidth", float)
    return {
        "channels": module.number("channels", int),
        "size": width,
        "sampling_rate": rate,
        "bandwidth": bandwidth,
    }


def _layer(module: StoredModule, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    weight, up, down = (tensors.get(f"{module.name}.{name}") for name in ("weight", "up_filter", "down_filter"))
    if weight is None or weight.ndim != 4 or weight.shape[2] != weight.shape[3]:
        raise module.fault(f"{module.shown} has no weight of four dimensions")
    if (up is not None and up.ndim != 1) or (
        down is not None and (down.ndim not in (1, 2) or len(set(down.shape)) != 1)
    ):
        raise module.fault(f"{module.shown} has filters of an unknown shape")
    return {
        "name": module.name.rpartition(".")[2],
        "in_channels": weight.shape[1],
        "out_channels": weight.shape[0],
        "kernel": weight.shape[2],
        "up": module.number("up_factor", int),
        "up_taps": 1 if up is None else len(up),
        "down": module.number("down_factor", int),
        "down_taps": 1 if down is None else len(down),
        "radial": down is not None and down.ndim == 2,
        "padding": module.numbers("padding", 4),
        "clamp": module.optional("conv_clamp", float),
        "colours": module.number("is_torgb", bool),
    }
