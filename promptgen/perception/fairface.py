"""FairFace: perceived race, gender and age of a face, by a residual network with one head for all three.

Source: *FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age for Bias Measurement and Mitigation*
(Karkkainen, Joo, WACV 2021, https://arxiv.org/abs/1908.04913). The labels are the authors'. They record how
annotators *perceived* a face, never a person's identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from promptgen.loading.published import read_state
from promptgen.networks.frozen import FrozenModule
from promptgen.perception.networks import Architecture, fill, imagenet_input, initial_weights, resnet

ATTRIBUTES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "race": ("White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian", "Middle Eastern"),
        "gender": ("Male", "Female"),
        "age": ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+"),
    }
)
"""Perceived labels in the order of the published network's 18 outputs."""


class FairFace(FrozenModule):
    """Classifier of perceived race, gender and age; it can be trained until `freeze()` is called.

    Args:
        attributes: class labels by attribute, in the order of the outputs.
        architecture: the residual network.
    """

    network: Any

    def __init__(
        self,
        attributes: Mapping[str, Sequence[str]] = ATTRIBUTES,
        architecture: Architecture = "resnet34",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.attributes = {name: tuple(labels) for name, labels in attributes.items()}
        self.sizes = [len(labels) for labels in self.attributes.values()]
        with initial_weights(seed, "fairface"):
            self.network = resnet(architecture, sum(self.sizes))

    def logits(self, image: Tensor, *, antialias: bool = False) -> Tensor:
        """Return the concatenated logits of all attributes, (B, 18), of images (B, 3, H, W) in [0, 1]."""
        logits: Tensor = self.network(imagenet_input(image, antialias=antialias))
        return logits

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits, (B, K), by attribute, of images (B, 3, H, W) in [0, 1].

        As in the method's reference code, images are resized to 224 x 224 without antialiasing; see `imagenet_input`.
        """
        return self._by_attribute(self.logits(image))

    def of_files(self, image: Tensor) -> dict[str, Tensor]:
        """Return the same of images from files, which are resized with antialiasing, as the authors of FairFace did."""
        return self._by_attribute(self.logits(image, antialias=True))

    def _by_attribute(self, logits: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.attributes, torch.split(logits, self.sizes, dim=1), strict=True))


def load_fairface(
    path: Path, attributes: Mapping[str, Sequence[str]] = ATTRIBUTES, architecture: Architecture = "resnet34"
) -> FairFace:
    """Load a published file of the residual network's state dict and freeze it; arguments as of `FairFace`.

    Raises:
        ConfigError: the architecture is unknown.
        ModelFileError: the file cannot be read, or its keys or shapes differ from the network's.
    """
    model = FairFace(attributes, architecture)
    fill(model.network, read_state(path), path)
    return model.frozen()
