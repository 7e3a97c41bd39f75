"""The denoising networks of pipelines, called with what each family's pipeline passes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from promptgen.generators.double_precision import keeping_double
from promptgen.generators.recomputation import recomputed


class Denoiser(nn.Module):
    """A denoising network with its prompts: the output for a noisy latent, (B, C, h, w), at a time of the schedule.

    Args:
        network: the network of diffusers.
        embeddings: embeddings by name, one row for each prompt.
        guidance: guidance scale.
        recompute: whether the backward pass recomputes the whole network instead of storing its activations.
    """

    def __init__(
        self, network: nn.Module, embeddings: Mapping[str, Tensor], guidance: float, *, recompute: bool
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.guidance = guidance
        self.recompute = recompute
        for name, value in embeddings.items():
            kind = self.dtype if value.is_floating_point() else value.dtype
            self.register_buffer(name, value.to(kind), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's weights."""
        kind: torch.dtype = next(self.network.parameters()).dtype
        return kind

    def forward(self, x: Tensor, time: Tensor, which: Tensor) -> Tensor:
        """Return the network's output, (B, C, h, w), in the type of `x`; image i has the prompt number ``which[i]``."""
        inputs, at = x.to(self.dtype), time.to(x.device)
        output: Tensor
        output = recomputed(self._output, inputs, at, which) if self.recompute else self._output(inputs, at, which)
        return output.to(x.dtype)

    def output(self, x: Tensor, time: Tensor, which: Tensor) -> Tensor:
        """Return the network's output for inputs of its own type."""
        raise NotImplementedError

    def rows(self, name: str, which: Tensor) -> Tensor:
        """Return the embedding of the prompt of each image, (B, ...)."""
        value: Tensor = getattr(self, name)
        return value[which]

    def _output(self, x: Tensor, time: Tensor, which: Tensor) -> Tensor:
        with keeping_double(x):
            return self.output(x, time, which)


class UNetDenoiser(Denoiser):
    """The U-Net of Stable Diffusion, SDXL and latent consistency models.

    Args:
        size: height and width of the image, pixels, an input of SDXL.
    """

    def __init__(self, *arguments: Any, size: tuple[int, int], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.size = size
        self.guided = guided(self.guidance, self.network.config)

    def output(self, x: Tensor, time: Tensor, which: Tensor) -> Tensor:
        if not self.guided:
            return self._predict(x, time, which, "")
        away, towards = self._predict(x, time, which, "negative_"), self._predict(x, time, which, "")
        return away + self.guidance * (towards - away)

    def _predict(self, x: Tensor, time: Tensor, which: Tensor, sign: str) -> Tensor:
        batch, added, condition = len(x), None, None
        if self.network.config.addition_embed_type == "text_time":
            numbers = torch.tensor([[*self.size, 0, 0, *self.size]], dtype=x.dtype, device=x.device)
            pooled = self.rows(f"{sign}pooled_prompt_embeds", which)
            added = {"text_embeds": pooled, "time_ids": numbers.expand(batch, -1)}
        if (width := self.network.config.time_cond_proj_dim) is not None:
            condition = guidance_embedding(self.guidance, width).to(x).expand(batch, -1)
        prompt = self.rows(f"{sign}prompt_embeds", which)
        output: Tensor = self.network(
            x, time, encoder_hidden_states=prompt, timestep_cond=condition, added_cond_kwargs=added, return_dict=False
        )[0]
        return output


class SanaDenoiser(Denoiser):
    """The transformer of SANA-Sprint; the guidance is one of its inputs."""

    def output(self, x: Tensor, time: Tensor, which: Tensor) -> Tensor:
        batch, config = len(x), self.network.config
        guidance = torch.full((batch,), self.guidance, device=x.device, dtype=x.dtype) * config.guidance_embeds_scale
        output: Tensor = self.network(
            x,
            encoder_hidden_states=self.rows("prompt_embeds", which),
            encoder_attention_mask=self.rows("prompt_attention_mask", which),
            guidance=guidance if config.guidance_embeds else None,
            timestep=time.expand(batch),
            return_dict=False,
        )[0]
        return output


class FluxDenoiser(Denoiser):
    """The transformer of FLUX, which takes the latent as a sequence of patches of 2 x 2."""

    def output(self, x: Tensor, time: Tensor, which: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        guidance = None
        if self.network.config.guidance_embeds:
            guidance = torch.full((batch,), self.guidance, device=x.device, dtype=torch.float32)
        prompt = self.rows("prompt_embeds", which)
        output: Tensor = self.network(
            hidden_states=pack(x),
            timestep=time.expand(batch).to(x.dtype) / 1000,
            guidance=guidance,
            pooled_projections=self.rows("pooled_prompt_embeds", which),
            encoder_hidden_states=prompt,
            txt_ids=prompt.new_zeros(prompt.shape[1], 3),
            img_ids=places(height // 2, width // 2).to(prompt),
            return_dict=False,
        )[0]
        return unpack(output, height, width)


DENOISERS: Mapping[str, type[Denoiser]] = {
    "StableDiffusionPipeline": UNetDenoiser,
    "StableDiffusionXLPipeline": UNetDenoiser,
    "LatentConsistencyModelPipeline": UNetDenoiser,
    "SanaSprintPipeline": SanaDenoiser,
    "FluxPipeline": FluxDenoiser,
}
"""The denoiser of each pipeline, by the pipeline's class."""


def guided(guidance: float, config: Mapping[str, Any]) -> bool:
    """Return whether a U-Net with this config is guided by comparing two prompts, which takes two passes."""
    return guidance > 1 and config.get("time_cond_proj_dim") is None


def guidance_embedding(guidance: float, width: int) -> Tensor:
    """Return the sinusoidal embedding of a guidance scale, (1, width), that latent consistency models take."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000.0) / (half - 1)))
    angles = torch.tensor([[1000.0 * (guidance - 1)]]) * frequencies
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))


def places(height: int, width: int) -> Tensor:
    """Return the row and column of each patch, (height * width, 3), after a column of zeros."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=2).reshape(-1, 3).float()


def pack(latent: Tensor, side: int = 2) -> Tensor:
    """Return square patches row by row, (B, h w / side^2, C side^2), of latents (B, C, h, w)."""
    batch, channels, height, width = latent.shape
    patches = latent.reshape(batch, channels, height // side, side, width // side, side).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, height * width // side**2, channels * side**2)


def unpack(patches: Tensor, height: int, width: int) -> Tensor:
    """Return latents, (B, C, height, width), of patches in the order of `pack`."""
    batch, _, numbers = patches.shape
    latent = patches.reshape(batch, height // 2, width // 2, numbers // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return latent.reshape(batch, numbers // 4, height, width)
