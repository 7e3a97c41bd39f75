"""The three networks of a diffusion autoencoder, with the state-dict layout of the published checkpoints.

Source: *Diffusion Autoencoders: Toward a Meaningful and Decodable Representation* (Preechakul, Chatthee, Wizadwongsa,
Suwajanakorn, CVPR 2022, https://arxiv.org/abs/2111.15640). An independent implementation.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from promptgen.generators.diffae.config import DiffAEConfig, LatentNetworkConfig
from promptgen.generators.diffae.layers import (
    Attention,
    ConditionedBlock,
    Resample,
    ResidualBlock,
    Stage,
    TimeEmbedding,
    double,
    group_norm,
    halve,
    waves,
)
from promptgen.generators.plain import convolution, linear
from promptgen.networks.precision import exact

INITIAL_REMAINDER = 0.1
"""Scale of the random part of an untrained network, which is added to the guess that its whole input is noise."""


class LatentLayer(nn.Module):
    """Linear layer whose outputs are scaled by the time step, then normalisation and activation."""

    def __init__(self, fan_in: int, code_dim: int, config: LatentNetworkConfig, rng: torch.Generator) -> None:
        super().__init__()
        self.bias = config.condition_bias
        self.linear = linear(fan_in, config.width, rng)
        self.linear_emb = linear(code_dim, config.width, rng)
        # The published files hold the same weights under this second name, too.
        self.cond_layers = nn.Sequential(nn.SiLU(), self.linear_emb)
        self.norm = nn.LayerNorm(config.width) if config.layer_norm else nn.Identity()
        self.act = nn.SiLU()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        result: Tensor = self.act(self.norm(self.linear(x) * (self.bias + self.cond_layers(embedding))))
        return result


class LastLatentLayer(nn.Module):
    """The last linear layer, nested one level deeper to match the published names."""

    def __init__(self, fan_in: int, code_dim: int, rng: torch.Generator) -> None:
        super().__init__()
        self.linear = linear(fan_in, code_dim, rng)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        result: Tensor = self.linear(x)
        return result


class LatentNetwork(nn.Module):
    """Predict the noise in a noisy, standardised code."""

    def __init__(self, config: LatentNetworkConfig, code_dim: int, rng: torch.Generator) -> None:
        super().__init__()
        self.config = config
        embed = [linear(config.time_channels, code_dim, rng), nn.SiLU(), linear(code_dim, code_dim, rng)]
        self.time_embed = nn.Sequential(*embed)
        first = LatentLayer(code_dim, code_dim, config, rng)
        fans = [config.width + (code_dim if index in config.skips else 0) for index in range(1, config.layers)]
        middle = [LatentLayer(fan_in, code_dim, config, rng) for fan_in in fans[:-1]]
        last = LastLatentLayer(fans[-1], code_dim, rng)
        self.layers = nn.ModuleList([first, *middle, last])
        with torch.no_grad():
            weight = last.linear.weight.mul_(INITIAL_REMAINDER)
            if config.layers - 1 in config.skips:
                weight[:, -code_dim:].diagonal().fill_(1.0)

    @exact
    def forward(self, x: Tensor, step: int) -> Tensor:
        """Return the predicted noise, (B, code_dim), in noisy codes at a time step of the full schedule."""
        embedding = self.time_embed(waves(step, self.config.time_channels, x))
        hidden = x
        for index, layer in enumerate(self.layers):
            hidden = torch.cat([hidden, x], dim=1) if index in self.config.skips else hidden
            hidden = layer(hidden, embedding)
        return hidden


class Encoder(nn.Module):
    """Map an image to its semantic code."""

    def __init__(self, config: DiffAEConfig, rng: torch.Generator) -> None:
        super().__init__()
        widths, size = config.encoder_channels, config.image_size
        layers: list[nn.Module] = [convolution(3, widths[0], 3, rng)]
        width = widths[0]
        for level, fan_out in enumerate(widths):
            if level:
                layers.append(ResidualBlock(width, width, rng, halve))
                size //= 2
            for _ in range(config.residual_blocks):
                attention = [Attention(fan_out, rng)] if size in config.attention_resolutions else []
                layers.append(nn.Sequential(ResidualBlock(width, fan_out, rng), *attention))
                width = fan_out
        # The published names expect a sequence, even around a single layer.
        self.input_blocks = nn.ModuleList(
            layer if isinstance(layer, nn.Sequential) else nn.Sequential(layer) for layer in layers
        )
        middle = [ResidualBlock(width, width, rng), Attention(width, rng), ResidualBlock(width, width, rng)]
        self.middle_block = nn.Sequential(*middle)
        pooled = [group_norm(width), nn.SiLU(), nn.AdaptiveAvgPool2d(1)]
        self.out = nn.Sequential(*pooled, convolution(width, config.style_channels, 1, rng), nn.Flatten())

    def forward(self, image: Tensor) -> Tensor:
        """Return codes, (B, style_channels), of images, (B, 3, H, W), in [-1, 1]."""
        x = image
        for layer in self.input_blocks:
            x = layer(x)
        code: Tensor = self.out(self.middle_block(x))
        return code


class ImageNetwork(nn.Module):
    """U-net that predicts the noise in a noisy image, conditioned on the semantic code.

    The encoder and the latent network are submodules, as in the published state dict.
    """

    def __init__(self, config: DiffAEConfig, rng: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.time_embed = TimeEmbedding(config.base_channels, config.embedding, rng)
        widths = config.channels
        self._build_down(widths, rng)
        middle = [self._block(widths[-1], widths[-1], rng) for _ in range(2)]
        self.middle_block = Stage(middle[0], Attention(widths[-1], rng), middle[1])
        self._build_up(widths, rng)
        self.out = nn.Sequential(group_norm(widths[0]), nn.SiLU(), convolution(widths[0], 3, 3, rng))
        self.encoder = Encoder(config, rng)
        self.latent_net = LatentNetwork(config.latent_network, config.style_channels, rng)
        self._guess_noise()

    def forward(self, x: Tensor, step: int, code: Tensor) -> Tensor:
        """Return the predicted noise, (B, 3, H, W), in noisy images.

        Args:
            x: noisy images, (B, 3, H, W).
            step: time step of the full schedule.
            code: semantic codes, (B, style_channels).
        """
        embedding = self.time_embed(step, x)
        skips: list[Tensor] = []
        for stage in self.input_blocks:
            x = stage(x, embedding, code)
            skips.append(x)
        x = self.middle_block(x, embedding, code)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), embedding, code)
        return self._noise(x)

    @exact
    def _noise(self, x: Tensor) -> Tensor:
        # What the first steps predict is divided by the little signal that is left, and its rounding with it.
        noise: Tensor = self.out(x)
        return noise

    def _build_down(self, widths: list[int], rng: torch.Generator) -> None:
        self.input_blocks = nn.ModuleList([Stage(convolution(3, widths[0], 3, rng))])
        width = widths[0]
        for level, fan_out in enumerate(widths):
            if level:
                self.input_blocks.append(Stage(self._block(width, width, rng, halve)))
            for _ in range(self.config.residual_blocks):
                self.input_blocks.append(Stage(self._block(width, fan_out, rng), *self._attention(level, rng)))
                width = fan_out

    def _build_up(self, widths: list[int], rng: torch.Generator) -> None:
        """Add the upsampling half: one block for each stage of the other half, whose features it receives, too."""
        self.output_blocks = nn.ModuleList()
        width = widths[-1]
        for level, fan_out in reversed([*enumerate(widths)]):
            finer = widths[max(level - 1, 0)]
            for index, skip in enumerate([*itertools.repeat(fan_out, self.config.residual_blocks), finer]):
                layers = [self._block(width + skip, fan_out, rng), *self._attention(level, rng)]
                if level and index == self.config.residual_blocks:
                    layers.append(self._block(fan_out, fan_out, rng, double))
                self.output_blocks.append(Stage(*layers))
                width = fan_out

    def _block(
        self, fan_in: int, fan_out: int, rng: torch.Generator, resample: Resample | None = None
    ) -> ConditionedBlock:
        return ConditionedBlock(fan_in, fan_out, self.config.embedding, self.config.style_channels, rng, resample)

    def _attention(self, level: int, rng: torch.Generator) -> list[nn.Module]:
        if self.config.image_size >> level not in self.config.attention_resolutions:
            return []
        return [Attention(self.config.channels[level], rng)]

    @torch.no_grad()
    def _guess_noise(self) -> None:
        """Make the untrained network predict that almost all of its input is noise, so that samples stay in range.

        The first convolution copies the image with alternating signs, the shortcut of the last block passes the copies
        on, and the last convolution recombines them, because ``silu(x) - silu(-x) = x``.
        """
        last_block = self.output_blocks.get_submodule(f"{len(self.output_blocks) - 1}.0")
        names = ("skip_connection.weight", "out_layers.3.weight")
        shortcut, residual = (last_block.get_parameter(name) for name in names)
        first, last = self.input_blocks.get_parameter("0.0.weight"), self.out.get_parameter("2.weight")
        for weight in (first, shortcut, residual, last):
            weight.mul_(INITIAL_REMAINDER)
        channels = len(first)
        pairs = channels // 6
        channel = torch.arange(6 * pairs)
        colour, sign = channel % 3, 1.0 - 2.0 * (channel // 3 % 2)
        first[channel, colour, 1, 1] += sign
        shortcut[channel, channels + channel, 0, 0] += 1.0
        last[colour, channel, 1, 1] += sign / max(pairs, 1)
