"""Configuration of StyleGAN2."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from promptgen.strict import Section

MAPPING_RATE = 0.01
"""Learning-rate multiplier of the mapping layers."""

PUBLISHED_CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}
"""Feature channels by resolution; the channel multiplier applies from 64 pixels on."""


class StyleGAN2Config(Section):
    """Shape and sampling of a StyleGAN2.

    Attributes:
        size: height and width of the image, a power of two of at least 8.
        latent_dim: coordinates of z, and of w unless `style_dim` is given.
        style_dim: coordinates of w; None means `latent_dim`.
        mapping_layers: linear layers from z to w.
        mapping_width: features between these layers; None means `style_dim`.
        mapping_rate: learning-rate multiplier of these layers.
        class_count: number of classes; 0 for an unconditional network.
        embedding_dim: coordinates of the embedding of a class; None means `style_dim`.
        clamp: largest absolute activation of the synthesis network; None means no bound.
        channels: feature channels at each resolution from 4 to `size`; None means the published table.
        channel_multiplier: factor of the published table from 64 pixels on (2 in all published files).
        truncation: factor in ``mean + truncation * (w - mean)``, which replaces w; 1 leaves w unchanged.
    """

    size: int = Field(ge=8)
    latent_dim: int = Field(default=512, gt=0)
    style_dim: int | None = Field(default=None, gt=0)
    mapping_layers: int = Field(default=8, gt=0)
    mapping_width: int | None = Field(default=None, gt=0)
    mapping_rate: float = Field(default=MAPPING_RATE, gt=0.0)
    class_count: int = Field(default=0, ge=0, le=100_000)
    embedding_dim: int | None = Field(default=None, gt=0)
    clamp: float | None = Field(default=None, gt=0.0)
    channels: dict[int, int] | None = None
    channel_multiplier: int = Field(default=2, gt=0)
    truncation: float = Field(default=1.0, ge=0.0, le=1.0)

    @field_validator("size")
    @classmethod
    def _check_size(cls, size: int) -> int:
        if size & (size - 1):
            raise ValueError(f"size must be a power of two, got {size}")
        return size

    @model_validator(mode="after")
    def _check_channels(self) -> StyleGAN2Config:
        channels = PUBLISHED_CHANNELS if self.channels is None else self.channels
        missing = [resolution for resolution in self.resolutions if resolution not in channels]
        if missing:
            raise ValueError(f"channels are missing for the resolutions {missing}; add them to channels")
        return self

    @property
    def w_dim(self) -> int:
        """Coordinates of w."""
        return self.style_dim or self.latent_dim

    @property
    def embedded(self) -> int:
        """Coordinates of the embedding of a class; 0 for an unconditional network."""
        return (self.embedding_dim or self.w_dim) if self.class_count else 0

    @property
    def resolutions(self) -> list[int]:
        """Resolutions of the synthesis network, 4, 8, ..., size."""
        return [2**power for power in range(2, self.size.bit_length())]

    def channels_at(self, resolution: int) -> int:
        """Return the number of feature channels at `resolution`."""
        if self.channels is not None:
            return self.channels[resolution]
        return PUBLISHED_CHANNELS[resolution] * (self.channel_multiplier if resolution >= 64 else 1)
