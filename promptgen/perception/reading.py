"""Read images with a classifier: logits of the promised attributes and shapes, all finite."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from promptgen.errors import DataError
from promptgen.networks.finite import require_finite
from promptgen.perception.base import Classifier, logits_of_samples


def read_logits(
    classifier: Classifier, image: Tensor, latent: Tensor, reader: str, first: int | None = 0
) -> Mapping[str, Tensor]:
    """Return the logits, (B, K), of each attribute of a classifier, for images (B, 3, H, W) in [0, 1].

    Args:
        classifier: the classifier.
        image: the images.
        latent: their latents, (B, D).
        reader: what errors call the classifier.
        first: number of the first image of the batch; None if images have no numbers.

    Raises:
        DataError: an attribute has no logits or the wrong number of them, or a logit is NaN or infinite; the message
            names the reader, the attribute and the sample.
    """
    logits = promised(classifier, logits_of_samples(classifier, image, latent), len(image), reader)
    for name, part in logits.items():
        require_finite(part, f"{reader}'s logits of {name}", first)
    return logits


def promised(classifier: Classifier, logits: Mapping[str, Tensor], n: int, reader: str) -> dict[str, Tensor]:
    """Return the logits of the attributes of a classifier for `n` images.

    Raises:
        DataError: an attribute has no logits, or they are not (n, K) for its K classes.
    """
    for name, labels in classifier.attributes.items():
        expected = (n, len(labels))
        got = tuple(logits[name].shape) if name in logits else None
        if got != expected:
            shown = "none" if got is None else f"shape {got}"
            raise DataError(f"{reader} must return logits of {name} of shape {expected}, got {shown}; correct its code")
    return {name: part for name, part in logits.items() if name in classifier.attributes}
