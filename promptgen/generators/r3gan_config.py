"""Configuration of R3GAN."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from promptgen.strict import Section

FIRST = 4
"""Height and width of the first stage, pixels."""

Count = Annotated[int, Field(gt=0, le=16384)]


class StageConfig(Section):
    """A stage of R3GAN, which works at one resolution.

    Attributes:
        width: channels.
        groups: groups of the convolution inside a block.
        blocks: number of residual blocks.
        expansion: channels inside a block, as a multiple of `width`.
        kernel: height and width of the kernel of the grouped convolution, odd.
    """

    width: Count
    groups: Count
    blocks: Annotated[int, Field(ge=0, le=64)] = 2
    expansion: Count = 2
    kernel: Annotated[int, Field(gt=0, le=15)] = 3

    @model_validator(mode="after")
    def _check(self) -> StageConfig:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}")
        if self.width * self.expansion % self.groups:
            raise ValueError(f"{self.groups} groups do not divide {self.width * self.expansion} channels")
        return self


PUBLISHED_STAGES = (*[StageConfig(width=768, groups=96)] * 4, StageConfig(width=384, groups=48))


class R3GANConfig(Section):
    """Shape of an R3GAN; the defaults are those published for faces of 64 pixels.

    Attributes:
        stages: the stages, the first one of 4 pixels, each of the others twice as large as the one before.
        latent_dim: coordinates of z.
        class_count: number of classes; 0 for an unconditional network.
        embedding_dim: coordinates of the embedding of a class.
    """

    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1, max_length=10)] = PUBLISHED_STAGES
    latent_dim: Annotated[int, Field(gt=0, le=8192)] = 64
    class_count: Annotated[int, Field(ge=0, le=100_000)] = 0
    embedding_dim: Annotated[int, Field(gt=0, le=8192)] = 64

    @property
    def size(self) -> int:
        """Height and width of the image, pixels."""
        return FIRST << (len(self.stages) - 1)
