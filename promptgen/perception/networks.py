"""What the published networks that look at images have in common: preprocessing, initial weights, reading of files.

The originals resized tensors with an old torchvision, which never antialiased; so does everything here. Today's
torchvision antialiases by default and gives other numbers, the more so the larger the image.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptgen.errors import ConfigError
from promptgen.loading.published import load_strictly
from promptgen.seeding import derive
from promptgen.torchvision_ops import import_torchvision

Architecture = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
"""Residual networks of torchvision: *Deep Residual Learning* (He, Zhang, Ren, Sun, CVPR 2016)."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INPUT_SIDE = 224
COUNTER = "num_batches_tracked"


@contextmanager
def initial_weights(seed: int, name: str) -> Iterator[None]:
    """Make the networks built inside draw their initial weights from a stream of their own.

    torch's layers draw from its global state, which is put back afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, name, "initial weights"))
        yield


def resnet(architecture: Architecture, outputs: int) -> Any:
    """Return an untrained residual network of torchvision, (B, 3, H, W) -> (B, outputs).

    Raises:
        ConfigError: the architecture is unknown.
    """
    if architecture not in get_args(Architecture):
        raise ConfigError(f"unknown architecture {architecture!r}, expected one of {', '.join(get_args(Architecture))}")
    import_torchvision()
    return getattr(importlib.import_module("torchvision.models"), architecture)(weights=None, num_classes=outputs)


def imagenet_input(image: Tensor) -> Tensor:
    """Return images (B, 3, H, W) in [0, 1] as ImageNet's networks take them, (B, 3, 224, 224).

    Bilinear without antialiasing, both sides whatever their ratio, nothing is clamped; then minus the mean and by the
    standard deviation of ImageNet's colours.
    """
    resized = F.interpolate(image, (INPUT_SIDE, INPUT_SIDE), mode="bilinear", align_corners=False)
    mean, std = (image.new_tensor(colour)[:, None, None] for colour in (IMAGENET_MEAN, IMAGENET_STD))
    return (resized - mean) / std


def fill(network: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Copy `state` into `network`.

    Counters of batches, which old files lack and evaluation never reads, may be missing; nothing else may.

    Raises:
        ModelFileError: keys or shapes differ; names `source` and the first differences.
    """
    counters = {key: value for key, value in network.state_dict().items() if key.rpartition(".")[2] == COUNTER}
    load_strictly(network, {**counters, **state}, source)
