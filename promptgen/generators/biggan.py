"""BigGAN-deep: latent z and class embedding y -> image, with the state-dict layout of the published checkpoints.

The two are one latent, (z, y), whose prior has two scales: N(0, I) for z and N(0, s^2 I) for y, with `s` the root mean
square of the class embeddings. A flow thus finds classes, and mixtures of classes, that no label names.

Source: *Large Scale GAN Training for High Fidelity Natural Image Synthesis* (Brock, Donahue, Simonyan, ICLR 2019,
https://arxiv.org/abs/1809.11096, appendix B: BigGAN-deep). An independent implementation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptgen.errors import ModelFileError
from promptgen.frozen import FrozenModule
from promptgen.generators.base import GaussianPrior
from promptgen.generators.biggan_config import FIRST, FIRST_WIDTH, BigGANConfig, published_config, read_config
from promptgen.generators.biggan_layers import (
    Attention,
    BatchNorm,
    Block,
    ConditionalBatchNorm,
    Standing,
    fold_spectral_norm,
)
from promptgen.generators.plain import convolution, linear
from promptgen.loading.published import load_strictly, read_state
from promptgen.seeding import stream
from promptgen.strict import validate

RANDOM_GAIN = 0.1
"""Factor of the random weights by which the condition scales activations; see `random_biggan`."""

CLAMP = 2.0
"""Largest absolute coordinate of z before it is scaled by the truncation; its statistics were measured so."""


class Synthesis(nn.Module):
    """From the condition (z, y) to the image.

    Args:
        config: shape of the network.
        rng: stream of the initial weights.
    """

    def __init__(self, config: BigGANConfig, rng: torch.Generator) -> None:
        super().__init__()
        width, dim = config.channel_width, config.condition_dim
        self.gen_z = linear(dim, FIRST * FIRST * FIRST_WIDTH * width, rng)
        standing = Standing(config.n_stats, config.truncation, config.eps)
        self.layers = nn.ModuleList()
        for index, (upsample, fan_in, fan_out) in enumerate(config.layers):
            if index == config.attention_layer_position:
                self.layers.append(Attention(fan_in * width, rng))
            self.layers.append(Block(fan_in * width, fan_out * width, dim, standing, rng, upsample=upsample))
        self.bn = BatchNorm(width, standing)
        self.conv_to_rgb = convolution(width, width, 3, rng)

    def features(self, condition: Tensor) -> Iterator[Tensor]:
        """Yield the first map, (B, 16 W, 4, 4), and the output of each layer, for conditions (B, D)."""
        x = self.gen_z(condition).unflatten(1, (FIRST, FIRST, -1)).permute(0, 3, 1, 2)  # stored with channels last
        yield x
        for layer in self.layers:
            x = layer(x, condition) if isinstance(layer, Block) else layer(x)
            yield x

    def forward(self, condition: Tensor) -> Tensor:
        *_, x = self.features(condition)
        x = self.bn(x).relu()
        # The published layer has as many output channels as input channels; the image is the first three.
        image = F.conv2d(x, self.conv_to_rgb.weight[:3], self.conv_to_rgb.bias[:3], padding=1)  # type: ignore[index]
        return image.tanh()


class BigGAN(FrozenModule):
    """BigGAN-deep generator.

    Args:
        config: shape of the network and truncation.
        seed: seed of the initial weights.

    Attributes:
        prior: over (z, y), (B, z_dim + class_embed_dim): standard deviation 1 for z and, for y, the root mean square
            of the class embeddings at the time of `freeze`.
        image_shape: (3, output_dim, output_dim).
    """

    def __init__(self, config: BigGANConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.image_shape = (3, config.output_dim, config.output_dim)
        rng = stream(seed, "biggan", "initial weights")
        self.embeddings = linear(config.num_classes, config.class_embed_dim, rng, bias=False)
        self.generator = Synthesis(config, rng)
        self.prior = GaussianPrior.standard(config.condition_dim)
        self.prior.register_buffer("scale", self._prior_scale(), persistent=False)

    def freeze(self) -> None:
        """Stop training for good, and take the prior's scale from the class embeddings as they are now."""
        super().freeze()
        self.prior.scale.copy_(self._prior_scale())
        self.generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(self, classes: Tensor) -> Tensor:
        """Return the embeddings y, (B, class_embed_dim), of class numbers (B,)."""
        y: Tensor = self.embeddings.weight.T[classes]
        return y

    def truncate(self, z: Tensor) -> Tensor:
        """Return z, (B, z_dim), clamped and scaled as the truncation of the configuration says."""
        return self.config.truncation * z.clamp(-CLAMP, CLAMP)

    def conditioned(self, latent: Tensor) -> Tensor:
        """Return what the network is conditioned on, (B, D), for latents (z, y), (B, D): y stays as it is.

        Raises:
            DataError: the latents have another number of coordinates.
        """
        self.prior.require(latent)
        z, y = latent[:, : self.config.z_dim], latent[:, self.config.z_dim :]
        return torch.cat([self.truncate(z), y], dim=1)

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, output_dim, output_dim), in [0, 1]: the network ends in a tanh.

        Args:
            latent: latents (z, y), (B, z_dim + class_embed_dim), before truncation.
            noise: not used, for the image depends on the latent alone.
        """
        image: Tensor = self.generator(self.conditioned(latent))
        return (image + 1) / 2

    @torch.no_grad()
    def _prior_scale(self) -> Tensor:
        table = self.embeddings.weight
        scale = torch.ones(self.config.condition_dim, dtype=table.dtype, device=table.device)
        scale[self.config.z_dim :] = table.square().mean().sqrt()
        return scale


def load_biggan(
    path: Path, config_path: Path | None = None, truncation: float = 1.0, *, size: int | None = None
) -> BigGAN:
    """Load a published checkpoint and freeze it.

    Args:
        path: file of ``torch.save`` that is a state dict; entries that are no tensors are ignored.
        config_path: the published ``config.json``; None takes the shape published for `size` or, without one, the file
            beside `path` that is named like it, with ``config.json`` in place of ``pytorch_model.bin``.
        truncation: see `BigGANConfig`.
        size: height and width of its images, which the configuration must have; None accepts any.

    Raises:
        ConfigError: no such size was published.
        ModelFileError: a file cannot be read, its keys or shapes differ from the configured network's, or the
            configuration is for another size.
    """
    state = read_state(path)
    if config_path is None and size is not None:
        config = published_config(size, truncation)
    else:
        config = read_config(config_path or _config_beside(path), truncation)
    if size not in (None, config.output_dim):
        raise ModelFileError(
            f"{config_path}: for images of {config.output_dim} pixels, expected {size}; fetch it again"
        )
    model = BigGAN(_with_embeddings_of(state, config))
    load_strictly(model, fold_spectral_norm(state, path), source=path)
    model.freeze()
    return model


def random_biggan(size: int | None = None, truncation: float = 1.0, *, seed: int = 0, **fields: Any) -> BigGAN:
    """Return a frozen network with random weights: for dry runs and benchmarks.

    Args:
        size: 128, 256 or 512 for the shape published for that size; None takes the shape from `fields` alone.
        truncation: see `BigGANConfig`.
        seed: seed of the weights.
        fields: others of `BigGANConfig`, such as `channel_width`; they replace those published for `size`.

    Raises:
        ConfigError: no such size was published, or a field is unknown or out of range.
    """
    shape = {} if size is None else published_config(size).model_dump()
    model = BigGAN(validate(BigGANConfig, {**shape, **fields, "truncation": truncation}), seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ConditionalBatchNorm):
                module.scale.weight.mul_(RANDOM_GAIN)  # or the statistics, which were never measured, are far off
        # Every block adds about as much again; so the tanh is not saturated.
        model.generator.conv_to_rgb.weight.mul_(len(model.generator.layers) ** -0.5)
    model.freeze()
    return model


def _with_embeddings_of(state: Mapping[str, Tensor], config: BigGANConfig) -> BigGANConfig:
    """Return `config` with the length of the file's class embeddings, which the published code takes from `z_dim`."""
    table = state.get("embeddings.weight")
    if table is None or table.ndim != 2 or not len(table):
        return config
    return config.model_copy(update={"class_embed_dim": len(table)})


def _config_beside(path: Path) -> Path:
    if not path.name.endswith("pytorch_model.bin"):
        raise ModelFileError(f"{path}: say which size it has, or where its config.json is")
    return path.with_name(path.name.removesuffix("pytorch_model.bin") + "config.json")
