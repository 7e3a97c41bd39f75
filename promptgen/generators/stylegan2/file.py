"""Read StyleGAN2 from NVIDIA's pickles, of StyleGAN2-ADA and of the later release, under this library's names.

The computation is that of the converted checkpoints. Widths, sizes, layers and classes follow from the tensors. The
attributes of the stored objects say the rest, because their settings stand in two places and leave out defaults that
changed between the releases.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from promptgen.errors import ModelFileError
from promptgen.generators.mapping.file import LAYER, mapping_rate, mapping_shape
from promptgen.generators.stylegan2.config import StyleGAN2Config
from promptgen.generators.stylegan2.layers import GAIN
from promptgen.loading.checks import require_fractions
from promptgen.loading.inspection.containers import is_safetensors, look_into
from promptgen.loading.inspection.persistent import STYLEGAN2
from promptgen.loading.settings import supported_config
from promptgen.loading.stored_modules import SETTINGS, StoredModule, is_pickle, read_published, settings_of

START = "synthesis.b4.const"
"""Key that all these networks have, and no converted checkpoint."""

LARGEST = 2048
"""Largest height and width of images."""

_CONV = re.compile(r"synthesis\.b(\d+)\.conv([01])\.([\w.]+)")
_BLOCK = re.compile(r"synthesis\.b(\d+)\.(torgb\.[\w.]+|resample_filter)")
_CONV_NAMES = {
    "weight": "conv.weight",
    "affine.weight": "conv.modulation.weight",
    "affine.bias": "conv.modulation.bias",
    "noise_strength": "noise.weight",
    "bias": "activate.bias",
    "resample_filter": "conv.blur.kernel",
}
_COLOUR_NAMES = {
    "torgb.weight": "conv.weight",
    "torgb.affine.weight": "conv.modulation.weight",
    "torgb.affine.bias": "conv.modulation.bias",
    "torgb.bias": "bias",
    "resample_filter": "upsample.kernel",
}


@dataclass(frozen=True)
class PublishedStyleGAN2:
    """A network in one of NVIDIA's files.

    Attributes:
        config: its shape.
        state: its state dict, under this library's names.
        mean_w: centre of the truncation, (w_dim,); None if the file has none.
    """

    config: StyleGAN2Config
    state: dict[str, Tensor]
    mean_w: Tensor | None


def is_published(path: Path) -> bool:
    """Return whether a file is one of NVIDIA's pickles, or the same tensors as safetensors."""
    if is_pickle(path):
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if not is_safetensors(file.read(9)):
            return False
        file.seek(0)
        return any(tensor.key.endswith(START) for tensor in look_into(file).tensors)


def read_stylegan2(path: Path) -> PublishedStyleGAN2:
    """Read the network of a published file.

    Args:
        path: the pickle, or safetensors of the same tensors, with the settings as `settings_of` reads them.

    Raises:
        ModelFileError: the file cannot be read, is of another network, or asks for something that is not supported.
    """
    network, tensors, metadata = read_published(path, STYLEGAN2)
    if network:
        rate = mapping_rate(network)
        _require_supported(network)
        facts = {"mapping_rate": rate, "clamp": _clamp(network), "size": network.number("img_resolution", int)}
    else:
        facts = _facts_of_settings(settings_of(metadata, path), path)
    require_fractions(tensors, path)
    config = _config(tensors, facts, path)
    state = dict(_renamed(tensors, config))
    mean_w = state.pop("mean_w", None)
    if mean_w is not None and (mean_w.shape != (config.w_dim,) or not bool(mean_w.isfinite().all())):
        raise ModelFileError(f"{path}: mapping.w_avg is not {config.w_dim} finite numbers; fetch it again")
    return PublishedStyleGAN2(config, state, mean_w)


def _facts_of_settings(settings: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return what tensors do not tell, from settings that are nested in one release and flat in the other."""
    synthesis, mapping = (settings.get(f"{part}_kwargs") for part in ("synthesis", "mapping"))
    merged = {**settings, **(synthesis if isinstance(synthesis, dict) else {})}
    if "conv_clamp" not in merged:
        raise ModelFileError(f"{path}: {SETTINGS} lacks conv_clamp, a number or null; add it to the metadata")
    rate = mapping.get("lr_multiplier", 0.01) if isinstance(mapping, dict) else 0.01
    return {"mapping_rate": rate, "clamp": merged["conv_clamp"], "size": settings.get("img_resolution", 0)}


def _require_supported(network: StoredModule) -> None:
    """Refuse a network that computes something else.

    Raises:
        ModelFileError: it does.
    """
    for block in network.child("synthesis").children().values():
        block.require(architecture="skip", num_torgb=1)
        for name, layer in block.children().items():
            if name.startswith("conv"):
                layer.require(activation="lrelu", padding=1, up=2 if name == "conv0" else 1)
                if not math.isclose(gain := layer.number("act_gain", float), GAIN, rel_tol=1e-6):
                    raise layer.fault(f"{layer.shown} has act_gain = {gain:g}, expected {GAIN:g}")


def _clamp(network: StoredModule) -> float | None:
    """Return the bound of activations, which all layers share."""
    layers = [
        layer
        for block in network.child("synthesis").children().values()
        for name, layer in block.children().items()
        if name.startswith(("conv", "torgb"))
    ]
    bounds = {layer.optional("conv_clamp", float) for layer in layers}
    if len(bounds) != 1:
        raise network.fault(f"its layers have {len(bounds)} different bounds conv_clamp, expected one")
    return bounds.pop()


def _config(tensors: Mapping[str, Tensor], facts: Mapping[str, Any], path: Path) -> StyleGAN2Config:
    """Return the configuration that shapes and attributes describe.

    Raises:
        ModelFileError: they describe none.
    """
    blocks = {int(match[1]) for key in tensors if (match := _CONV.fullmatch(key))}
    widths = {r: tensors.get(f"synthesis.b{r}.conv1.weight") for r in sorted(blocks)}
    mapping = mapping_shape(tensors, path)
    sizes = [2**power for power in range(2, len(blocks) + 2)]
    if sorted(blocks) != sizes or sizes[-1:] != [size := facts["size"]] or size > LARGEST:
        sides = ", ".join(map(str, sorted(blocks)[:12]))
        raise ModelFileError(
            f"{path}: expected blocks of 4, 8, ... pixels up to the image's {size}, found {sides}; fetch it again"
        )
    channels = {r: 0 if weight is None else len(weight) for r, weight in widths.items()}
    return supported_config(StyleGAN2Config, {**mapping, **facts, "channels": channels}, path, STYLEGAN2)


def _renamed(tensors: Mapping[str, Tensor], config: StyleGAN2Config) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors under this library's names; those that it does not know keep their own."""
    silent = not any(key.endswith(".noise_strength") for key in tensors)
    for key, value in tensors.items():
        if match := LAYER.fullmatch(key):
            yield f"style.{int(match[1]) + 1}.{match[2]}", value
        elif match := _CONV.fullmatch(key):
            yield from _renamed_conv(int(match[1]), int(match[2]), match[3], key, value)
        elif match := _BLOCK.fullmatch(key):
            yield from _renamed_colours(int(match[1]), match[2], key, value)
        elif key.startswith("mapping.embed."):
            yield key.removeprefix("mapping."), value
        else:
            names = {START: ("input.input", value[None]), "mapping.w_avg": ("mean_w", value)}
            yield names.get(key, (key, value))
    if silent:  # a network that was trained without noise has neither maps nor strengths
        some = tensors[START]
        for index, resolution in enumerate(r for r in config.resolutions for _ in range(1 if r == 4 else 2)):
            yield f"noises.noise_{index}", some.new_zeros(1, 1, resolution, resolution)
            yield f"{_conv_name(index)}.noise.weight", some.new_zeros(1)


def _conv_name(index: int) -> str:
    return f"convs.{index - 1}" if index else "conv1"


def _renamed_conv(size: int, which: int, name: str, key: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    index = 2 * (size.bit_length() - 4) + which + 1 if size > 4 else 0
    if size == 4 and not which:
        yield key, value
    elif name == "noise_const":
        yield f"noises.noise_{index}", value[None, None]
    elif name == "resample_filter":
        if not which:  # conv1 does not resample. A correlation with the flipped filter is the published convolution.
            yield f"{_conv_name(index)}.conv.blur.kernel", 4 * value.flip(0, 1)
    elif name == "weight" and value.ndim == 4:
        # The layer here divides by the root of the inputs before it adds epsilon to the squared norm, theirs does not.
        yield f"{_conv_name(index)}.conv.weight", value[None] * math.sqrt(value[0].numel())
    elif name in _CONV_NAMES:
        yield f"{_conv_name(index)}.{_CONV_NAMES[name]}", value.reshape(1) if name == "noise_strength" else value
    else:
        yield key, value


def _renamed_colours(size: int, name: str, key: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    prefix = f"to_rgbs.{size.bit_length() - 4}" if size > 4 else "to_rgb1"
    if name == "resample_filter":
        if size > 4:  # the first block does not resample
            yield f"{prefix}.{_COLOUR_NAMES[name]}", 4 * value
    elif name not in _COLOUR_NAMES:
        yield key, value
    elif name == "torgb.weight":
        yield f"{prefix}.conv.weight", value[None]
    else:
        yield f"{prefix}.{_COLOUR_NAMES[name]}", value.reshape(1, -1, 1, 1) if name == "torgb.bias" else value
