"""R3GAN: latent z -> image through residual blocks of grouped convolutions, with the layout of the published files.

There is no mapping network, no normalisation and no noise: nothing is random but z, and the class where there are
classes. The published files run their last stages in bfloat16; here all is computed in the type of the weights.

Source: *The GAN is dead; long live the GAN! A Modern Baseline GAN* (Huang, Gokaslan, Kuleshov, Tompkin, NeurIPS 2024,
https://arxiv.org/abs/2501.05441). An independent implementation.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from promptgen.errors import ModelFileError
from promptgen.generators.classes import ClassChoice, class_shares
from promptgen.generators.plain import linear
from promptgen.generators.published import ClassConditional
from promptgen.generators.r3gan.config import R3GANConfig
from promptgen.generators.r3gan.layers import Basis, Convolution, ResidualBlock, Stage, UpsampleLayer
from promptgen.loading.checks import load_strictly, require_shape
from promptgen.loading.inspection.persistent import R3GAN as FAMILY
from promptgen.loading.settings import supported_config
from promptgen.loading.stored_modules import read_published
from promptgen.seeding import stream
from promptgen.strict import validate

RANDOM_RESIDUAL = 0.3
"""Standard deviation of what a random block adds to its input."""

RANDOM_COLOURS = 0.5
"""Standard deviation of the raw images of a random network."""

_LAYER = re.compile(r"Model\.MainLayers\.(\d+)\.Layers\.(\d+)\..*")


class Synthesis(nn.Module):
    """Map the latent and the class to the image."""

    def __init__(self, config: R3GANConfig, rng: torch.Generator) -> None:
        super().__init__()
        widths = config.widths
        embedded = config.embedding_dim if config.class_count else 0
        starts: list[nn.Module] = [Basis(config.latent_dim + embedded, widths[0], rng)]
        starts += [UpsampleLayer(*pair, rng) for pair in itertools.pairwise(widths)]
        self.MainLayers = nn.ModuleList()
        for start, width, groups, depth in zip(starts, widths, config.groups, config.depths, strict=True):
            self.MainLayers.append(Stage(start, [ResidualBlock(width, groups, config, rng) for _ in range(depth)]))
        self.AggregationLayer = Convolution(widths[-1], 3, 1, rng)
        self.EmbeddingLayer = linear(config.class_count, embedded, rng, bias=False) if embedded else None

    def features(self, z: Tensor, vectors: Tensor | None = None) -> Iterator[Tensor]:
        """Yield the map of each stage, (B, C, r, r), of latents z and, where there are classes, class vectors."""
        x = z
        if self.EmbeddingLayer is not None and vectors is not None:
            x = torch.cat([z, self.EmbeddingLayer(vectors)], dim=1)
        for stage in self.MainLayers:
            x = stage(x)
            yield x

    def forward(self, z: Tensor, vectors: Tensor | None = None) -> Tensor:
        *_, x = self.features(z, vectors)
        image: Tensor = self.AggregationLayer(x)
        return image


class R3GAN(ClassConditional[R3GANConfig]):
    """R3GAN as a generator; arguments as of `promptgen.generators.published.ClassConditional`."""

    def __init__(self, config: R3GANConfig, seed: int = 0, classes: ClassChoice | None = None) -> None:
        super().__init__(config, config.size, config.latent_dim, config.class_count, classes)
        self.Model = Synthesis(config, stream(seed, "r3gan", "initial weights"))

    def freeze(self) -> None:
        """Freeze the weights for good, in the memory layout in which they are fastest."""
        super().freeze()
        self.Model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, size, size), nominally in [0, 1] and not clamped; `noise` is not used."""
        image: Tensor = self.Model(*self.inputs(latent))
        return (image + 1) / 2


def load_r3gan(
    path: Path,
    *,
    widths: tuple[int, ...] | None = None,
    groups: tuple[int, ...] | None = None,
    class_count: int | None = None,
    classes: ClassChoice | None = None,
) -> R3GAN:
    """Load a published generator, whose shapes say which network it is of, and freeze it; no code in the file is run.

    Args:
        path: the pickle, or safetensors of the same tensors.
        widths: channels of each stage that the file must have; None accepts any.
        groups: groups of each stage that the file must have; None accepts any.
        class_count: number of classes that the file must have; None accepts any.
        classes: see `R3GAN`.

    Raises:
        ConfigError: `classes` does not fit the file.
        ModelFileError: the file cannot be read, is not an R3GAN, or its keys or shapes do not fit together.
    """
    network, tensors, _ = read_published(path, FAMILY)
    config = _config_of(tensors, path)
    if network:
        network.require(z_dim=config.latent_dim, c_dim=config.class_count, img_resolution=config.size)
    shape = {"widths": widths and tuple(widths), "groups": groups and tuple(groups)}
    require_shape(config, shape | {"class_count": class_count}, path)
    class_shares(classes, config.class_count, path)
    model = R3GAN(config, classes=classes)
    load_strictly(model, tensors, source=path)
    return model.frozen()


def random_r3gan(*, seed: int = 0, classes: ClassChoice | None = None, **fields: Any) -> R3GAN:
    """Return a frozen network with random weights, for dry runs; `fields` are those of `R3GANConfig`.

    Raises:
        ConfigError: a field is unknown or out of range, or `classes` does not fit the network.
    """
    model = R3GAN(validate(R3GANConfig, fields), seed, classes)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ResidualBlock):
                module.LinearLayer3.Layer.weight.mul_(RANDOM_RESIDUAL)
        model.Model.AggregationLayer.Layer.weight.mul_(RANDOM_COLOURS)
    return model.frozen()


def _config_of(tensors: Mapping[str, Tensor], path: Path) -> R3GANConfig:
    """Return the shape of the network that a file's tensors are of.

    Raises:
        ModelFileError: they are of another network.
    """
    layers = [(int(match[1]), int(match[2])) for key in tensors if (match := _LAYER.fullmatch(key))]
    blocks = [max(layer for stage, layer in layers if stage == number) for number in sorted({s for s, _ in layers})]
    start = tensors.get("Model.MainLayers.0.Layers.0.LinearLayer.weight")
    embed = tensors.get("Model.EmbeddingLayer.weight")
    matrices = [value for value in (start, embed) if value is not None]
    if start is None or any(value.ndim != 2 or not value.numel() for value in matrices):
        raise ModelFileError(
            f"{path}: expected an R3GAN, which starts from a learned basis; is it another model's file?"
        )
    embedded = 0 if embed is None else embed.shape[0]
    stages: list[_Stage] = []
    for number, count in enumerate(blocks):
        stages.append(_stage(tensors, f"Model.MainLayers.{number}.Layers.", count, stages))
    inside = next((stage for stage in stages if stage.expansion), _Stage(0, 1, 1, 3))
    shape = {
        "widths": [stage.width for stage in stages],
        "groups": [stage.groups for stage in stages],
        "blocks": blocks,
        "expansion": inside.expansion,
        "kernel": inside.kernel,
        "latent_dim": start.shape[1] - embedded,
        "class_count": 0 if embed is None else embed.shape[1],
        **({"embedding_dim": embedded} if embedded else {}),
    }
    return supported_config(R3GANConfig, shape, path, FAMILY)


class _Stage(NamedTuple):
    """Shape of a stage in a file; `expansion` is 0 if it has no blocks to tell it."""

    width: int
    groups: int = 1
    expansion: int = 0
    kernel: int = 0


def _stage(tensors: Mapping[str, Tensor], prefix: str, blocks: int, below: list[_Stage]) -> _Stage:
    """Return the shape of a stage, whose layers have keys with a prefix; `below` are the stages before it."""
    narrow, wide, grouped = (
        tensors.get(f"{prefix}1.LinearLayer{number}.Layer.weight", torch.empty(0)) for number in (3, 1, 2)
    )
    if blocks and narrow.numel() and wide.numel() and grouped.ndim == 4 and grouped.numel():
        width, expanded = len(narrow), len(wide)
        return _Stage(width, expanded // grouped.shape[1], expanded // width, grouped.shape[2])
    changed = tensors.get(f"{prefix}0.LinearLayer.Layer.weight", tensors.get(f"{prefix}0.Basis"))
    if changed is not None and changed.ndim:
        return _Stage(len(changed))
    return _Stage(below[-1].width if below else 0)
