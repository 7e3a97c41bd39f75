"""Several classifiers as one, for attributes that were published one by one, and for their products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from promptgen.errors import ConfigError
from promptgen.perception.base import Classifier


class JointClassifier(nn.Module):
    """Reads the attributes of all its parts.

    Args:
        parts: the classifiers.

    Attributes:
        attributes: labels by attribute, in the order of the parts.

    Raises:
        ConfigError: two parts read an attribute of the same name.
    """

    attributes: Mapping[str, tuple[str, ...]]

    def __init__(self, parts: Sequence[Classifier]) -> None:
        super().__init__()
        attributes: dict[str, tuple[str, ...]] = {}
        for part in parts:
            if twice := sorted(attributes.keys() & part.attributes.keys()):
                raise ConfigError(f"two classifiers of a joint one read {' and '.join(twice)}: leave one out")
            attributes |= part.attributes
        self.attributes, self.parts = attributes, list(parts)
        self.networks = nn.ModuleList(part for part in parts if isinstance(part, nn.Module))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the logits of all parts, (B, K), by attribute, of images (B, 3, H, W) in [0, 1]."""
        return {name: logits for part in self.parts for name, logits in part(image).items()}
