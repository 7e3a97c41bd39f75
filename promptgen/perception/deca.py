"""Head pose by DECA's coarse encoder alone, without the head model FLAME or a renderer.

Source: *Learning an Animatable Detailed 3D Face Model from In-The-Wild Images* (Feng, Feng, Black, Bolkart, SIGGRAPH
2021, https://arxiv.org/abs/2012.04012). The encoder outputs 236 numbers; six are the rotations of head and jaw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptgen.errors import DataError
from promptgen.loading.published import read_state
from promptgen.networks.frozen import FrozenModule
from promptgen.networks.precision import exact
from promptgen.perception.networks import INPUT_SIDE, Architecture, fill, initial_weights, resnet

CODE: Final[Mapping[str, slice]] = MappingProxyType(
    {
        "shape": slice(0, 100),
        "texture": slice(100, 150),
        "expression": slice(150, 200),
        "pose": slice(200, 206),  # rotations of the head and of the jaw, as axis times angle, radians
        "camera": slice(206, 209),
        "light": slice(209, 236),  # nine spherical harmonics of three colours
    }
)
"""Parts of the code."""

CODE_LENGTH = 236


class DecaPose(FrozenModule):
    """Estimator of the head's rotation; it can be trained until `freeze()` is called.

    Args:
        architecture: the residual network.
        outputs: length of the code, which must include the pose.
        hidden: units of the layer between the residual network and the code.
    """

    encoder: Any

    def __init__(
        self, architecture: Architecture = "resnet50", outputs: int = CODE_LENGTH, hidden: int = 1024, seed: int = 0
    ) -> None:
        super().__init__()
        with initial_weights(seed, "deca"):
            self.encoder = resnet(architecture, 1)
            features = self.encoder.fc.in_features
            self.encoder.fc = nn.Identity()
            self.layers = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    @staticmethod
    def preprocess(image: Tensor) -> Tensor:
        """Resize square images (B, 3, H, H) in [0, 1] to the network's input, (B, 3, 224, 224).

        As in the original, the resizing is bicubic without antialiasing. The result may exceed [0, 1]; it is neither
        clamped nor normalised.

        Raises:
            DataError: the images are not square.
        """
        if image.shape[2] != image.shape[3]:
            raise DataError(f"the pose encoder needs square images, got {tuple(image.shape)}; crop the face first")
        return F.interpolate(image, (INPUT_SIDE, INPUT_SIDE), mode="bicubic", align_corners=False)

    def features(self, image: Tensor) -> Tensor:
        """Return the residual network's features, (B, 2048), of images (B, 3, H, H) in [0, 1]; see `preprocess`."""
        features: Tensor = self.encoder(self.preprocess(image))
        return features

    def code(self, image: Tensor) -> Tensor:
        """Return codes, (B, outputs), of images (B, 3, H, H) in [0, 1]; `CODE` names their parts."""
        code: Tensor = self.layers(self.features(image))
        return code

    def forward(self, image: Tensor) -> Tensor:
        """Return head rotations, (B, 3, 3), of images (B, 3, H, H) in [0, 1]; see `preprocess`."""
        return axis_angle_rotation(self.code(image)[:, CODE["pose"]][:, :3])


@exact
def axis_angle_rotation(axis_angle: Tensor) -> Tensor:
    """Return rotations, (B, 3, 3), by Rodrigues' formula; value and gradient are exact at angle 0, too."""
    angle = torch.linalg.vector_norm(axis_angle, dim=1)[:, None, None]
    x, y, z = axis_angle.unbind(dim=1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    sine = torch.sinc(angle / math.pi)  # sin(angle) / angle
    half = torch.sinc(angle / (2 * math.pi))
    return torch.eye(3).to(cross) + sine * cross + half.square() / 2 * (cross @ cross)


def load_deca(
    path: Path, architecture: Architecture = "resnet50", outputs: int = CODE_LENGTH, hidden: int = 1024
) -> DecaPose:
    """Load a published file, whose entry `E_flame` is the coarse encoder, and freeze it; arguments as of `DecaPose`.

    Raises:
        ConfigError: the architecture is unknown.
        ModelFileError: the file cannot be read, or its keys or shapes differ from the network's.
    """
    model = DecaPose(architecture, outputs, hidden)
    fill(model, read_state(path, "E_flame"), path)
    return model.frozen()
