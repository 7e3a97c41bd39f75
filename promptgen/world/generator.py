"""The world's generator: a small StyleGAN2 whose latents have known true attributes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from promptgen.errors import CheckpointError
from promptgen.generators.stylegan2.generator import StyleGAN2, StyleGAN2Config
from promptgen.generators.stylegan2.layers import GAIN, LEAK, MappingLayer
from promptgen.loading.own_files import building, fill_module, load_tensors, save_module
from promptgen.networks.frozen import FrozenModule
from promptgen.seeding import stream
from promptgen.world.scene import ATTRIBUTES, COORDINATES, Scene, SceneConfig

CHANNELS = {4: 96, 8: 96, 16: 96, 32: 64, 64: 24}
MAPPING_LAYERS = 4
FIXED_LAYERS = 2
"""Mapping layers that compute the scene's code and are not trained."""


class WorldGenerator(FrozenModule):
    """A StyleGAN2 that was trained to show what the scene's latents stand for, and the truth about them.

    Attributes:
        prior: N(0, I), (B, D).
        image_shape: (3, 64, 64).
        attributes: class labels of each attribute, in the order of the true indices.
    """

    attributes = ATTRIBUTES

    def __init__(self, network: StyleGAN2, scene: Scene) -> None:
        super().__init__()
        self.network = network
        self.scene = scene
        self.prior = network.prior
        self.image_shape = network.image_shape

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, 64, 64), nominally in [0, 1], of latents (B, D)."""
        image: Tensor = self.network(latent, noise=noise)
        return image

    def truth(self, latent: Tensor) -> Mapping[str, Tensor]:
        """Return the true class index, (B,) int64, of each attribute for latents (B, D)."""
        return self.scene.truth(latent)


def save_generator(path: Path, generator: WorldGenerator) -> None:
    """Write the weights, the network's shape and the scene to one file."""
    config = {
        "kind": "world-generator",
        "network": generator.network.config.model_dump(mode="json"),
        "scene": generator.scene.config.model_dump(mode="json"),
    }
    save_module(path, generator.network, config)


def load_generator(path: Path, truncation: float = 1.0) -> WorldGenerator | StyleGAN2:
    """Return the frozen generator of a file that `save_generator` wrote.

    Args:
        path: the file.
        truncation: truncation in w. Below 1 the image of a latent is not what the latent stands for any more, so a
            plain StyleGAN2 comes back, which knows no truth.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something else.
    """
    tensors, config = load_tensors(path)
    if config.get("kind") != "world-generator":
        raise CheckpointError(f"{path} holds {config.get('kind', 'weights')}, expected a world-generator")
    with building(tensors, config.get("network"), path):
        network = StyleGAN2(StyleGAN2Config.model_validate(config["network"] | {"truncation": truncation}))
        scene = SceneConfig.model_validate(config["scene"])
    fill_module(network, tensors, path)
    network.freeze()
    if truncation != 1:
        return network
    return WorldGenerator(network, Scene(scene)).frozen()


def untrained(scene: Scene, seed: int = 0, channels: dict[int, int] | None = None) -> StyleGAN2:
    """Return a StyleGAN2 for `scene` whose first mapping layers compute the scene's code, and whose rest is random."""
    config = StyleGAN2Config(
        size=64, latent_dim=scene.config.latent_dim, mapping_layers=MAPPING_LAYERS, channels=channels or CHANNELS
    )
    network = StyleGAN2(config, seed)
    first, second, third = (cast(MappingLayer, network.style[i]) for i in (1, 2, 3))
    with torch.no_grad():
        for layer, (weight, bias) in zip((first, second), _scene_layers(scene), strict=True):
            layer.weight.copy_(weight / layer.scale)
            layer.bias.copy_(bias / layer.rate)
            layer.requires_grad_(False)
        code = network.style[:3](network.prior.sample(4096, stream(seed, "world", "code")))
        third.bias.copy_(-(third.weight * third.scale) @ code.mean(dim=0) / third.rate)
    return network


def _scene_layers(scene: Scene) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return weight and bias of two leaky-ReLU layers that compute every ramp of the scene and carry every coordinate.

    A ramp is exact: lrelu(x + 1) - lrelu(x - 1) is constant outside [-1, 1] and linear inside. A coordinate is carried
    by a bias that keeps it positive.
    """
    dim = scene.config.latent_dim
    ramp = scene.config.ramp
    shift = math.sqrt(dim) + 0.5
    low, span = 2 * LEAK, 2 - 2 * LEAK  # of lrelu(x + 1) - lrelu(x - 1) at x = -1, and from there to x = 1
    w1, b1, w2, b2 = torch.zeros(dim, dim), torch.zeros(dim), torch.zeros(dim, dim), torch.zeros(dim)
    free1, free2 = iter(range(dim)), iter(range(dim))

    def step(row: int, out: Tensor, scale: float) -> float:
        """Add `scale` times the ramp held by units (row, row + 1) to the weights `out`; return the bias this needs."""
        out[row] += 2 * scale / span / GAIN
        out[row + 1] -= 2 * scale / span / GAIN
        return -scale * (2 * low / span + 1)

    carried = {}
    for name in COORDINATES:
        carried[name] = unit = next(free1)
        w1[unit], b1[unit] = scene.rotation[scene.index[name]], shift
    ramps = {name: list(_ramp_units(scene, name, free1, w1, b1)) for name in ATTRIBUTES if name != "makeup"}
    for name in COORDINATES:
        unit = next(free2)
        w2[unit, carried[name]], b2[unit] = 0.5 / GAIN, 5.0 - 0.5 * shift
    for rows in ramps.values():
        for row in rows:
            unit = next(free2)
            b2[unit] = 2.0 + step(row, w2[unit], 1.0)
    short, long = scene.thresholds["makeup"].tolist()
    for offset in (1.0, -1.0):
        unit = next(free2)
        w2[unit, carried["makeup"]] = 1 / GAIN / ramp
        b2[unit] = (-shift - (short + long) / 2) / ramp + offset
        b2[unit] += step(ramps["hair"][0], w2[unit], -(long - short) / 2 / ramp)
    return (w1, b1), (w2, b2)


def _ramp_units(scene: Scene, name: str, free: Iterator[int], weight: Tensor, bias: Tensor) -> Iterator[int]:
    """Set two units for each threshold of an attribute; give the number of the first."""
    for threshold in scene.thresholds[name].tolist():
        units = next(free), next(free)
        for unit, offset in zip(units, (1.0, -1.0), strict=True):
            weight[unit] = scene.rotation[scene.index[name]] / scene.config.ramp
            bias[unit] = -threshold / scene.config.ramp + offset
        yield units[0]
