"""Read StyleGAN3 from the published pickles.

Sizes, sampling rates, paddings and the order of the layers are attributes of the stored objects; widths, classes and
filters follow from the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from promptgen.errors import ModelFileError
from promptgen.generators.mapping.file import mapping_rate, mapping_shape
from promptgen.generators.stylegan3.config import StyleGAN3Config
from promptgen.loading.inspection.persistent import STYLEGAN3
from promptgen.loading.settings import supported_config
from promptgen.loading.stored_modules import StoredModule, read_published, settings_of

KNOWN_SETTINGS = (
    *("channel_base", "channel_max", "conv_kernel", "use_radial_filters", "magnitude_ema_beta", "num_fp16_res"),
    *("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs"),
)
"""Settings from which the layers of a safetensors file can be computed; others would change them."""


def read_stylegan3(path: Path) -> tuple[StyleGAN3Config, dict[str, Tensor]]:
    """Return the shape of a published network, and its tensors by dotted name.

    Args:
        path: the pickle, or safetensors of the same tensors, with the settings as `settings_of` reads them.

    Raises:
        ModelFileError: the file cannot be read, is of another network, or asks for something that is not supported.
    """
    network, tensors, metadata = read_published(path, STYLEGAN3)
    facts = _attributes(network, tensors) if network else _settings(settings_of(metadata, path), path)
    return supported_config(StyleGAN3Config, mapping_shape(tensors, path) | facts, path, STYLEGAN3), tensors


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
    rate = mapping_rate(network)
    synthesis = network.child("synthesis")
    names = synthesis.attributes.get("layer_names")
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise synthesis.fault("synthesis has no list layer_names")
    layers = [_layer(synthesis.child(name), tensors) for name in names]
    return {
        "size": network.number("img_resolution", int),
        "variant": "r" if any(layer["radial"] for layer in layers) else "t",
        "mapping_rate": rate,
        "input": _input(synthesis.child("input")),
        "layers": layers,
        "output_scale": synthesis.number("output_scale", float),
    }


def _input(module: StoredModule) -> dict[str, Any]:
    width, height = module.numbers("size", 2)
    if width != height:
        raise module.fault(f"{module.shown} has {width} x {height} pixels, expected a square")
    rate, bandwidth = module.number("sampling_rate", float), module.number("bandwidth", float)
    return {"channels": module.number("channels", int), "size": width, "sampling_rate": rate, "bandwidth": bandwidth}


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
