"""The radiance fields of StyleNeRF: positions -> density and features.

The output layers are linear, so they are applied once to the weighted sum along a ray instead of to every sample: a
field returns the hidden values at each sample, and `features` applies the output layers to their weighted sum.

Source: *StyleNeRF: A Style-based 3D-Aware Generator for High-resolution Image Synthesis* (Gu, Liu, Wang, Theobalt,
ICLR 2022, https://arxiv.org/abs/2110.08985). An independent implementation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptgen.generators.plain import linear
from promptgen.generators.stylenerf.config import FieldConfig
from promptgen.generators.stylenerf.layers import EqualConv, ReadOut, StyledLayer
from promptgen.generators.stylenerf.rays import encode


class ForegroundField(nn.Module):
    """The field of the head, modulated by w."""

    def __init__(self, config: FieldConfig, style_dim: int, features: int, rng: torch.Generator) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.fc_in = StyledLayer(6 * config.octaves, width, style_dim, rng)
        self.blocks = nn.ModuleList(StyledLayer(width, width, style_dim, rng) for _ in range(config.layers - 1))
        self.sigma_out = ReadOut(width, 1, style_dim, rng)
        self.feat_out = ReadOut(width, features, style_dim, rng)
        self.to_rgb = EqualConv(features, 3, rng)

    def forward(self, positions: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return density, (B, R, S), and hidden values, (B, R, S, width), at positions (B, R, S, 3)."""
        x = self.fc_in(encode(positions / self.config.scale, self.config.octaves), w)
        for layer in self.blocks:
            x = layer(x, w)
        return self.sigma_out(x, w)[..., 0].relu(), x

    def features(self, hidden: Tensor, weight: Tensor, w: Tensor) -> Tensor:
        """Return colours and features of rays, (B, R, 3 + features).

        Args:
            hidden: weighted sum of the hidden values along each ray, (B, R, width).
            weight: sum of the weights, (B, R, 1).
            w: styles, (B, style_dim).
        """
        features = hidden @ self.feat_out.matrices(w).mT + weight * self.feat_out.bias
        return torch.cat([F.linear(features, self.to_rgb.matrix()) + weight * self.to_rgb.bias, features], dim=2)


class BackgroundField(nn.Module):
    """The field of the background, modulated by a random code instead of w."""

    def __init__(self, config: FieldConfig, code_dim: int, features: int, rng: torch.Generator) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.fc_in = linear(8 * config.octaves + code_dim, width, rng)
        self.blocks = nn.ModuleList(linear(width, width, rng) for _ in range(config.layers - 1))
        self.sigma_out = linear(width, 1, rng)
        self.feat_out = linear(width, features, rng)
        self.to_rgb = EqualConv(features, 3, rng)

    def forward(self, positions: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return density, (B, R, S), and hidden values, (B, R, S, width), at positions (B, R, S, 4)."""
        encoded = encode(positions / self.config.scale, self.config.octaves)
        codes = code[:, None, None].expand(*encoded.shape[:3], -1)
        x: Tensor = self.fc_in(torch.cat([encoded, codes], dim=3)).relu()
        for layer in self.blocks:
            x = layer(x).relu()
        return self.sigma_out(x)[..., 0].relu(), x

    def features(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Return colours and features of rays, (B, R, 3 + features); see `ForegroundField.features`."""
        features = F.linear(hidden, self.feat_out.weight) + weight * self.feat_out.bias
        return torch.cat([F.linear(features, self.to_rgb.matrix()) + weight * self.to_rgb.bias, features], dim=2)
