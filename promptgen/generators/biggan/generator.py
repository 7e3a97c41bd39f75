"""BigGAN-deep: latent z and class embedding y -> image, with the state-dict layout of the published checkpoints.

The latent is the pair (z, y). Its prior has two scales: N(0, I) for z and N(0, s^2 I) for y, where `s` is the root mean
square of the class embeddings. A flow can therefore reach mixtures of classes that no label names.

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
from promptgen.generators.base import GaussianPrior
from promptgen.generators.biggan.config import FIRST, FIRST_WIDTH, BigGANConfig, published_config, read_config
from promptgen.generators.biggan.layers import (
    Attention,
    BatchNorm,
    Block,
    ConditionalBatchNorm,
    Standing,
    fold_spectral_norm,
)
from promptgen.generators.plain import convolution, linear
from promptgen.loading.checks import load_strictly
from promptgen.loading.published import read_state
from promptgen.networks.frozen import FrozenModule
from promptgen.seeding import stream
from promptgen.strict import validate

RANDOM_GAIN = 0.1
"""Factor of the random weights through which the condition scales activations; see `random_biggan`."""

CLAMP = 2.0
"""Bound of the absolute coordinates of z before the truncation scales them; the statistics assume this bound."""


class Synthesis(nn.Module):
    """Map the condition (z, y) to the image."""

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
        """Yield the first map, (B, 16 W, 4, 4), then the output of each layer, for conditions (B, D)."""
        x = self.gen_z(condition).unflatten(1, (FIRST, FIRST, -1)).permute(0, 3, 1, 2)  # stored with channels last
        yield x
        for layer in self.layers:
            x = layer(x, condition) if isinstance(layer, Block) else layer(x)
            yield x

    def forward(self, condition: Tensor) -> Tensor:
        *_, x = self.features(condition)
        x = self.bn(x).relu()
        # The published layer has as many output channels as input channels; the first three are the image.
        image = F.conv2d(x, self.conv_to_rgb.weight[:3], self.conv_to_rgb.bias[:3], padding=1)  # type: ignore[index]
        return image.tanh()


class BigGAN(FrozenModule):
    """BigGAN-deep as a generator.

    Args:
        config: shape of the network and truncation.

    Attributes:
        prior: distribution of (z, y), (B, z_dim + class_embed_dim). The standard deviation is 1 for z; for y it is the
            root mean square of the class embeddings when `freeze` is called.
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
        """Freeze the weights for good and set the prior's scale from the current class embeddings."""
        super().freeze()
        self.prior.scale.copy_(self._prior_scale())
        self.generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(self, classes: Tensor) -> Tensor:
        """Return the embeddings y, (B, class_embed_dim), of class numbers (B,)."""
        y: Tensor = self.embeddings.weight.T[classes]
        return y

    def truncate(self, z: Tensor) -> Tensor:
        """Return z, (B, z_dim), clamped and then scaled by the configured truncation."""
        return self.config.truncation * z.clamp(-CLAMP, CLAMP)

    def conditioned(self, latent: Tensor) -> Tensor:
        """Return the network's condition, (B, D), for latents (z, y), (B, D): z is truncated, y is unchanged.

        Raises:
            DataError: the latents have the wrong number of coordinates.
        """
        self.prior.require(latent)
        z, y = latent[:, : self.config.z_dim], latent[:, self.config.z_dim :]
        return torch.cat([self.truncate(z), y], dim=1)

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, output_dim, output_dim), in [0, 1]: the network ends in a tanh; `noise` is not used."""
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
        path: ``torch.save`` file that holds a state dict; entries that are not tensors are ignored.
        config_path: the published ``config.json``. None uses the shape published for `size`; if `size` is None too, it
            reads the file whose path is `path` with ``pytorch_model.bin`` replaced by ``config.json``.
        truncation: see `BigGANConfig`.
        size: height and width of the images, which the configuration must match; None accepts any size.

    Raises:
        ConfigError: no network was published for this size.
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
            f"{config_path} configures images of {config.output_dim} pixels, expected {size}; fetch the file again"
        )
    model = BigGAN(_with_embeddings_of(state, config))
    load_strictly(model, fold_spectral_norm(state, path), source=path)
    return model.frozen()


def random_biggan(size: int | None = None, truncation: float = 1.0, *, seed: int = 0, **fields: Any) -> BigGAN:
    """Return a frozen network with random weights, for dry runs and benchmarks.

    Args:
        size: image size whose published shape to use: 128, 256 or 512; None uses `fields` alone.
        truncation: see `BigGANConfig`.
        seed: seed of the weights.
        fields: other fields of `BigGANConfig`, such as `channel_width`; they override the published shape.

    Raises:
        ConfigError: no network was published for this size, or a field is unknown or out of range.
    """
    shape = {} if size is None else published_config(size).model_dump()
    model = BigGAN(validate(BigGANConfig, {**shape, **fields, "truncation": truncation}), seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ConditionalBatchNorm):
                module.scale.weight.mul_(RANDOM_GAIN)  # keeps activations near the unmeasured statistics
        # Every block adds about the same variance; this factor keeps the tanh from saturating.
        model.generator.conv_to_rgb.weight.mul_(len(model.generator.layers) ** -0.5)
    return model.frozen()


def _with_embeddings_of(state: Mapping[str, Tensor], config: BigGANConfig) -> BigGANConfig:
    """Return `config` with the file's embedding length; the published code assumes that it equals `z_dim`."""
    table = state.get("embeddings.weight")
    if table is None or table.ndim != 2 or not len(table):
        return config
    return config.model_copy(update={"class_embed_dim": len(table)})


def _config_beside(path: Path) -> Path:
    if not path.name.endswith("pytorch_model.bin"):
        raise ModelFileError(f"{path}: cannot find its config.json; pass its image size or the path of config.json")
    return path.with_name(path.name.removesuffix("pytorch_model.bin") + "config.json")
