"""Inception as the Frechet inception distance uses it: 2048 features of an image, by torch-fidelity's network.

The library would fetch the weights by itself and run their pickle. Here they are a model with a card as any other: the
network is made without weights and then filled from the fetched file by this project's reader.

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

from promptgen.frozen import FrozenModule
from promptgen.loading.published import read_state
from promptgen.perception.networks import fill, initial_weights
from promptgen.torchvision_ops import import_torchvision

LAYER = "2048"
"""Name, and length, of the last pooled layer."""


class InceptionFeatures(FrozenModule):
    """The last pooled layer of Inception-v3, of whole 8-bit images, so that no gradient comes through.

    Args:
        seed: seed of the initial weights.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with initial_weights(seed, "inception"):
            self.network = _without_weights()

    def forward(self, image: Tensor) -> Tensor:
        """Return features, (B, 2048), of images (B, 3, H, W) in [0, 1]; resized to 299 x 299 as the original does."""
        (features,) = self.network((image.clamp(0, 1) * 255).round().to(torch.uint8))
        found: Tensor = features
        return found


def load_inception(path: Path) -> InceptionFeatures:
    """Load a published file and freeze it.

    Args:
        path: a ``torch.save`` file that is the state dict of the network, its classes included.

    Raises:
        ModelFileError: the file cannot be read, or its keys or shapes differ from the network's.
    """
    model = InceptionFeatures()
    fill(model.network, read_state(path), path)
    model.freeze()
    return model


def random_inception(*, seed: int = 0) -> InceptionFeatures:
    """Return a frozen network with random weights: for dry runs and benchmarks. Arguments as of `InceptionFeatures`."""
    model = InceptionFeatures(seed)
    model.freeze()
    return model


def _without_weights() -> Any:
    """Return torch-fidelity's network with initial weights; its constructor is given an empty file to read."""
    import_torchvision()
    library = importlib.import_module("torch_fidelity")

    class Network(library.FeatureExtractorInceptionV3):  # type: ignore[misc, name-defined]
        """The same, except that an empty state dict changes nothing."""

        def load_state_dict(self, state: Any, *arguments: Any, **options: Any) -> Any:
            return super().load_state_dict(state, *arguments, **options) if state else None

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    return Network("inception", [LAYER], empty)
