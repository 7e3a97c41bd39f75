"""A generator, its classifier, its judge and an energy of one's own: pictures of a dot, 32 x 32.

A latent has four coordinates: where the dot is (two), its size and its colour. Most dots are small, and a few more are
orange than blue. The energy asks for ink, so that dots become large; but blue is a little darker than orange, so they
become blue as well, which nobody asked for. `examples/own.yaml` names these four by their dotted paths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from promptgen.generators.base import GaussianPrior

SIDE: Final = 32
ATTRIBUTES: Final[Mapping[str, tuple[str, ...]]] = {"size": ("small", "large"), "colour": ("orange", "blue")}
ORANGE: Final = (0.95, 0.65, 0.30)
BLUE: Final = (0.25, 0.45, 0.90)
SMALL, LARGE = 4.0, 9.0  # radii, pixels
BETWEEN: Final = (SMALL + LARGE) / 2


class Dots(nn.Module):
    """Draws one dot on white.

    Args:
        large: share of large dots.
        blue: share of blue dots.

    Attributes:
        prior: N(0, I) in 4 dimensions.
        image_shape: (3, 32, 32).
    """

    image_shape = (3, SIDE, SIDE)

    def __init__(self, large: float = 0.2, blue: float = 0.4) -> None:
        super().__init__()
        self.prior = GaussianPrior.standard(4)
        normal = torch.distributions.Normal(0.0, 1.0)
        self.register_buffer("thresholds", normal.icdf(torch.tensor([1 - large, 1 - blue])))
        line = torch.arange(SIDE) + 0.5 - SIDE / 2
        self.register_buffer("grid", torch.stack(torch.meshgrid(line, line, indexing="xy")))

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, 32, 32), in [0, 1], of latents (B, 4)."""
        size, colour = torch.sigmoid(6 * (latent[:, 2:] - self.thresholds)).unbind(dim=1)
        centre = 5 * latent[:, :2].tanh()
        distance = (self.grid - centre[:, :, None, None]).square().sum(dim=1).add(1e-6).sqrt()  # (B, H, W)
        inside = torch.sigmoid(2 * ((SMALL + (LARGE - SMALL) * size)[:, None, None] - distance))
        orange, blue = latent.new_tensor(ORANGE), latent.new_tensor(BLUE)
        paint = orange + (blue - orange) * colour[:, None]  # (B, 3)
        return 1 + (paint - 1)[:, :, None, None] * inside[:, None]

    def truth(self, latent: Tensor) -> dict[str, Tensor]:
        """Return the true class index, (B,) int64, of each attribute; a generator without this is as welcome."""
        size, colour = (latent[:, 2:] > self.thresholds).long().unbind(dim=1)
        return {"size": size, "colour": colour}


class DotClassifier:
    """Reads size and colour off a picture, with a gradient: the flow is trained with it.

    Args:
        sharpness: factor of the logits.
    """

    attributes = ATTRIBUTES

    def __init__(self, sharpness: float = 4.0) -> None:
        self.sharpness = sharpness

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Return two logits, (B, 2), for each attribute of images (B, 3, H, W) in [0, 1]."""
        covered = 1 - image.amin(dim=1)  # about 0.7 inside a dot of either colour
        radius = (covered.sum(dim=(1, 2)) / 0.725 / math.pi).clamp(min=1e-6).sqrt()
        blueness = (image[:, 2] - image[:, 0]).sum(dim=(1, 2)) / covered.sum(dim=(1, 2)).clamp(min=1e-6)
        return {"size": self._logits(radius - BETWEEN), "colour": self._logits(blueness)}

    def _logits(self, second: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(second), self.sharpness * second], dim=1)


class DotJudge:
    """Counts pixels instead, and has no gradient: whoever judges a flow should not have trained it."""

    attributes = ATTRIBUTES

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Return two logits, (B, 2), for each attribute of images (B, 3, H, W) in [0, 1]."""
        inside = image.mean(dim=1) < 0.8
        large = inside.sum(dim=(1, 2)) > math.pi * BETWEEN**2
        blue = ((image[:, 2] > image[:, 0]) & inside).sum(dim=(1, 2)) > inside.sum(dim=(1, 2)) / 2
        return {name: torch.stack([~yes, yes], dim=1).float() for name, yes in (("size", large), ("colour", blue))}


def ink(images: Tensor, latents: Tensor, context: Tensor | None) -> Tensor:
    """Return an energy, (B,), that is low where there is much ink: minus the mean darkness, in [-1, 0]."""
    return images.mean(dim=(1, 2, 3)) - 1
