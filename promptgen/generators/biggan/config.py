"""Configurations of BigGAN-deep: the published shapes, and the reader of a published ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, model_validator

from promptgen.errors import ConfigError, DataError, ModelFileError
from promptgen.files import read_json
from promptgen.loading.settings import supported_config
from promptgen.strict import Section

Layer = tuple[bool, int, int]
"""A block: whether it doubles the size, then its input and output channels in multiples of the channel width."""

FIRST = 4
"""Height and width of the first map."""

FIRST_WIDTH = 16
"""Channels of the first map in multiples of the channel width."""

_TO_128: tuple[Layer, ...] = (
    *((False, 16, 16), (True, 16, 16), (False, 16, 16), (True, 16, 8), (False, 8, 8)),
    *((True, 8, 4), (False, 4, 4), (True, 4, 2), (False, 2, 2), (True, 2, 1)),
)
_TO_256: tuple[Layer, ...] = (
    *((False, 16, 16), (True, 16, 16), (False, 16, 16), (True, 16, 8), (False, 8, 8), (True, 8, 8)),
    *((False, 8, 8), (True, 8, 4), (False, 4, 4), (True, 4, 2), (False, 2, 2), (True, 2, 1)),
)
PUBLISHED_LAYERS: Mapping[int, tuple[Layer, ...]] = {
    128: _TO_128,
    256: _TO_256,
    512: (*_TO_256, (False, 1, 1), (True, 1, 1)),
}
"""Blocks of the published networks by image size."""


class BigGANConfig(Section):
    """Shape of a BigGAN-deep, as the published ``config.json`` gives it, and its truncation.

    Attributes:
        output_dim: height and width of the image.
        z_dim: coordinates of z.
        class_embed_dim: coordinates of the class embedding y.
        channel_width: unit in which `layers` counts channels.
        num_classes: number of embedded classes.
        layers: the blocks, see `Layer`.
        attention_layer_position: index of the block that follows the attention layer.
        eps: added to variances.
        n_stats: number of truncations, evenly spaced from 0 to 1, with stored activation statistics.
        truncation: factor of z after clamping to +-2; it also selects the activation statistics.
    """

    output_dim: int = Field(default=128, gt=0)
    z_dim: int = Field(default=128, gt=0, le=1024)
    class_embed_dim: int = Field(default=128, gt=0, le=1024)
    channel_width: int = Field(default=128, gt=0, le=512)
    num_classes: int = Field(default=1000, gt=0, le=100_000)
    layers: tuple[Layer, ...] = Field(default=_TO_128, min_length=1, max_length=64)
    attention_layer_position: int = Field(default=8, ge=0)
    eps: float = Field(default=1e-4, gt=0.0)
    n_stats: int = Field(default=51, ge=2, le=1024)
    truncation: float = Field(default=1.0, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _check_layers(self) -> BigGANConfig:
        size = FIRST * 2 ** sum(upsample for upsample, _, _ in self.layers)
        if size != self.output_dim:
            raise ValueError(f"the layers produce images of {size} pixels, expected output_dim = {self.output_dim}")
        if not self.attention_layer_position < len(self.layers):
            raise ValueError(f"attention_layer_position must be less than {len(self.layers)}, the number of layers")
        widths = [FIRST_WIDTH, *(fan_out for _, _, fan_out in self.layers)]
        if [fan_in for _, fan_in, _ in self.layers] != widths[:-1] or widths[-1] != 1:
            raise ValueError("each layer's input channels must equal the previous layer's output, from 16 down to 1")
        return self

    @property
    def condition_dim(self) -> int:
        return self.z_dim + self.class_embed_dim


def published_config(size: int, truncation: float = 1.0) -> BigGANConfig:
    """Return the configuration published for images of `size` pixels.

    Raises:
        ConfigError: no network was published for this size.
    """
    if size not in list(PUBLISHED_LAYERS):
        raise ConfigError(f"BigGAN-deep was published for the sizes {sorted(PUBLISHED_LAYERS)}, got {size}")
    return BigGANConfig(output_dim=size, layers=PUBLISHED_LAYERS[size], truncation=truncation)


def read_config(path: Path, truncation: float) -> BigGANConfig:
    """Return the configuration in a published ``config.json``; keys that do not describe the shape are ignored.

    Raises:
        ModelFileError: the file is missing, is not JSON, or does not describe a BigGAN-deep.
    """
    try:
        content = read_json(path)
    except DataError as error:
        raise ModelFileError(f"{path}: expected the network's config.json; fetch it again") from error
    if not isinstance(content, Mapping):
        raise ModelFileError(f"{path}: expected a JSON object, got {type(content).__name__}; fetch it again")
    shape = {key: value for key, value in content.items() if key in BigGANConfig.model_fields}
    return supported_config(BigGANConfig, shape | {"truncation": truncation}, path, "BigGAN-deep", strict=False)
