"""The diffusion autoencoder as a generator: noise of the code -> semantic code -> image.

Two deterministic samplers run one after the other: the first maps noise to a semantic code, the second maps image noise
to the image with this code. A few steps of each are enough for training; the full schedule has a thousand.

Source: *Diffusion Autoencoders: Toward a Meaningful and Decodable Representation* (Preechakul, Chatthee, Wizadwongsa,
Suwajanakorn, CVPR 2022, https://arxiv.org/abs/2111.15640). An independent implementation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptgen.errors import DataError, ModelFileError
from promptgen.generators.diffae.config import DiffAEConfig
from promptgen.generators.diffae.networks import ImageNetwork
from promptgen.generators.diffae.sampler import denoise
from promptgen.generators.published import PublishedGenerator, noise_of
from promptgen.loading.checks import load_strictly, require_fractions
from promptgen.loading.published import read_state, read_training, read_weights, under
from promptgen.seeding import stream
from promptgen.strict import validate

WEIGHTS = "ema_model."
"""Prefix of the averaged weights, which are used for sampling."""


class DiffAE(PublishedGenerator[DiffAEConfig]):
    """A diffusion autoencoder as a generator.

    Args:
        config: shape of the networks, sampling, and choice of the latent.
        seed: seed of the initial weights and of the fixed image noise.

    Attributes:
        prior: N(0, I) over the noise of the code, followed by that of the image with ``latent: code_and_noise``.
        code_mean: mean of the codes of the data, (1, style_channels).
        code_std: their standard deviation, (1, style_channels).
        fixed_noise: image noise used when neither the latent nor a random stream provides it, (1, 3, H, W).
    """

    code_mean: Tensor
    code_std: Tensor
    fixed_noise: Tensor

    def __init__(self, config: DiffAEConfig, seed: int = 0) -> None:
        super().__init__(config, config.image_size, config.latent_dim)
        self.network = ImageNetwork(config, stream(seed, "diffae", "initial weights"))
        self.register_buffer("code_mean", torch.zeros(1, config.style_channels))
        self.register_buffer("code_std", torch.ones(1, config.style_channels))
        noise_rng = stream(seed, "diffae", "fixed noise")
        self.register_buffer("fixed_noise", torch.randn(1, *self.image_shape, generator=noise_rng))

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, H, W), nominally in [0, 1]; the sampler clips them.

        Args:
            latent: noise of codes, followed by that of images with ``latent: code_and_noise``, (B, D).
            noise: stream of fresh image noise; None means the fixed noise. Unused with ``latent: code_and_noise``.

        Raises:
            DataError: the latents have the wrong number of coordinates.
        """
        self.prior.require(latent)
        code_noise, image_noise = latent.tensor_split([self.config.style_channels], dim=1)
        if self.config.latent == "code":
            image_noise = noise_of(self.fixed_noise, len(latent), noise)
        return self.decode(self.code(code_noise), image_noise.reshape(len(latent), *self.image_shape))

    def code(self, code_noise: Tensor) -> Tensor:
        """Return semantic codes, (B, style_channels), of standard normal noise of the same shape."""
        return self.normalised_code(code_noise) * self.code_std + self.code_mean

    def normalised_code(self, code_noise: Tensor) -> Tensor:
        """Return semantic codes in units of the data's standard deviation around their mean; arguments as in `code`."""
        config = self.config
        return denoise(
            self.network.latent_net,
            code_noise,
            config.latent_schedule,
            config.latent_steps,
            clip=False,
            checkpointing=config.checkpointing,
        )

    def decode(self, code: Tensor, image_noise: Tensor) -> Tensor:
        """Return images, (B, 3, H, W), in [0, 1].

        Args:
            code: semantic codes, (B, style_channels), from `code` or `encode`.
            image_noise: standard normal, (B, 3, H, W).
        """
        config = self.config
        image = denoise(
            self.network,
            image_noise,
            config.image_schedule,
            config.image_steps,
            code,
            clip=True,
            checkpointing=config.checkpointing,
        )
        return (image + 1) / 2

    def encode(self, image: Tensor) -> Tensor:
        """Return semantic codes, (B, style_channels), of images, (B, 3, H, W), in [0, 1].

        Raises:
            DataError: the images have the wrong shape.
        """
        if image.ndim != 4 or image.shape[1:] != self.image_shape:
            sides = ", ".join(map(str, self.image_shape))
            raise DataError(f"expected images of shape (B, {sides}), got {tuple(image.shape)}; resize them")
        code: Tensor = self.network.encoder(2 * image - 1)
        return code


def load_diffae(checkpoint: Path, latent: Path, /, **arguments: Any) -> DiffAE:
    """Load the two published files of an autoencoder and freeze it.

    Args:
        checkpoint: ``torch.save`` file with the entry `state_dict`, whose averaged weights are used; other entries,
            such as the state of the training, are ignored.
        latent: ``torch.save`` file with the entries `conds_mean` and `conds_std`, the mean and standard deviation of
            the codes; they replace those in the checkpoint.
        arguments: fields of `DiffAEConfig`; the defaults describe the autoencoder of faces at 256 pixels.

    Raises:
        ConfigError: an argument is unknown or out of range.
        ModelFileError: a file cannot be read, or its keys or shapes differ from the configured networks'.
    """
    model = DiffAE(validate(DiffAEConfig, arguments))
    state = read_state(checkpoint, "state_dict", read_training)
    load_strictly(model.network, under(WEIGHTS, state), source=checkpoint)
    model.code_mean.copy_(_statistic(latent, "conds_mean", model.code_mean))
    model.code_std.copy_(_statistic(latent, "conds_std", model.code_std))
    return model.frozen()


def random_diffae(seed: int = 0, **arguments: Any) -> DiffAE:
    """Return a frozen autoencoder with random weights, for dry runs and benchmarks.

    The random networks predict that nearly all of their input is noise. The images are therefore finite, have a
    plausible range, and depend slightly on the latent.

    Args:
        seed: seed of the weights and of the fixed noise.
        arguments: see `load_diffae`.

    Raises:
        ConfigError: an argument is unknown or out of range.
    """
    return DiffAE(validate(DiffAEConfig, arguments), seed).frozen()


def _statistic(path: Path, name: str, like: Tensor) -> Tensor:
    """Return a statistic of the codes, (1, style_channels), from the file published with a checkpoint."""
    content = read_weights(path)
    value = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(value, Tensor) or value.shape[-1:] != like.shape[-1:] or value.numel() != like.numel():
        actual = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        expected = f"{like.numel()} numbers under {name!r}"
        raise ModelFileError(f"{path}: expected {expected}, found {actual}; is it another model's file?")
    require_fractions({name: value}, path)
    if not bool(value.isfinite().all()):
        raise ModelFileError(f"{path}: {name!r} is not finite; fetch the file again")
    return value.reshape(like.shape)
