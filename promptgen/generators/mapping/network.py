"""The mapping network of StyleGAN's later families, with the parameter names of the published files."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from promptgen.generators.mapping.config import MappingConfig
from promptgen.generators.stylegan2.layers import EqualLinear, MappingLayer, PixelNorm


class MappingNetwork(nn.Module):
    """Map the latent z, and the class if the network has classes, to the style w.

    Attributes:
        w_avg: mean of w, (w_dim,), the centre of the truncation.
    """

    w_avg: Tensor

    def __init__(self, config: MappingConfig, rng: torch.Generator) -> None:
        super().__init__()
        self.normalise = PixelNorm()
        self.names = [f"fc{index}" for index in range(config.mapping_layers)]
        for name, widths in zip(self.names, itertools.pairwise(config.mapping_widths), strict=True):
            self.add_module(name, MappingLayer(*widths, rng, rate=config.mapping_rate))
        if config.class_count:
            self.embed = EqualLinear(config.class_count, config.embedded, rng)
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(self, z: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Return styles, (B, w_dim), of latents z, (B, latent_dim), and class vectors, (B, class_count)."""
        x: Tensor = self.normalise(z)
        if vectors is not None:
            x = torch.cat([x, self.normalise(self.embed(vectors))], dim=1)
        for name in self.names:
            x = self.get_submodule(name)(x)
        return x
