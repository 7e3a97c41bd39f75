"""ArcFace: identity embedding of a face, a unit vector, by an improved residual network with squeeze-excitation.

Source: *ArcFace: Additive Angular Margin Loss for Deep Face Recognition* (Deng, Guo, Xue, Zafeiriou, CVPR 2019,
https://arxiv.org/abs/1801.07698); *Squeeze-and-Excitation Networks* (Hu, Shen, Sun, CVPR 2018, arXiv 1709.01507). An
independent implementation with the state-dict layout of the published file.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from promptgen.loading.published import read_state
from promptgen.networks.frozen import FrozenModule
from promptgen.networks.precision import widened
from promptgen.perception.networks import fill, initial_weights
from promptgen.strict import Section, validate

Depth = Literal[50, 100, 152]

BLOCKS: dict[Depth, tuple[int, int, int, int]] = {50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 152: (3, 8, 36, 3)}
"""Residual blocks in each of the four groups."""

WIDTHS = (64, 128, 256, 512)
"""Channels of the four groups; each group halves the image size."""

IMAGE_SIDE = 256
ROWS, COLUMNS = slice(35, 223), slice(32, 220)
"""Position of the face in an aligned image of 256 x 256 pixels."""


class ArcFaceConfig(Section):
    """Shape of the network.

    Attributes:
        depth: nominal number of layers.
        squeeze: whether the blocks have squeeze and excitation.
        input_side: height and width of the network's input, a multiple of 16.
        affine: whether the last normalisation has a scale and a shift.
        dim: coordinates of the embedding.
    """

    depth: Depth = 50
    squeeze: bool = True
    input_side: int = Field(default=112, gt=0, multiple_of=16)
    affine: bool = True
    dim: int = Field(default=512, gt=0)


class ArcFace(FrozenModule):
    """Identity embedder; it can be trained until `freeze()` is called."""

    def __init__(self, config: ArcFaceConfig | None = None, seed: int = 0) -> None:
        super().__init__()
        self.config = config = config or ArcFaceConfig()
        side = config.input_side // 2 ** len(WIDTHS)
        with initial_weights(seed, "arcface"):
            self.input_layer = nn.Sequential(
                nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.PReLU(WIDTHS[0])
            )
            self.body = nn.Sequential(*_blocks(config))
            self.output_layer = nn.Sequential(
                nn.BatchNorm2d(WIDTHS[-1]),
                nn.Dropout(0.6),  # inactive in evaluation, but keeps the published numbering
                nn.Flatten(),
                nn.Linear(WIDTHS[-1] * side * side, config.dim),
                nn.BatchNorm1d(config.dim, affine=config.affine),
            )

    def face(self, image: Tensor) -> Tensor:
        """Return the cropped faces of aligned images, (B, 3, input_side, input_side), in the images' range.

        As in the method's reference code, the image is pooled to 256 x 256 pixels unless its height is already 256,
        then cropped and pooled again. The values stay in [0, 1], although the network was trained on [-1, 1].
        """
        if image.shape[2] != IMAGE_SIDE:
            image = F.adaptive_avg_pool2d(image, IMAGE_SIDE)
        return F.adaptive_avg_pool2d(image[:, :, ROWS, COLUMNS], self.config.input_side)

    def forward(self, image: Tensor) -> Tensor:
        """Return unit vectors, (B, dim), of aligned face images (B, 3, H, W) in [0, 1]; see `face`."""
        embedding = widened(self.output_layer(self.body(self.input_layer(self.face(image)))))
        unit: Tensor = embedding / embedding.norm(dim=1, keepdim=True)
        return unit


class Block(nn.Module):
    """Pre-normalised residual block: (B, fan_in, H, W) -> (B, channels, H / stride, W / stride).

    Args:
        channels: output channels.
        stride: 1, or 2 to halve height and width.
        squeeze: whether squeeze and excitation scales the residual branch.
    """

    def __init__(self, fan_in: int, channels: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)  # every stride-th pixel
        if fan_in != channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(fan_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(fan_in),
            nn.Conv2d(fan_in, channels, 3, padding=1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            *([SqueezeExcitation(channels)] if squeeze else []),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the shortcut and the residual branch."""
        total: Tensor = self.shortcut_layer(x) + self.res_layer(x)
        return total


class SqueezeExcitation(nn.Module):
    """Scales each channel by a weight computed from all channels' means: (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: channels C.
        reduction: ratio of C to the number of hidden units.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with each channel scaled by a weight in (0, 1)."""
        hidden = F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(hidden))


def _blocks(config: ArcFaceConfig) -> list[Block]:
    """Return the residual blocks; the first block of every group halves the image size."""
    blocks = []
    for (fan_in, channels), count in zip(itertools.pairwise((WIDTHS[0], *WIDTHS)), BLOCKS[config.depth], strict=True):
        blocks.append(Block(fan_in, channels, 2, config.squeeze))
        blocks += [Block(channels, channels, 1, config.squeeze) for _ in range(count - 1)]
    return blocks


def load_arcface(
    path: Path, depth: Depth = 50, squeeze: bool = True, *, input_side: int = 112, affine: bool = True, dim: int = 512
) -> ArcFace:
    """Load a published file of the network's state dict and freeze it; other arguments as of `ArcFaceConfig`.

    Raises:
        ModelFileError: the file cannot be read, or its keys or shapes differ from the network's.
    """
    model = ArcFace(ArcFaceConfig(depth=depth, squeeze=squeeze, input_side=input_side, affine=affine, dim=dim))
    fill(model, read_state(path), path)
    return model.frozen()


def random_arcface(*, seed: int = 0, **fields: Any) -> ArcFace:
    """Return a frozen network with random weights, for dry runs and benchmarks.

    Args:
        seed: seed of the weights.
        fields: fields of `ArcFaceConfig`.

    Raises:
        ConfigError: a field is unknown or out of range.
    """
    return ArcFace(validate(ArcFaceConfig, fields), seed).frozen()
