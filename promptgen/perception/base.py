"""Contracts of the models that look at images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Classifier(Protocol):
    """Reads attributes off images.

    Attributes:
        attributes: class labels of each attribute, in the order of the logits.
    """

    attributes: Mapping[str, tuple[str, ...]]

    def __call__(self, image: Tensor) -> Mapping[str, Tensor]:
        """Return logits, (B, K), of each attribute for images (B, 3, H, W) in [0, 1]; two for a binary one."""
        ...


class Embedder(Protocol):
    """Maps images to unit vectors whose inner product measures likeness (of identity, say)."""

    def __call__(self, image: Tensor) -> Tensor:
        """Return unit vectors, (B, E), of images (B, 3, H, W) in [0, 1]."""
        ...
