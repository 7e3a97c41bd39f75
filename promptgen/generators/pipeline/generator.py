"""Few-step text-to-image models in diffusers' format as generators: noise of a fixed prompt -> image.

The latent is the first noise of the sampler, standard normal; with several prompts, one more coordinate draws the
prompt (`promptgen.drawn`). Denoiser and decoder are called directly and keep the
gradient, which a pipeline's own call does not. The backward pass recomputes activations block by block.

Sources: *Adversarial Diffusion Distillation* (Sauer, Lorenz, Blattmann, Rombach, ECCV 2024,
https://arxiv.org/abs/2311.17042) for SD-Turbo and SDXL-Turbo; see `promptgen.generators.pipeline.steps` for the others.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from promptgen.drawn import Drawn, drawn_prompts
from promptgen.errors import ConfigError
from promptgen.generators.base import GaussianPrior
from promptgen.generators.double_precision import keeping_double, recomputed_block
from promptgen.generators.pipeline.folder import PipelineFolder
from promptgen.generators.pipeline.networks import DENOISERS, Denoiser, UNetDenoiser, guided, pack
from promptgen.generators.pipeline.prompt import encode, read_embeddings, require_fit
from promptgen.generators.pipeline.steps import Steps, steps_of
from promptgen.generators.pipeline.weights import load_part
from promptgen.generators.recomputation import recomputed
from promptgen.networks.frozen import FrozenModule
from promptgen.networks.precision import DTYPES

logger = logging.getLogger("promptgen")

Precision = Literal["float16", "bfloat16", "float32"]

NOISE_SEED = 0
"""Seed of the noise between the steps of a sampler that adds some. A pipeline that gets a fresh
``torch.Generator().manual_seed(NOISE_SEED)`` for each image makes the same images."""


class PipelineGenerator(FrozenModule):
    """A few-step text-to-image model with a fixed prompt, or with several that are drawn by shares.

    Args:
        folder: the saved pipeline.
        denoiser: its network, with the prompts.
        decoder: its autoencoder.
        steps: the steps of the sampler.
        size: height and width of the image, pixels.
        drawn: the prompts and their shares, in the order of the denoiser's; None for a single prompt.

    Attributes:
        prior: N(0, I) over the noise, C h w numbers, and the number that draws the prompt if there are several.
        held: trailing coordinates of the latent that draw the prompt; flows leave them as they are.
        image_shape: (3, H, W).
        latent_shape: (C, h, w) of the noise.
        packed: whether the pipeline's argument `latents` is a sequence of patches, as that of FLUX is.
    """

    def __init__(
        self,
        folder: PipelineFolder,
        denoiser: Denoiser,
        decoder: Any,
        steps: Steps,
        size: tuple[int, int],
        drawn: Drawn | None = None,
    ) -> None:
        super().__init__()
        self.denoiser, self.decoder, self.steps = denoiser, decoder, steps
        self.latent_shape = folder.latent_shape(size)
        self.packed = folder.family.packing > 1
        self.image_shape = (3, *size)
        self.drawn, self.held = drawn, 0 if drawn is None else 1
        self.prior = GaussianPrior.standard(math.prod(self.latent_shape) + self.held)
        self.recompute_decoder = not _recomputes(decoder)
        self.is_xl = folder.is_xl
        rng = torch.Generator().manual_seed(NOISE_SEED)
        for index, step in enumerate(steps.steps):
            if step.noise:
                self.register_buffer(_noise(index), torch.randn(1, *self.latent_shape, generator=rng), persistent=False)
        self.freeze()

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, H, W), nominally in [0, 1] and not clamped.

        Args:
            latent: noise of the first step, with what draws the prompt, (B, D).
            noise: stream of fresh noise between the steps of a sampler that adds some; None means fixed noise.

        Raises:
            DataError: the latents have the wrong number of coordinates.
        """
        which = self.drawn.indices(latent) if self.drawn else latent.new_zeros(len(latent), dtype=torch.long)
        x = self._first(latent) * self.steps.first
        with self._own_precision(latent.device):
            for index, step in enumerate(self.steps.steps):
                output = self.denoiser(x * step.scale, step.time, which)
                x = step.advance(x, output, self._noise(index, x, noise) if step.noise else None)
            return self.decode(x * self.steps.last)

    def decode(self, latent: Tensor) -> Tensor:
        """Return images, (B, 3, H, W), nominally in [0, 1], of clean latents, (B, C, h, w)."""
        inputs = self._unscaled(latent).to(next(self.decoder.parameters()).dtype)
        image = recomputed(self._decoded, inputs) if self.recompute_decoder else self._decoded(inputs)
        return image.to(latent.dtype) / 2 + 0.5

    def pipeline_latents(self, latent: Tensor) -> Tensor:
        """Return what the pipeline's argument `latents` takes, (B, C, h, w) or packed, for latents (B, D)."""
        noise = self._first(latent)
        return pack(noise) if self.packed else noise

    def _own_precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return a context without autocast if a network's numbers have 16 bits, which it would mix with others."""
        types = {parameter.dtype for parameter in self.parameters()}
        return torch.autocast(device.type, enabled=False) if types & {*DTYPES.values()} else nullcontext()

    def _first(self, latent: Tensor) -> Tensor:
        """Return the noise of the first step, (B, C, h, w), of latents (B, D)."""
        self.prior.require(latent)
        return latent[:, : latent.shape[1] - self.held].reshape(-1, *self.latent_shape)

    def _unscaled(self, latent: Tensor) -> Tensor:
        config = self.decoder.config
        if self.is_xl and config.get("latents_mean") and config.get("latents_std"):
            mean, std = (latent.new_tensor(config[f"latents_{key}"]).view(1, -1, 1, 1) for key in ("mean", "std"))
            return latent * std / float(config.scaling_factor) + mean
        shift = (config.get("shift_factor") or 0.0) if self.packed else 0.0
        return latent / float(config.scaling_factor) + shift

    def _decoded(self, latent: Tensor) -> Tensor:
        with keeping_double(latent):
            image: Tensor = self.decoder.decode(latent, return_dict=False)[0]
        return image

    def _noise(self, index: int, like: Tensor, rng: torch.Generator | None) -> Tensor:
        if rng is None:
            fixed: Tensor = getattr(self, _noise(index))
            return fixed.to(like.dtype).expand_as(like)
        return torch.randn(like.shape, generator=rng, device=rng.device, dtype=like.dtype).to(like.device)


def load_pipeline(
    path: Path | str,
    *,
    prompt: str | None = None,
    prompts: Mapping[str, float] | None = None,
    negative_prompt: str | None = None,
    embeddings: Path | str | None = None,
    steps: int = 1,
    guidance: float | None = None,
    height: int | None = None,
    width: int | None = None,
    variant: str | None = None,
    precision: Precision | None = None,
) -> PipelineGenerator:
    """Load a few-step pipeline that `save_pretrained` wrote, and freeze it with its prompt.

    Args:
        path: folder of the pipeline, with weights as safetensors.
        prompt: what the images show, read by the pipeline's own text encoders.
        prompts: shares by which one of several prompts is drawn for each image, in place of a prompt.
        negative_prompt: what guidance moves away from; it counts only where guidance compares two prompts.
        embeddings: safetensors file with the prompt's embeddings, in place of a prompt.
        steps: number of steps.
        guidance: guidance scale, as the pipeline's `guidance_scale`; None means that of the published model.
        height: height of the images, pixels; None means that of the pipeline.
        width: the same for the width.
        variant: part of the names of weight files, such as ``fp16``.
        precision: type of numbers of the networks; None means that of their files.

    Raises:
        ConfigError: diffusers is not installed, the pipeline is of an unknown family, has no encoder for the prompt, or
            a size or the number of steps does not suit it.
        ModelFileError: a file is missing or damaged, or not a safetensors file.
    """
    folder = PipelineFolder(Path(path), variant)
    size = folder.size(height, width)
    scale = folder.family.guidance if guidance is None else guidance
    is_guided = DENOISERS[folder.pipeline_class] is UNetDenoiser and guided(scale, folder.config(folder.family.network))
    drawn = drawn_prompts(prompts)
    embedded = _embeddings(folder, prompt, drawn, negative_prompt, embeddings, guided=is_guided)
    require_fit(embedded, folder, str(embeddings or folder.path))
    network, decoder = (_recomputing(load_part(folder, part)) for part in (folder.family.network, "vae"))
    if precision:
        network, decoder = (part.to(getattr(torch, precision)) for part in (network, decoder))
    if folder.upcasts_decoder and decoder.dtype == torch.float16:
        decoder = decoder.float()  # in half precision it overflows
    options: dict[str, Any] = {"recompute": steps > 1 or not _recomputes(network)}
    if DENOISERS[folder.pipeline_class] is UNetDenoiser:
        options["size"] = size
    denoiser = DENOISERS[folder.pipeline_class](network, embedded, scale, **options)
    _, rows, columns = folder.latent_shape(size)
    plan = steps_of(load_part(folder, "scheduler"), steps, rows * columns // folder.family.packing**2)
    for warning in _doubts(folder, steps, negative_prompt, is_guided=is_guided):
        logger.warning("%s", warning)
    return PipelineGenerator(folder, denoiser, decoder, plan, size, drawn)


def load_pipeline_files(index: Path, /, *others: Any, **arguments: Any) -> PipelineGenerator:
    """Load a pipeline whose files are on a card, the index first; arguments and errors as of `load_pipeline`."""
    return load_pipeline(index.parent, **arguments)


def _embeddings(
    folder: PipelineFolder,
    prompt: str | None,
    drawn: Drawn | None,
    negative: str | None,
    file: Path | str | None,
    *,
    guided: bool,
) -> dict[str, Tensor]:
    if [prompt, drawn, file].count(None) != 2:
        raise ConfigError("a generator of type diffusers needs one of `prompt`, `prompts` and `embeddings`")
    if file is not None:
        return read_embeddings(Path(file), folder, guided=guided)
    return encode(folder, drawn.labels if drawn else [str(prompt)], negative, guided=guided)


def _doubts(folder: PipelineFolder, steps: int, negative: str | None, *, is_guided: bool) -> Iterator[str]:
    """Yield what makes images other than one may expect."""
    if negative and not is_guided:
        yield f"negative_prompt has no effect on a {folder.family.title} without guidance above 1 between two prompts"
    spacing = folder.config("scheduler").get("timestep_spacing", "linspace")
    if steps == 1 and str(folder.part_class("scheduler")).startswith("Euler") and spacing != "trailing":
        yield (
            f"the scheduler of {folder.path} has timestep_spacing {spacing}: a single step then starts from almost no "
            "noise and gives no image; few-step models need trailing"
        )


def _recomputing(network: Any) -> Any:
    """Return a network whose backward pass recomputes its activations block by block, where it can."""
    if network._supports_gradient_checkpointing:
        network.enable_gradient_checkpointing(recomputed_block)
    return network


def _recomputes(network: Any) -> bool:
    return bool(network._supports_gradient_checkpointing)


def _noise(index: int) -> str:
    return f"noise_{index}"
