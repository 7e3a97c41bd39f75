"""Classifier of one CelebA attribute, such as eyeglasses: a residual network with a hidden layer; one file each.

Source of the data and the attributes: *Deep Learning Face Attributes in the Wild* (Liu, Luo, Wang, Tang, ICCV 2015,
https://arxiv.org/abs/1411.7766). The labels record how annotators *perceived* a face.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from promptgen.errors import ConfigError
from promptgen.loading.published import read_state
from promptgen.networks.frozen import FrozenModule
from promptgen.perception.networks import Architecture, fill, imagenet_input, initial_weights, resnet


class CelebaAttribute(FrozenModule):
    """Classifier of one binary attribute; it can be trained until `freeze()` is called.

    Args:
        attribute: the project's name of the attribute, such as ``"glasses"``.
        labels: labels of its absence and its presence, in this order; for CelebA's "Male", "female" and "male".
        architecture: the residual network.
        hidden: units of the hidden layer.

    Raises:
        ConfigError: there are not two labels, or the architecture is unknown.
    """

    resnet: Any

    def __init__(
        self,
        attribute: str,
        labels: Sequence[str] = ("without", "with"),
        architecture: Architecture = "resnet50",
        hidden: int = 2048,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if len(labels) != 2:
            raise ConfigError(f"expected two labels of {attribute}, got {', '.join(labels) or 'none'}")
        self.attribute = attribute
        self.attributes = {attribute: tuple(labels)}
        with initial_weights(seed, "celeba"):
            self.resnet = resnet(architecture, hidden)
            self.fc = nn.Linear(hidden, 1)

    def hidden(self, image: Tensor, *, antialias: bool = False) -> Tensor:
        """Return the hidden layer, (B, hidden), before its ReLU, of images (B, 3, H, W) in [0, 1]."""
        hidden: Tensor = self.resnet(imagenet_input(image, antialias=antialias))
        return hidden

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits, (B, 2), by attribute, of images (B, 3, H, W) in [0, 1].

        The network has a single logit, that of presence. Absence has the logit 0, so that the softmax equals the
        sigmoid. As in the method's reference code, images are resized to 224 x 224 without antialiasing; see
        `imagenet_input`. The original's dropout is inactive in evaluation and omitted here.
        """
        return self._logits(self.hidden(image))

    def of_files(self, image: Tensor) -> dict[str, Tensor]:
        """Return the same of images from files, which are resized with antialiasing, as the authors of CelebA's did."""
        return self._logits(self.hidden(image, antialias=True))

    def _logits(self, hidden: Tensor) -> dict[str, Tensor]:
        presence = self.fc(hidden.relu())
        return {self.attribute: torch.cat([torch.zeros_like(presence), presence], dim=1)}


def load_celeba(
    path: Path,
    attribute: str,
    labels: Sequence[str] = ("without", "with"),
    architecture: Architecture = "resnet50",
    hidden: int = 2048,
) -> CelebaAttribute:
    """Load a published file, whose entry `model` is the state dict, and freeze it; arguments as of `CelebaAttribute`.

    Raises:
        ConfigError: there are not two labels, or the architecture is unknown.
        ModelFileError: the file cannot be read, or its keys or shapes differ from the network's.
    """
    model = CelebaAttribute(attribute, labels, architecture, hidden)
    fill(model, read_state(path, "model"), path)
    return model.frozen()
