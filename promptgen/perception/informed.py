"""A classifier that also knows what the generator has drawn for each image, which no network has to read."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from promptgen.drawn import Drawn
from promptgen.errors import ConfigError
from promptgen.perception.base import Classifier


class InformedClassifier(nn.Module):
    """Classifies images with a classifier, and tells what was drawn for them from their latents.

    Args:
        classifier: classifies images by attribute.
        drawn: what the generator draws, one more attribute.

    Attributes:
        attributes: labels by attribute, in the order of the logits, what was drawn last.

    Raises:
        ConfigError: the classifier has an attribute of that name.

    Example:
        >>> import torch
        >>> class LightReader:
        ...     attributes = {"light": ("dark", "bright")}
        ...     def __call__(self, image):
        ...         brightness = image.mean(dim=(1, 2, 3))
        ...         return {"light": torch.stack([1 - brightness, brightness], dim=1)}
        >>> informed = InformedClassifier(LightReader(), Drawn("prompt", {"a lamp": 0.5, "a cave": 0.5}))
        >>> logits = informed.of_samples(torch.ones(1, 3, 4, 4), torch.tensor([[0.2, 1.5]]))
        >>> {name: informed.attributes[name][part.argmax()] for name, part in logits.items()}
        {'light': 'bright', 'prompt': 'a cave'}
    """

    attributes: Mapping[str, tuple[str, ...]]

    def __init__(self, classifier: Classifier, drawn: Drawn) -> None:
        super().__init__()
        if drawn.name in classifier.attributes:
            raise ConfigError(
                f"the classifier has an attribute {drawn.name}, which is also what the generator draws: rename it"
            )
        self.classifier, self.drawn = classifier, drawn
        self.attributes = {**classifier.attributes, drawn.name: drawn.labels}

    def forward(self, image: Tensor) -> Mapping[str, Tensor]:
        """Return what the image alone shows: logits, (B, K), by attribute of the classifier."""
        return self.classifier(image)

    def of_samples(self, image: Tensor, latent: Tensor) -> Mapping[str, Tensor]:
        """Return logits, (B, K), by attribute, of images (B, 3, H, W) in [0, 1] and their latents, (B, D)."""
        return {**self.classifier(image), self.drawn.name: self.drawn.logits(latent)}


def informed(classifier: Classifier, drawn: Drawn | None) -> Classifier:
    """Return a classifier that also knows what was drawn; the classifier itself if nothing is."""
    return classifier if drawn is None else InformedClassifier(classifier, drawn)
