"""Generators and classifiers so small that what a training should end with is known."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from promptgen.generators.base import GaussianPrior

LINE = 4.0
"""Sharpness of a classifier's borders, nats per unit of the latent."""


class Coordinates(torch.nn.Module):
    """Images (B, 3, 1, 1) that are the first three coordinates of a latent; counts them, and can fail.

    Args:
        dim: coordinates of the latent.
        fatal_call: call that raises `Interrupted`, counted from 1; 0 for none.
    """

    image_shape = (3, 1, 1)

    def __init__(self, dim: int = 6, fatal_call: int = 0) -> None:
        super().__init__()
        self.prior = GaussianPrior.standard(dim)
        self.images, self.calls_left = 0, fatal_call

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        self.calls_left -= 1
        if self.calls_left == 0:
            raise Interrupted
        self.images += len(latent)
        return latent[:, :3, None, None]


class Interrupted(Exception):
    """Stands for a kill."""


class Reader:
    """Sees on which side of a border the first two coordinates are.

    Args:
        hard: say what is seen with certainty, and without a gradient.
    """

    attributes: ClassVar = {"hair": ("short", "long"), "glasses": ("without", "with")}

    def __init__(self, *, hard: bool = False) -> None:
        self.hard = hard

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        point = image.flatten(1)
        beyond = torch.stack([point[:, 0] - 0.6, point[:, 1] + 0.3], dim=1)
        second = 30 * beyond.detach().sign() if self.hard else LINE * beyond
        logits = torch.stack([-second / 2, second / 2], dim=2)
        return {name: logits[:, number] for number, name in enumerate(self.attributes)}


def normal(n: int, dim: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))
