"""Configuration of R3GAN."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from promptgen.strict import Section

FIRST = 4
"""Height and width of the first stage, pixels."""

MOST_STAGES = 10
"""Most stages of a network, whose images then have 2048 pixels."""

Count = Annotated[int, Field(gt=0, le=16384)]


class R3GANConfig(Section):
    """Shape of an R3GAN; the defaults are those published for faces of 64 pixels.

    Attributes:
        widths: channels of each stage, the first one of 4 pixels, each of the others twice as large as the one before.
        groups: groups of the convolution inside a block, for each stage.
        blocks: number of residual blocks of each stage; None means two each.
        expansion: channels inside a block, as a multiple of those of its stage.
        kernel: height and width of the kernel of the grouped convolution, odd.
        latent_dim: coordinates of z.
        class_count: number of classes; 0 for an unconditional network.
        embedding_dim: coordinates of the embedding of a class.
    """

    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=MOST_STAGES)] = (768, 768, 768, 768, 384)
    groups: tuple[Count, ...] = (96, 96, 96, 96, 48)
    blocks: tuple[Annotated[int, Field(ge=0, le=64)], ...] | None = None
    expansion: Count = 2
    kernel: Annotated[int, Field(gt=0, le=15)] = 3
    latent_dim: Annotated[int, Field(gt=0, le=8192)] = 64
    class_count: Annotated[int, Field(ge=0, le=100_000)] = 0
    embedding_dim: Annotated[int, Field(gt=0, le=8192)] = 64

    @model_validator(mode="after")
    def _check(self) -> R3GANConfig:
        if not len(self.widths) == len(self.groups) == len(self.depths):
            raise ValueError(
                f"widths, groups and blocks must have one number for each stage, "
                f"got {len(self.widths)}, {len(self.groups)} and {len(self.depths)}"
            )
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}")
        for width, groups in zip(self.widths, self.groups, strict=True):
            if width * self.expansion % groups:
                raise ValueError(f"{groups} groups do not divide {width * self.expansion} channels")
        return self

    @property
    def depths(self) -> tuple[int, ...]:
        """Number of residual blocks of each stage."""
        return (2,) * len(self.widths) if self.blocks is None else self.blocks

    @property
    def size(self) -> int:
        """Height and width of the image, pixels."""
        return FIRST << (len(self.widths) - 1)
