"""StyleNeRF: latent z and camera -> image, with the parameter names of the published files.

A radiance field, modulated by a style w, is rendered on a coarse grid of rays; blocks of 1 x 1 convolutions then
upsample colours and features to the image's size. The latent is z alone. The configuration or an argument sets the
camera. The background has its own code, which is fixed unless the caller passes a noise stream.

Source: *StyleNeRF: A Style-based 3D-Aware Generator for High-resolution Image Synthesis* (Gu, Liu, Wang, Theobalt,
ICLR 2022, https://arxiv.org/abs/2110.08985). An independent implementation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from promptgen.errors import ModelFileError
from promptgen.generators.mapping.config import MappingConfig
from promptgen.generators.mapping.network import MappingNetwork
from promptgen.generators.published import StyledGenerator, noise_of
from promptgen.generators.recomputation import recomputed
from promptgen.generators.stylenerf.config import CameraConfig, StyleNeRFConfig, config_from_settings
from promptgen.generators.stylenerf.field import BackgroundField, ForegroundField
from promptgen.generators.stylenerf.file import read_generator
from promptgen.generators.stylenerf.layers import EqualConv, ReadOut, SynthesisBlock
from promptgen.generators.stylenerf.rays import (
    Camera,
    background_positions,
    camera_at,
    cast_rays,
    opacity_weights,
    resampled,
)
from promptgen.loading.checks import load_strictly
from promptgen.networks.precision import exact
from promptgen.seeding import stream
from promptgen.strict import validate

ALPHA = "synthesis.alpha"
"""Key of the progress of progressive growing in published files."""

FILTER = ".resample_filter"
"""Key suffix of a filter that published files also store for layers that do not resample."""

RANDOM_DENSITY = 200.0
"""Factor of the random weights of the density layer; see `random_stylenerf`."""

RANDOM_COLOURS = 0.3
"""Factor of the random weights of the colour layers."""


@dataclass(frozen=True)
class Rendering:
    """Volume rendering of the foreground and background fields.

    Attributes:
        image: colours, (B, 3, r, r), nominally in [-1, 1].
        features: features, (B, C, r, r).
        depths: depths of the foreground samples, (B, r^2, S), ascending, in lengths of the ray to the image plane.
        weights: weight of each foreground sample in the ray's colour, (B, r^2, S).
        transmittance: fraction of the background's light that reaches the camera, (B, r^2).
        background_weights: weight of each background sample in the background's colour, (B, r^2, S').
    """

    image: Tensor
    features: Tensor
    depths: Tensor
    weights: Tensor
    transmittance: Tensor
    background_weights: Tensor


class Synthesis(nn.Module):
    """Map style, background code and camera to the image."""

    def __init__(self, config: StyleNeRFConfig, rng: torch.Generator) -> None:
        super().__init__()
        self.config = config
        dim, features = config.style_dim, config.feature_channels
        self.fg_nerf = ForegroundField(config.foreground, dim, features, rng)
        self.bg_nerf = BackgroundField(config.background, config.background_dim, features, rng)
        widths = [features, *(config.channels_at(size) for size in config.block_sizes)]
        for size, (fan_in, fan_out) in zip(config.block_sizes, itertools.pairwise(widths), strict=True):
            self.add_module(f"b{size}", SynthesisBlock(fan_in, fan_out, dim, rng, config.clamp))

    @exact
    def render(self, w: Tensor, code: Tensor, camera: Camera) -> Rendering:
        """Render the fields for styles, (B, style_dim), and background codes, (B, background_dim)."""
        size = self.config.volume_size
        origins, directions = (part.expand(len(w), -1, -1) for part in cast_rays(camera, size))
        foreground, depths, weights, transmittance = self._foreground(w, origins, directions)
        background, background_weights = self._background(code, origins, directions)
        maps = (foreground + transmittance[..., None] * background).mT.reshape(len(w), -1, size, size)
        return Rendering(maps[:, :3], maps[:, 3:], depths, weights, transmittance, background_weights)

    def images(self, rendering: Rendering, w: Tensor) -> Iterator[Tensor]:
        """Yield the image at each size, (B, 3, r, r), nominally in [-1, 1], from the rendering's to the final one."""
        image, x = rendering.image, rendering.features.permute(0, 2, 3, 1)
        yield image
        for size in self.config.block_sizes:
            x, image = recomputed(self.get_submodule(f"b{size}"), x, image, w)
            yield image

    def forward(self, w: Tensor, code: Tensor, camera: Camera) -> Tensor:
        *_, image = self.images(self.render(w, code, camera), w)
        return image

    def _foreground(self, w: Tensor, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return features of rays, (B, R, C), and depths, weights and transmittance as in `Rendering`."""
        steps = torch.linspace(0, 1, self.config.ray_samples, dtype=w.dtype, device=w.device)
        fractions = steps.expand(*directions.shape[:2], -1)
        density, hidden = self._sampled(fractions, origins, directions, w)
        if self.config.resample:
            fine = resampled(steps, self._weighted(density, fractions, directions)[0])
            sampled = self._sampled(fine, origins, directions, w)
            density, hidden = (torch.cat(pair, dim=2) for pair in zip(sampled, (density, hidden), strict=True))
            fractions = torch.cat([fine, fractions], dim=2)
        fractions, order = fractions.sort(dim=2)
        weights, transmittance = self._weighted(density.gather(2, order), fractions, directions)
        # Scattering the weights into the samples' order is cheaper than sorting the samples' hidden values.
        by_sample = torch.zeros_like(weights).scatter(2, order, weights)
        summed = (by_sample[:, :, None] @ hidden)[:, :, 0]  # (B, R, width)
        features = self.fg_nerf.features(summed, weights.sum(dim=2, keepdim=True), w)
        return features, self._depths(fractions), weights, transmittance

    def _background(self, code: Tensor, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of rays, (B, R, C), and weights as in `Rendering`."""
        start, number = self.config.background_start, self.config.background_samples
        inverse = start * torch.linspace(1, 0, number, dtype=code.dtype, device=code.device)
        positions = background_positions(origins, directions, inverse)
        density, hidden = recomputed(self.bg_nerf, positions, code)
        weights, _ = opacity_weights(density, inverse[:-1] - inverse[1:], last=1.0)
        summed = (weights[:, :, None] @ hidden)[:, :, 0]
        return self.bg_nerf.features(summed, weights.sum(dim=2, keepdim=True)), weights

    def _sampled(self, fractions: Tensor, origins: Tensor, directions: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return the foreground's density, (B, R, S), and hidden values, (B, R, S, width)."""
        positions = origins[:, :, None] + self._depths(fractions)[..., None] * directions[:, :, None]
        density, hidden = recomputed(self.fg_nerf, positions, w)
        return density, hidden

    def _depths(self, fractions: Tensor) -> Tensor:
        near, far = self.config.depth_range
        return far * fractions + near * (1 - fractions)

    def _weighted(self, density: Tensor, fractions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        distances = self._depths(fractions).diff(dim=2) * directions.norm(dim=2, keepdim=True)
        return opacity_weights(density, distances, last=0.0)


class StyleNeRF(StyledGenerator[StyleNeRFConfig]):
    """StyleNeRF as a generator.

    Args:
        config: shape of the network, truncation and camera.
        seed: seed of the initial weights and of the fixed background.
    """

    family = "stylenerf"
    fixed_code: Tensor

    def __init__(self, config: StyleNeRFConfig, seed: int = 0) -> None:
        super().__init__(config, config.image_size, config.latent_dim, 0, None)
        code = torch.randn(1, config.background_dim, generator=stream(seed, "stylenerf", "background"))
        self.register_buffer("fixed_code", code, persistent=False)
        rng = stream(seed, "stylenerf", "initial weights")
        mapping = config.model_dump(include={"latent_dim", "style_dim", "mapping_layers"})
        self.mapping = MappingNetwork(MappingConfig(**mapping), rng)
        self.synthesis = Synthesis(config, rng)

    def backgrounds(self, n: int, noise: torch.Generator | None = None) -> Tensor:
        """Return `n` background codes, (n, background_dim): drawn from `noise`, or the fixed code if it is None."""
        return noise_of(self.fixed_code, n, noise)

    def camera(self, yaw: Tensor | float, pitch: Tensor | float) -> Camera:
        """Return cameras that look at the head.

        Args:
            yaw: radians sideways from the centre of the training range, (B,) or one number.
            pitch: radians upwards from the centre of the training range, (B,) or one number.
        """
        config = self.config
        yaws, pitches = (torch.as_tensor(angle).to(self.fixed_code).reshape(-1) for angle in (yaw, pitch))
        n = max(len(yaws), len(pitches))
        yaws, polar = sum(config.yaw_range) / 2 + yaws, sum(config.polar_range) / 2 - pitches
        return camera_at(yaws.expand(n), polar.expand(n), config.radius, config.field_of_view)

    def trained_cameras(self, n: int, rng: torch.Generator) -> Camera:
        """Draw `n` cameras from the distribution used in training."""
        shape = (2, n)
        if self.config.gaussian:
            offsets = torch.randn(shape, generator=rng, device=rng.device)
        else:
            offsets = 2 * torch.rand(shape, generator=rng, device=rng.device) - 1
        (left, right), (top, bottom) = self.config.yaw_range, self.config.polar_range
        return self.camera(offsets[0] * (right - left) / 2, offsets[1] * (bottom - top) / 2)

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None, camera: Camera | None = None) -> Tensor:
        """Return images, (B, 3, image_size, image_size), nominally in [0, 1] and not clamped.

        Args:
            latent: latents z, (B, latent_dim).
            noise: stream of fresh backgrounds; None means the fixed background, so that the image depends on latent and
                camera alone.
            camera: cameras of the batch; None means the configured camera.
        """
        w = self.styles(latent)
        if camera is None:
            camera = self.camera(self.config.camera.yaw, self.config.camera.pitch)
        image: Tensor = self.synthesis(w, self.backgrounds(len(w), noise), camera)
        return (image + 1) / 2


def load_stylenerf(
    path: Path,
    truncation: float = 1.0,
    *,
    camera: CameraConfig | Mapping[str, float] | None = None,
    resample: bool | None = None,
) -> StyleNeRF:
    """Load a published generator and freeze it, without running any code in the file.

    Args:
        path: see `read_generator`.
        truncation: see `StyleNeRFConfig`.
        camera: position of the camera, see `CameraConfig`; None means the centre of the training range.
        resample: whether rays are resampled, see `StyleNeRFConfig`; None uses the file's setting, which is true in the
            published files. Without resampling, the image is continuous in the latent, costs about half as much and is
            slightly less sharp.

    Raises:
        ModelFileError: the file cannot be read, is not a StyleNeRF, or its keys or shapes do not match its settings.
    """
    settings, tensors = read_generator(path)
    alpha = tensors.pop(ALPHA, None)
    if alpha is None or alpha.numel() != 1:
        raise ModelFileError(f"{path}: expected one number under {ALPHA!r}; is it another model's file?")
    camera = camera.model_dump() if isinstance(camera, CameraConfig) else camera
    config = config_from_settings(settings, float(alpha), path, truncation=truncation, camera=camera, resample=resample)
    model = StyleNeRF(config)
    keys = model.state_dict().keys()
    state = {key: value for key, value in tensors.items() if key in keys or not key.endswith(FILTER)}
    load_strictly(model, state, source=path)
    return model.frozen()


def random_stylenerf(seed: int = 0, **arguments: Any) -> StyleNeRF:
    """Return a frozen network with random weights, for dry runs; `arguments` are those of `StyleNeRFConfig`.

    Raises:
        ConfigError: a field is unknown or out of range.
    """
    model = StyleNeRF(validate(StyleNeRFConfig, arguments), seed)
    _temper(model.synthesis)
    if model.config.truncation != 1:
        model.measure_mean_w(seed=seed)
    return model.frozen()


@torch.no_grad()
def _temper(synthesis: Synthesis) -> None:
    """Scale random weights so that the head is not transparent and the colours are not saturated."""
    synthesis.fg_nerf.sigma_out.weight.mul_(RANDOM_DENSITY)
    blocks = [module for module in synthesis.modules() if isinstance(module, SynthesisBlock)]
    readers: list[EqualConv | ReadOut] = [synthesis.fg_nerf.to_rgb, synthesis.bg_nerf.to_rgb]
    for layer in readers + [block.torgb for block in blocks]:
        layer.weight.mul_(RANDOM_COLOURS / (len(blocks) + 1) ** 0.5)
