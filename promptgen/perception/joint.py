"""Several classifiers combined into one, for attributes with separate classifiers and for products of attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from promptgen.errors import ConfigError
from promptgen.perception.base import Classifier, logits_of_files


class JointClassifier(nn.Module):
    """Classifies the attributes of all its parts.

    Attributes:
        attributes: labels by attribute, in the order of the parts.

    Raises:
        ConfigError: two parts have an attribute of the same name.
    """

    attributes: Mapping[str, tuple[str, ...]]

    def __init__(self, parts: Sequence[Classifier]) -> None:
        super().__init__()
        attributes: dict[str, tuple[str, ...]] = {}
        for part in parts:
            if duplicates := sorted(attributes.keys() & part.attributes.keys()):
                names = " and ".join(duplicates)
                raise ConfigError(f"two parts of the joint classifier classify {names}; remove one of them")
            attributes |= part.attributes
        self.attributes, self.parts = attributes, list(parts)
        self.networks = nn.ModuleList(part for part in parts if isinstance(part, nn.Module))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the logits of all parts, (B, K), by attribute, of images (B, 3, H, W) in [0, 1]."""
        return {name: logits for part in self.parts for name, logits in part(image).items()}

    def of_files(self, image: Tensor) -> dict[str, Tensor]:
        """Return the logits of all parts, (B, K), by attribute, of images (B, 3, H, W) in [0, 1] from files."""
        return {name: logits for part in self.parts for name, logits in logits_of_files(part, image).items()}
