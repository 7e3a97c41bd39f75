"""Small networks that look at the pictures of the embedded world, 64 x 64.

The classifier steers flows; the judge only counts. They share nothing: another architecture, other pictures, other
seeds. None has batch statistics, so a network in training and a frozen one compute the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from promptgen.errors import CheckpointError
from promptgen.loading.own_files import building, fill_module, load_tensors, save_module
from promptgen.networks.frozen import FrozenModule
from promptgen.networks.precision import widened


class AttributeConfig(BaseModel):
    """What a network reads, and how wide it is.

    Attributes:
        attributes: class labels by attribute, in the order of the logits.
        width: channels of the first stage; a multiple of 8.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attributes: dict[str, tuple[str, ...]]
    width: int = Field(default=16, gt=0, multiple_of=8)


class EmbeddingConfig(BaseModel):
    """Size of a network that gives one vector.

    Attributes:
        width: channels of the first stage; a multiple of 8.
        dim: coordinates of the vector.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(default=16, gt=0, multiple_of=8)
    dim: int = Field(gt=0)


def _centre(image: Tensor) -> Tensor:
    """Return images, (B, 3, H, W) in [0, 1], in [-1, 1] and in the memory order that convolutions like."""
    return (2 * image - 1).contiguous(memory_format=torch.channels_last)


class StridedTrunk(nn.Sequential):
    """Plain convolutions that halve the picture four times: (B, 3, 64, 64) -> (B, 6 width, 4, 4)."""

    def __init__(self, width: int) -> None:
        shape = [(3, width, 2), (width, 2 * width, 2), (2 * width, 3 * width, 1), (3 * width, 4 * width, 2)]
        shape += [(4 * width, 4 * width, 1), (4 * width, 6 * width, 2)]
        layers: list[nn.Module] = []
        for fan_in, fan_out, stride in shape:
            layers += [nn.Conv2d(fan_in, fan_out, 3, stride, padding=1), nn.GroupNorm(8, fan_out), nn.SiLU()]
        super().__init__(*layers, nn.Flatten())
        self.features = 6 * width * 16


class Heads(nn.ModuleDict):
    """Logits for every attribute from one vector of features."""

    def __init__(self, features: int, attributes: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__({name: nn.Linear(features, len(labels)) for name, labels in attributes.items()})

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return logits, (B, K), by attribute, of features (B, F)."""
        return {name: head(features) for name, head in self.items()}


class AttributeNet(FrozenModule):
    """Classifier of the world's attributes: strided convolutions and a hidden layer."""

    def __init__(self, config: AttributeConfig) -> None:
        super().__init__()
        self.config = config
        self.attributes = config.attributes
        self.trunk = StridedTrunk(config.width)
        self.hidden = nn.Sequential(nn.Linear(self.trunk.features, 64), nn.SiLU())
        self.heads = Heads(64, config.attributes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits, (B, K), by attribute, of images (B, 3, 64, 64) in [0, 1]."""
        logits: dict[str, Tensor] = self.heads(self.hidden(self.trunk(_centre(image))))
        return logits


class DepthwiseBlock(nn.Module):
    """Residual block: wide depthwise convolution, then two pointwise layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.GroupNorm(1, channels)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.narrow = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.narrow(functional.gelu(self.widen(self.norm(self.mix(x)))))
        return x + change


class JudgeNet(FrozenModule):
    """Judge of the world's attributes: patches, residual depthwise blocks, mean over places."""

    entries = ("forward", "features")

    def __init__(self, config: AttributeConfig) -> None:
        super().__init__()
        self.config = config
        self.attributes = config.attributes
        narrow, wide = 3 * config.width, 6 * config.width
        self.trunk = nn.Sequential(
            nn.Conv2d(3, narrow, 4, stride=4),
            *(DepthwiseBlock(narrow) for _ in range(3)),
            nn.Conv2d(narrow, wide, 2, stride=2),
            *(DepthwiseBlock(wide) for _ in range(3)),
            nn.GroupNorm(1, wide),
        )
        self.heads = Heads(2 * wide, config.attributes)

    def features(self, image: Tensor) -> Tensor:
        """Return what the logits are made from, (B, 12 width), of images (B, 3, 64, 64) in [0, 1]."""
        x = self.trunk(_centre(image))
        return torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits, (B, K), by attribute, of images (B, 3, 64, 64) in [0, 1]."""
        logits: dict[str, Tensor] = self.heads(self.features(image))
        return logits


class VectorNet(FrozenModule):
    """A vector, (B, dim), from strided convolutions and a hidden layer."""

    def __init__(self, config: EmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = StridedTrunk(config.width)
        self.read = nn.Sequential(nn.Linear(self.trunk.features, 64), nn.SiLU(), nn.Linear(64, config.dim))

    def vector(self, image: Tensor) -> Tensor:
        """Return the vectors, (B, dim), of images (B, 3, 64, 64) in [0, 1]."""
        vector: Tensor = self.read(self.trunk(_centre(image)))
        return vector


class PoseNet(VectorNet):
    """Yaw and pitch of a head."""

    def forward(self, image: Tensor) -> Tensor:
        """Return yaw and pitch, (B, 2), radians, of images (B, 3, 64, 64) in [0, 1]."""
        return 0.2 * self.vector(image)  # poses of the world are about that large


class IdentityNet(VectorNet):
    """Embedding of a head's shape and colours, whatever it wears and wherever it looks."""

    def forward(self, image: Tensor) -> Tensor:
        """Return unit vectors, (B, dim), of images (B, 3, 64, 64) in [0, 1]."""
        return functional.normalize(widened(self.vector(image)), dim=1)


NETWORKS: Final[Mapping[str, tuple[type[FrozenModule], type[BaseModel]]]] = {
    "classifier": (AttributeNet, AttributeConfig),
    "judge": (JudgeNet, AttributeConfig),
    "pose": (PoseNet, EmbeddingConfig),
    "identity": (IdentityNet, EmbeddingConfig),
}
"""Network and its configuration, by the name of the model."""


def save_network(path: Path, name: str, network: AttributeNet | JudgeNet | PoseNet | IdentityNet) -> None:
    """Write the weights of the model `name`, a key of `NETWORKS`, with its configuration."""
    save_module(path, network, {"kind": f"world-{name}", "network": network.config.model_dump(mode="json")})


def load_network(path: Path) -> FrozenModule:
    """Return the frozen network of a file that `save_network` wrote.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something else.
    """
    tensors, config = load_tensors(path)
    kind = str(config.get("kind", "weights"))
    if kind.removeprefix("world-") not in NETWORKS:
        raise CheckpointError(f"{path} holds {kind}, expected one of {', '.join(f'world-{name}' for name in NETWORKS)}")
    network_type, config_type = NETWORKS[kind.removeprefix("world-")]
    with building(tensors, config.get("network"), path):
        network = network_type(config_type.model_validate(config["network"]))
    fill_module(network, tensors, path)
    return network.frozen()
