"""Configuration of StyleGAN2."""

from __future__ import annotations

from pydantic import Field, model_validator

from promptgen.generators.mapping.config import MappingConfig

PUBLISHED_CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}
"""Feature channels by resolution; the channel multiplier applies from 64 pixels on."""


class StyleGAN2Config(MappingConfig):
    """Shape and sampling of a StyleGAN2.

    Attributes:
        size: height and width of the image, a power of two of at least 8.
        clamp: largest absolute activation of the synthesis network; None means no bound.
        channels: feature channels at each resolution from 4 to `size`; None means the published table.
        channel_multiplier: factor of the published table from 64 pixels on (2 in all published files).
    """

    size: int = Field(ge=8)
    clamp: float | None = Field(default=None, gt=0.0)
    channels: dict[int, int] | None = None
    channel_multiplier: int = Field(default=2, gt=0)

    @model_validator(mode="after")
    def _check(self) -> StyleGAN2Config:
        if self.size & (self.size - 1):
            raise ValueError(f"size must be a power of two, got {self.size}")
        channels = PUBLISHED_CHANNELS if self.channels is None else self.channels
        missing = [resolution for resolution in self.resolutions if resolution not in channels]
        if missing:
            raise ValueError(f"channels are missing for the resolutions {missing}; add them to channels")
        return self

    @property
    def resolutions(self) -> list[int]:
        """Resolutions of the synthesis network, 4, 8, ..., size."""
        return [2**power for power in range(2, self.size.bit_length())]

    def channels_at(self, resolution: int) -> int:
        """Return the number of feature channels at `resolution`."""
        if self.channels is not None:
            return self.channels[resolution]
        return PUBLISHED_CHANNELS[resolution] * (self.channel_multiplier if resolution >= 64 else 1)
