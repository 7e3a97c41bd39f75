"""Shared code of the published networks: preprocessing of images, initial weights, and loading of files.

The method's reference code resized generated images, tensors, with an old torchvision that never antialiased, and so
does this module. The authors of the networks resized files with Pillow, which always does; `antialias` is for those.
The two differ more the larger the image is.
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
from promptgen.loading.checks import load_strictly
from promptgen.networks.torchvision_ops import import_torchvision
from promptgen.seeding import derive

Architecture = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
"""Residual networks of torchvision: *Deep Residual Learning* (He, Zhang, Ren, Sun, CVPR 2016)."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INPUT_SIDE = 224
COUNTER = "num_batches_tracked"


@contextmanager
def initial_weights(seed: int, name: str) -> Iterator[None]:
    """Within this context, draw the initial weights of networks from a separate stream.

    torch's layers draw from its global random state, which is restored afterwards.
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


def imagenet_input(image: Tensor, *, antialias: bool = False) -> Tensor:
    """Convert images (B, 3, H, W) in [0, 1] to the input of ImageNet's networks, (B, 3, 224, 224).

    The resizing is bilinear, without clamping, and ignores the aspect ratio. Colours are then standardised by
    ImageNet's mean and standard deviation.

    Args:
        image: the images.
        antialias: whether to low-pass filter an image before shrinking it, as the networks' authors did with Pillow.
            The method's reference code, which reads generated images, does not.
    """
    shape = (INPUT_SIDE, INPUT_SIDE)
    resized = F.interpolate(image, shape, mode="bilinear", align_corners=False, antialias=antialias)
    mean, std = (image.new_tensor(colour)[:, None, None] for colour in (IMAGENET_MEAN, IMAGENET_STD))
    return (resized - mean) / std


def fill(network: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Copy `state` into `network`.

    All keys are required except batch counters, which old files lack and evaluation never reads.

    Raises:
        ModelFileError: keys or shapes differ; the message names `source` and the first differences.
    """
    counters = {key: value for key, value in network.state_dict().items() if key.rpartition(".")[2] == COUNTER}
    load_strictly(network, {**counters, **state}, source)
