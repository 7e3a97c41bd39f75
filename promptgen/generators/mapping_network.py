"""The mapping network of StyleGAN's later families, with the parameter names of the published files."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from promptgen.generators.stylegan2.layers import EqualLinear, MappingLayer, PixelNorm

MAPPING_RATE = 0.01
"""Learning-rate multiplier of the mapping layers."""


class MappingNetwork(nn.Module):
    """Map the latent z, and the class if the network has classes, to the style w.

    Args:
        latent_dim: coordinates of z.
        style_dim: coordinates of w.
        layers: number of linear layers.
        rng: stream of the initial weights.
        width: features between the layers; None means `style_dim`.
        rate: learning-rate multiplier of the layers.
        class_count: number of classes; 0 for a network without.
        embedding_dim: coordinates of the embedding of a class; None means `style_dim`.

    Attributes:
        w_avg: mean of w, (style_dim,), the centre of the truncation.
    """

    w_avg: Tensor

    def __init__(
        self,
        latent_dim: int,
        style_dim: int,
        layers: int,
        rng: torch.Generator,
        *,
        width: int | None = None,
        rate: float = MAPPING_RATE,
        class_count: int = 0,
        embedding_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.normalise = PixelNorm()
        self.names = [f"fc{index}" for index in range(layers)]
        embedded = (embedding_dim or style_dim) if class_count else 0
        widths = [latent_dim + embedded, *[width or style_dim] * (layers - 1), style_dim]
        for name, (fan_in, fan_out) in zip(self.names, itertools.pairwise(widths), strict=True):
            self.add_module(name, MappingLayer(fan_in, fan_out, rng, rate=rate))
        if class_count:
            self.embed = EqualLinear(class_count, embedded, rng)
        self.register_buffer("w_avg", torch.zeros(style_dim))

    def forward(self, z: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Return styles, (B, style_dim), of latents z, (B, latent_dim), and class vectors, (B, class_count)."""
        x: Tensor = self.normalise(z)
        if vectors is not None:
            x = torch.cat([x, self.normalise(self.embed(vectors))], dim=1)
        for name in self.names:
            x = self.get_submodule(name)(x)
        return x
