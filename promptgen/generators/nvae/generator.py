"""NVAE's decoder: noise of groups of latents -> image, with the state-dict layout of the published checkpoints.

Group i of the latents is ``z_i = mu_i + t sigma_i eps_i``, where `mu_i` and `sigma_i` are functions of all earlier
groups, `t` is the temperature and `eps_i` is standard normal. The generator's latent is the `eps` of the chosen groups,
so its prior is N(0, I); see `NVAEConfig.groups`.

Source: *NVAE: A Deep Hierarchical Variational Autoencoder* (Vahdat, Kautz, NeurIPS 2020,
https://arxiv.org/abs/2007.03898). An independent implementation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from promptgen.errors import ModelFileError
from promptgen.generators.nvae.config import CELLS, Groups, NVAEConfig, config_from_options
from promptgen.generators.nvae.layers import Cell, Combiner, fold_weight_norm
from promptgen.generators.nvae.output import mean_image, soft_clamp
from promptgen.generators.plain import convolution
from promptgen.generators.published import PublishedGenerator, noise_of
from promptgen.generators.recomputation import recomputed
from promptgen.loading.checks import load_strictly, require_numbers
from promptgen.loading.published import json_object, read_weights, state_of
from promptgen.networks.precision import widened
from promptgen.seeding import stream
from promptgen.strict import validate

SMALLEST_DEVIATION = 0.01
"""Constant added to the standard deviation of each group."""

DECODER = ("prior_ftr0", "dec_tower.", "dec_sampler.", "post_process.", "image_conditional.")
"""Prefixes of the decoder's keys in a published state dict; all others belong to the encoder."""

COPIES = ".weight_normalized"
COUNTERS = ".num_batches_tracked"


@dataclass(frozen=True)
class Decoded:
    """Output of the decoder.

    Attributes:
        output: parameters of each pixel's distribution, (B, C, H, W).
        means: mean of each group's latent, (B, c, h, w), from coarse to fine.
        deviations: standard deviation of each group's latent times the temperature, (B, c, h, w).
    """

    output: Tensor
    means: list[Tensor]
    deviations: list[Tensor]


class NVAE(PublishedGenerator[NVAEConfig]):
    """NVAE's decoder as a generator; the image is the mean of the decoder's pixel distribution.

    Args:
        config: shape of the network, chosen groups and temperature.
        seed: seed of the initial weights and of the fixed noise of the groups that are not chosen.

    The latent is the flattened and concatenated noise of the chosen groups.
    """

    def __init__(self, config: NVAEConfig, seed: int = 0) -> None:
        shapes = [torch.Size(shape) for shape in config.latent_shapes]
        super().__init__(config, config.image_size, sum(shapes[index].numel() for index in config.chosen))
        noise_rng = stream(seed, "nvae", "fixed noise")
        self.fixed = nn.Module()
        for index, shape in enumerate(shapes):
            noise = torch.randn(1, *shape, generator=noise_rng)
            self.fixed.register_buffer(f"noise_{index}", noise, persistent=False)
        rng = stream(seed, "nvae", "initial weights")
        top = config.latent_shapes[0][1:]
        self.prior_ftr0 = nn.Parameter(torch.rand(config.top_channels, *top, generator=rng))
        self.dec_tower = nn.ModuleList()
        self.dec_sampler = nn.ModuleList()
        width = self._build_tower(rng)
        width = self._build_post_process(width, rng)
        fan_out = 10 * config.mixtures if config.mixtures > 1 else 6
        self.image_conditional = nn.Sequential(nn.ELU(), convolution(width, fan_out, 3, rng))

    def freeze(self) -> None:
        """Freeze the weights for good."""
        super().freeze()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def decode(self, noises: Sequence[Tensor]) -> Decoded:
        """Decode the noise of all groups, each (B, c, h, w), from coarse to fine.

        For the backward pass, features between groups are stored and those within a group are recomputed.
        """
        x = self.prior_ftr0.expand(len(noises[0]), -1, -1, -1)
        means: list[Tensor] = []
        deviations: list[Tensor] = []
        for index, (layers, noise) in enumerate(zip(self._layers_of_groups(), noises, strict=True)):
            x, mean, deviation = recomputed(partial(self._group, index, layers), x, noise)
            means.append(mean)
            deviations.append(deviation)
        for layer in self.post_process:
            x = recomputed(layer, x)
        return Decoded(self.image_conditional(x), means, deviations)

    def noises(self, latent: Tensor, noise: torch.Generator | None = None) -> list[Tensor]:
        """Return the noise of all groups, each (B, c, h, w): from the latent if chosen, otherwise fixed or fresh.

        Args:
            latent: noise of the chosen groups, (B, D).
            noise: stream of fresh noise for the other groups; None means their fixed noise.

        Raises:
            DataError: the latents have the wrong number of coordinates.
        """
        self.prior.require(latent)
        noises = [self._default_noise(index, latent, noise) for index in range(len(self.config.latent_shapes))]
        start = 0
        for index in self.config.chosen:
            shape = torch.Size(self.config.latent_shapes[index])
            noises[index] = latent[:, start : start + shape.numel()].reshape(len(latent), *shape)
            start += shape.numel()
        return noises

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, H, W), nominally in [0, 1] and not clamped.

        Args:
            latent: noise of the chosen groups, (B, D).
            noise: stream of fresh noise for the other groups; None means their fixed noise.
        """
        return mean_image(widened(self.decode(self.noises(latent, noise)).output), self.config.mixtures)

    @torch.no_grad()
    def estimate_statistics(self, passes: int, batch: int = 16) -> None:
        """Re-estimate the running statistics of all batch normalisations from samples at the configured temperature.

        The published recipe uses 500 passes before sampling at a temperature below 1; without them, samples at such a
        temperature look worse.
        """
        normalisations = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        rng = stream(0, "nvae", "statistics")
        for module in normalisations:
            module.train()
        for _ in range(passes):
            self(self.prior.sample(batch, rng), noise=rng)
        for module in normalisations:
            module.eval()

    def _layers_of_groups(self) -> Iterator[list[nn.Module]]:
        """Yield the layers of each group, from coarse to fine: its cells, then its combiner."""
        layers: list[nn.Module] = []
        for layer in self.dec_tower:
            layers.append(layer)
            if isinstance(layer, Combiner):
                yield layers
                layers = []

    def _group(self, index: int, layers: list[nn.Module], x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features after a group, (B, C, H, W), and its mean and standard deviation, (B, c, h, w)."""
        *cells, combiner = layers
        for cell in cells:
            x = cell(x)
        mean, deviation = self._distribution(index, x)
        return combiner(x, mean + deviation * noise), mean, deviation

    def _distribution(self, index: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of a group, (B, c, h, w), computed from the features before it."""
        if index:
            read = widened(self.dec_sampler[index - 1](x))
            mean, log_deviation = (soft_clamp(half) for half in read.chunk(2, dim=1))
        else:
            mean = log_deviation = x.new_zeros(len(x), *self.config.latent_shapes[0])
        return mean, self.config.temperature * (log_deviation.exp() + SMALLEST_DEVIATION)

    def _default_noise(self, index: int, latent: Tensor, rng: torch.Generator | None) -> Tensor:
        """Return fixed or fresh noise for a group; a chosen group gets its fixed noise, which the latent replaces."""
        drawn = None if index in self.config.chosen else rng
        return noise_of(self.fixed.get_buffer(f"noise_{index}"), len(latent), drawn)

    def _build_tower(self, rng: torch.Generator) -> int:
        """Add the cells and combiners of all groups; return the number of output channels."""
        config, (operations, _) = self.config, CELLS[self.config.architecture]
        width = config.top_channels
        for scale, number in enumerate(config.groups_by_scale):
            if scale:
                self.dec_tower.append(Cell(width, width // 2, operations, rng, squeeze=config.squeeze, upsample=True))
                width //= 2
            for group in range(number):
                if scale or group:
                    for _ in range(config.cells_per_group):
                        cell = Cell(width, width, operations, rng, squeeze=config.squeeze, upsample=False)
                        self.dec_tower.append(cell)
                    sampler = convolution(width, 2 * config.latent_channels, 1, rng)
                    self.dec_sampler.append(nn.Sequential(nn.ELU(), sampler))
                self.dec_tower.append(Combiner(width, config.latent_channels, rng))
        return width

    def _build_post_process(self, width: int, rng: torch.Generator) -> int:
        """Add the blocks after the groups; return the number of output channels."""
        config, (_, operations) = self.config, CELLS[self.config.architecture]
        self.post_process = nn.ModuleList()
        for _ in range(config.postprocess_blocks):
            for cell in range(config.postprocess_cells):
                fan_out = width if cell else width // 2
                layer = Cell(width, fan_out, operations, rng, squeeze=config.squeeze, upsample=not cell)
                self.post_process.append(layer)
                width = fan_out
        return width


def load_nvae(path: Path, temperature: float = 1.0, groups: Groups = (0,), *, statistics_passes: int = 0) -> NVAE:
    """Load a published checkpoint and freeze it.

    Args:
        path: ``torch.save`` file with the entries `args`, the options of its training, and `state_dict`; other entries
            and the encoder's weights are ignored.
        temperature: see `NVAEConfig`.
        groups: see `NVAEConfig`.
        statistics_passes: passes of `NVAE.estimate_statistics`; 0 keeps the statistics in the file.

    Raises:
        ModelFileError: the file cannot be read, is not an NVAE, or its keys or shapes do not match its options.
    """
    options, state = _read(path)
    config = config_from_options(
        options, tuple(state["prior_ftr0"].shape), path, temperature=temperature, groups=groups
    )
    require_numbers(config.top_channels**2, state, path)  # a lower bound: each combiner and cell has as many
    model = NVAE(config)
    counters = {key: value for key, value in model.state_dict().items() if key.endswith(COUNTERS)}
    needed = {key: value for key, value in state.items() if key.startswith(DECODER)}
    load_strictly(model, fold_weight_norm(needed, path) | counters, source=path)
    model.freeze()
    if statistics_passes:
        model.estimate_statistics(statistics_passes)
    return model


def random_nvae(*, seed: int = 0, statistics_passes: int = 0, **fields: Any) -> NVAE:
    """Return a frozen network with random weights, for dry runs; `fields` are those of `NVAEConfig`.

    Raises:
        ConfigError: a field is unknown or out of range.
    """
    model = NVAE(validate(NVAEConfig, fields), seed)
    _temper(model)
    model.freeze()
    if statistics_passes:
        model.estimate_statistics(statistics_passes)
    return model


@torch.no_grad()
def _temper(model: NVAE) -> None:
    """Scale random weights so that images are not saturated and visibly depend on the first group's latents."""
    latents = model.config.latent_channels
    for layer in model.modules():
        if isinstance(layer, Combiner):  # keep the features' scale; the latents would soon drown them
            weight = layer.conv.weight
            features = weight.shape[1] - latents
            weight[:, :features] *= (weight.shape[1] / features) ** 0.5
            weight[:, features:] *= (features / latents) ** 0.5 if layer is model.dec_tower[0] else 0.1
    for sampler in model.dec_sampler:
        sampler.get_parameter("1.weight").mul_(0.1)  # deviations are exponentials and compound over the groups


def _read(path: Path) -> tuple[object, dict[str, Tensor]]:
    """Return the options and the state dict of a checkpoint, without copied weights and batch counters."""
    content = read_weights(path)
    if not isinstance(content, Mapping) or "args" not in content:
        entries = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise ModelFileError(f"{path}: expected the entries 'args' and 'state_dict', found {entries}")
    state, options = state_of(content, "state_dict", path), content["args"]
    if isinstance(options, str):  # the metadata of a safetensors file
        options = json_object(options, "args", path)
    if "prior_ftr0" not in state or state["prior_ftr0"].ndim != 3:
        raise ModelFileError(f"{path}: expected maps under 'prior_ftr0' in 'state_dict'; is it another model's file?")
    return options, {key: value for key, value in state.items() if not key.endswith((COPIES, COUNTERS))}
