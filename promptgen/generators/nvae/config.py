"""Configuration of NVAE's decoder, read from the options in a published checkpoint, and the choice of its latent."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from promptgen.errors import ModelFileError
from promptgen.generators.nvae.layers import Operations, activated, inverted
from promptgen.loading.settings import supported_config
from promptgen.strict import Section

_INVERTED = (inverted(6, 5), inverted(3, 5))
_DENSE, _DENSE_GROUPS = "mbconv_den", 8
CELLS: Mapping[str, tuple[Operations, Operations]] = {
    "res_mbconv": _INVERTED,
    "res53_mbconv": _INVERTED,
    "res35_mbconv": _INVERTED,
    "res55_mbconv": _INVERTED,
    "mbconv_sep": _INVERTED,
    "mbconv_sep11": (inverted(6, 11), inverted(3, 5)),
    _DENSE: (inverted(6, 5), inverted(3, 5, groups=_DENSE_GROUPS)),
    "mbconv_res": (activated("bnswish"), activated("bnswish")),
    "res_bnswish": (activated("bnswish"), activated("bnswish")),
    "res_bnelu": (activated("bnelu"), activated("bnelu")),
    "res_elu": (activated("elu"), activated("elu")),
}
"""Cells of the decoder tower and of the post-processing, by the published name of the architecture."""

OPTIONS: Mapping[str, str] = {
    "num_latent_scales": "scales",
    "num_groups_per_scale": "groups_per_scale",
    "ada_groups": "adaptive_groups",
    "min_groups_per_scale": "min_groups_per_scale",
    "num_latent_per_group": "latent_channels",
    "num_channels_dec": "channels",
    "num_cell_per_cond_dec": "cells_per_group",
    "num_preprocess_blocks": "preprocess_blocks",
    "num_postprocess_blocks": "postprocess_blocks",
    "num_postprocess_cells": "postprocess_cells",
    "num_mixture_dec": "mixtures",
    "use_se": "squeeze",
    "arch_instance": "architecture",
}
"""Fields of `NVAEConfig` by the names of the published options."""

Count = Annotated[int, Field(gt=0, le=1024)]
Blocks = Annotated[int, Field(ge=0, le=8)]
Groups = tuple[Annotated[int, Field(ge=0)], ...] | Literal["all"]


class NVAEConfig(Section):
    """Shape of an NVAE decoder, and the choice of its latent.

    NVAE draws its latents in groups, from coarse to fine: all earlier groups determine the mean and standard deviation
    of a group. `groups` chooses the groups whose noise is the generator's latent. The default is the first group, on
    which all others depend (1280 coordinates in the published 256-pixel model of faces). All groups together have
    millions of coordinates, too many for a flow. The noise of the other groups is fixed, or fresh if the caller passes
    a noise stream.

    Attributes:
        top_size: height and width of the first group.
        scales: number of group sizes, each twice the previous one.
        groups_per_scale: groups at the largest size.
        adaptive_groups: whether each smaller size has half as many groups, but at least `min_groups_per_scale`.
        min_groups_per_scale: lower bound for `adaptive_groups`.
        latent_channels: channels of each group.
        channels: channels of the decoder at the image's size if `preprocess_blocks` equals `postprocess_blocks`.
        cells_per_group: cells between two groups.
        preprocess_blocks: blocks of the encoder before its groups; each halves the size.
        postprocess_blocks: blocks of the decoder after its groups; each doubles the size.
        postprocess_cells: cells of each of the decoder's blocks.
        mixtures: components of each pixel's distribution; 1 means a Gaussian.
        squeeze: whether cells end with squeeze and excitation.
        architecture: published name of the cell type.
        groups: indices, from coarse to fine, of the groups whose noise is the latent, or ``all``.
        temperature: factor of every group's standard deviation.
    """

    top_size: Count = 8
    scales: Annotated[int, Field(gt=0, le=8)] = 5
    groups_per_scale: Annotated[int, Field(gt=0, le=64)] = 16
    adaptive_groups: bool = True
    min_groups_per_scale: Annotated[int, Field(gt=0, le=64)] = 4
    latent_channels: Count = 20
    channels: Count = 30
    cells_per_group: Annotated[int, Field(ge=0, le=64)] = 2
    preprocess_blocks: Blocks = 1
    postprocess_blocks: Blocks = 1
    postprocess_cells: Annotated[int, Field(gt=0, le=64)] = 2
    mixtures: Count = 10
    squeeze: bool = True
    architecture: str = "res_mbconv"
    groups: Groups = (0,)
    temperature: float = Field(default=1.0, gt=0.0)

    @model_validator(mode="after")
    def _check(self) -> NVAEConfig:
        if self.architecture not in CELLS:
            raise ValueError(f"architecture must be one of {', '.join(CELLS)}, got {self.architecture}")
        if self.top_channels % 2 ** (self.scales - 1 + self.postprocess_blocks):
            raise ValueError(f"{self.top_channels} channels cannot be halved each time the size doubles")
        last = self.top_channels >> (self.scales - 1 + self.postprocess_blocks)
        if self.architecture == _DENSE and last % _DENSE_GROUPS:
            raise ValueError(f"{_DENSE} needs a multiple of {_DENSE_GROUPS} channels at the image's size, got {last}")
        number = len(self.latent_shapes)
        if number < 2:
            raise ValueError("expected at least two groups of latents, got one; increase scales or groups_per_scale")
        if self.groups != "all" and (not self.groups or len({*self.groups}) < len(self.groups)):
            raise ValueError(f"groups must be one or more distinct indices, got {self.groups}")
        if self.groups != "all" and max(self.groups) >= number:
            raise ValueError(f"groups must be less than {number}, the number of groups, got {self.groups}")
        return self

    @property
    def groups_by_scale(self) -> list[int]:
        """Number of groups at each size, from coarse to fine."""
        numbers = [self.groups_per_scale]
        for _ in range(self.scales - 1):
            halved = max(self.min_groups_per_scale, numbers[-1] // 2)
            numbers.append(halved if self.adaptive_groups else numbers[-1])
        return numbers[::-1]

    @property
    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """Shape of each group's latent, (C, H, W), from coarse to fine."""
        sizes = [self.top_size * 2**scale for scale, n in enumerate(self.groups_by_scale) for _ in range(n)]
        return [(self.latent_channels, size, size) for size in sizes]

    @property
    def chosen(self) -> list[int]:
        """Indices of the groups whose noise is the latent, in the latent's order."""
        return list(range(len(self.latent_shapes))) if self.groups == "all" else list(self.groups)

    @property
    def top_channels(self) -> int:
        """Channels of the decoder at the first group."""
        return self.channels << (self.preprocess_blocks + self.scales - 1)

    @property
    def image_size(self) -> int:
        return self.top_size << (self.scales - 1 + self.postprocess_blocks)


def config_from_options(options: Any, top_shape: tuple[int, ...], source: Path, **control: Any) -> NVAEConfig:
    """Return the configuration that a published checkpoint describes.

    Args:
        options: the checkpoint's ``args``; old files lack `ada_groups`, `min_groups_per_scale` and `num_mixture_dec`.
        top_shape: shape of the checkpoint's ``prior_ftr0``.
        source: the file, named in errors.
        control: `groups` and `temperature`.

    Raises:
        ModelFileError: the options do not describe an NVAE, or do not match the weights in the file.
    """
    arguments = vars(options) if isinstance(options, argparse.Namespace) else options
    if not isinstance(arguments, Mapping):
        raise ModelFileError(f"{source}: expected the options under 'args', got {type(options).__name__}")
    defaults = {"ada_groups": False, "min_groups_per_scale": 1, "num_mixture_dec": 10}
    values = {name: value for name, value in (defaults | dict(arguments)).items() if name in OPTIONS}
    if missing := sorted(OPTIONS.keys() - values.keys()):
        raise ModelFileError(f"{source}: the options lack {', '.join(missing)}; is it another model's file?")
    shape = {OPTIONS[name]: value for name, value in values.items()}
    config = supported_config(NVAEConfig, shape | {"top_size": top_shape[-1]} | control, source, "NVAE", strict=False)
    if top_shape != (config.top_channels, config.top_size, config.top_size):
        raise ModelFileError(
            f"{source}: prior_ftr0 has the shape {top_shape}, but the options give {config.top_channels} channels; "
            "fetch it again"
        )
    return config
