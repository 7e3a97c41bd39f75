"""Inception features for the Frechet inception distance: 2048 per image, by torch-fidelity's network.

torch-fidelity itself would download the weights and execute their pickle. Here the weights have a card like any other
model: the network is built without weights, and this project's reader loads them from the fetched file.

Source of the features: M. Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash
equilibrium", NeurIPS 2017, https://arxiv.org/abs/1706.08500
"""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptgen.loading.published import read_state
from promptgen.networks.frozen import FrozenModule
from promptgen.networks.torchvision_ops import import_torchvision
from promptgen.perception.networks import fill, initial_weights

LAYER = "2048"
"""Name and width of the last pooled layer."""


class InceptionFeatures(FrozenModule):
    """The last pooled layer of Inception-v3; images are rounded to 8 bits, so there is no gradient."""

    entries = ()  # published distances are of features in single precision

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with initial_weights(seed, "inception"):
            self.network = _without_weights()

    def forward(self, image: Tensor) -> Tensor:
        """Return features, (B, 2048), of images (B, 3, H, W) in [0, 1]; resized to 299 x 299 as in the original."""
        features: Tensor
        (features,) = self.network((image.clamp(0, 1) * 255).round().to(torch.uint8))
        return features


def load_inception(path: Path) -> InceptionFeatures:
    """Load a published file of the network's state dict, the classification layer included, and freeze it.

    Raises:
        ModelFileError: the file cannot be read, or its keys or shapes differ from the network's.
    """
    model = InceptionFeatures()
    fill(model.network, read_state(path), path)
    return model.frozen()


def _without_weights() -> Any:
    """Return torch-fidelity's network with initial weights, by passing an empty file to its constructor."""
    import_torchvision()
    library = importlib.import_module("torch_fidelity")

    class Network(library.FeatureExtractorInceptionV3):  # type: ignore[misc, name-defined]
        """The network, except that loading an empty state dict changes nothing."""

        def load_state_dict(self, state: Any, *arguments: Any, **options: Any) -> Any:
            return super().load_state_dict(state, *arguments, **options) if state else None

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    return Network("inception", [LAYER], empty)
