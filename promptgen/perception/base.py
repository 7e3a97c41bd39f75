"""Protocols of the models that read images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor


class Classifier(Protocol):
    """Classifies images by attribute.

    Attributes:
        attributes: class labels of each attribute, in the order of the logits.

    Example:
        >>> import torch
        >>> class LightReader:
        ...     attributes = {"light": ("dark", "bright")}
        ...     def __call__(self, image):
        ...         brightness = image.mean(dim=(1, 2, 3))
        ...         return {"light": torch.stack([1 - brightness, brightness], dim=1)}
        >>> classifier: Classifier = LightReader()
        >>> label = classifier(torch.ones(1, 3, 4, 4))["light"].argmax()
        >>> classifier.attributes["light"][label]
        'bright'
    """

    attributes: Mapping[str, tuple[str, ...]]

    def __call__(self, image: Tensor) -> Mapping[str, Tensor]:
        """Return logits, (B, K), by attribute, of images (B, 3, H, W) in [0, 1]; a binary attribute has K = 2."""
        ...


@runtime_checkable
class ReadsFiles(Protocol):
    """A classifier that prepares images from files as its authors did, not as the method prepares generated ones."""

    def of_files(self, image: Tensor) -> Mapping[str, Tensor]:
        """Return logits, (B, K), by attribute, of images (B, 3, H, W) in [0, 1] that were read from files."""
        ...


def logits_of_files(classifier: Classifier, image: Tensor) -> Mapping[str, Tensor]:
    """Return a classifier's logits, (B, K), by attribute, of images (B, 3, H, W) in [0, 1] from files."""
    return classifier.of_files(image) if isinstance(classifier, ReadsFiles) else classifier(image)


@runtime_checkable
class ReadsSamples(Protocol):
    """A classifier that knows more of a generated image than it sees, such as the prompt that was drawn for it."""

    def of_samples(self, image: Tensor, latent: Tensor) -> Mapping[str, Tensor]:
        """Return logits, (B, K), by attribute, of images (B, 3, H, W) in [0, 1] and their latents, (B, D)."""
        ...


def logits_of_samples(classifier: Classifier, image: Tensor, latent: Tensor) -> Mapping[str, Tensor]:
    """Return a classifier's logits, (B, K), by attribute, of images (B, 3, H, W) in [0, 1] and their latents, (B, D).

    The latents may be those of the generator, or of a chain on it.
    """
    return classifier.of_samples(image, latent) if isinstance(classifier, ReadsSamples) else classifier(image)


class Embedder(Protocol):
    """Maps images to unit vectors whose inner product measures similarity, for example of identity.

    Example:
        >>> import torch
        >>> def mean_colour(image):
        ...     return torch.nn.functional.normalize(image.mean(dim=(2, 3)), dim=1)
        >>> embedder: Embedder = mean_colour
        >>> dark, bright = embedder(torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.9)]))
        >>> round(float(dark @ bright), 4)  # both are grey
        1.0
    """

    def __call__(self, image: Tensor) -> Tensor:
        """Return unit vectors, (B, E), of images (B, 3, H, W) in [0, 1]."""
        ...
