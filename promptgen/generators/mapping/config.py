"""Configuration of a mapping network, and of the truncation of its styles."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from promptgen.strict import Section

Width = Annotated[int, Field(gt=0, le=8192)]


class TruncatedConfig(Section):
    """Configuration of a network with styles w.

    Attributes:
        truncation: factor in ``mean + truncation * (w - mean)``, which replaces w; 1 leaves w unchanged.
    """

    truncation: float = Field(default=1.0, ge=0.0, le=1.0)


class MappingConfig(TruncatedConfig):
    """Shape of a mapping network, and the truncation.

    Attributes:
        latent_dim: coordinates of z.
        style_dim: coordinates of w; None means `latent_dim`.
        mapping_layers: linear layers from z to w.
        mapping_width: features between these layers; None means `style_dim`.
        mapping_rate: learning-rate multiplier of these layers.
        class_count: number of classes; 0 for an unconditional network.
        embedding_dim: coordinates of the embedding of a class; None means `style_dim`.
    """

    latent_dim: Width = 512
    style_dim: Width | None = None
    mapping_layers: Annotated[int, Field(gt=0, le=64)] = 8
    mapping_width: Width | None = None
    mapping_rate: float = Field(default=0.01, gt=0.0)
    class_count: Annotated[int, Field(ge=0, le=100_000)] = 0
    embedding_dim: Width | None = None

    @property
    def w_dim(self) -> int:
        """Coordinates of w."""
        return self.style_dim or self.latent_dim

    @property
    def embedded(self) -> int:
        """Coordinates of the embedding of a class; 0 for an unconditional network."""
        return (self.embedding_dim or self.w_dim) if self.class_count else 0

    @property
    def mapping_widths(self) -> list[int]:
        """Features before, between and after the layers."""
        hidden = self.mapping_width or self.w_dim
        return [self.latent_dim + self.embedded, *[hidden] * (self.mapping_layers - 1), self.w_dim]
