"""Latents of a trained chain, in the form that a pipeline of diffusers takes; no generator is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptgen.drawn import Drawn, drawn_prompts
from promptgen.errors import CheckpointError, DataError
from promptgen.flows.chain_file import Chain, load_chain
from promptgen.flows.chained import base_latent
from promptgen.flows.sampling import condition_blocks, latent_blocks
from promptgen.generators.base import GaussianPrior, Generator, condition_of
from promptgen.generators.pipeline.networks import pack

LATENTS_NAME = "latents"
"""Entry of a chain's origin that holds the shape of its latents in their pipeline."""


class LatentSampler:
    """Draws latents of a chain that was trained on a pipeline.

    Args:
        chain: the chain.
        shape: channels, height and width of a latent.
        patch: side of the patches into which the pipeline wants a latent packed; 1 for none.
        drawn: prompts that the chain was trained with, one of which is drawn for each latent; None for a single one.

    Example:
        A chain of a single new flow draws standard normal latents, the same whatever their number:

        >>> from promptgen.flows.flow import Flow, FlowConfig
        >>> chain = Chain([Flow(16, FlowConfig(blocks=1, hidden=4))], {}, {})
        >>> sampler = LatentSampler(chain, (1, 4, 4))
        >>> sampler.latents(3, seed=1).shape
        torch.Size([3, 1, 4, 4])
        >>> LatentSampler(chain, (1, 4, 4), patch=2).latents(3, seed=1).shape  # 4 patches of 4 numbers
        torch.Size([3, 4, 4])
    """

    def __init__(self, chain: Chain, shape: tuple[int, int, int], patch: int = 1, drawn: Drawn | None = None) -> None:
        self.generator: Generator = chain.on(_Latents(shape, 0 if drawn is None else 1))
        self.shape, self.patch, self.drawn = shape, patch, drawn

    def prompts(self, n: int, seed: int) -> list[str]:
        """Return the prompt of each of the latents that `latents` gives for this number and seed.

        Raises:
            DataError: the chain was trained with a single prompt.
        """
        if self.drawn is None:
            raise DataError("this chain was trained with a single prompt: give all its latents that one")
        noise = torch.cat(list(latent_blocks(self.generator.prior, n, seed, LATENTS_NAME)))
        return [self.drawn.labels[index] for index in self.drawn.indices(noise).tolist()]

    @torch.no_grad()
    def latents(
        self,
        n: int,
        seed: int,
        *,
        condition: Mapping[str, float] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Return what the pipeline's argument `latents` takes, (n, C, h, w) or (n, tokens, numbers of a patch).

        If the chain has several prompts, each latent is for the one that `prompts` gives in its place.

        Args:
            n: number of latents.
            seed: seed; the first latents of a seed are the same up to rounding, whatever their number.
            condition: values of named coordinates of the condition; the remaining ones are drawn from their ranges.
            dtype: type of their numbers, such as that of a pipeline in half precision.
            device: where to put them.

        Raises:
            DataError: the chain has no coordinate of that name.
        """
        box = condition_of(self.generator)
        noise = torch.cat(list(latent_blocks(self.generator.prior, n, seed, LATENTS_NAME)))
        drawn = torch.cat(list(condition_blocks(box, n, seed, LATENTS_NAME)))
        context = box.fix(drawn, condition or {}).to(noise) if box or condition else None
        latent = base_latent(self.generator, noise, context)[:, : math.prod(self.shape)].reshape(n, *self.shape)
        return (latent if self.patch == 1 else pack(latent, self.patch)).to(device, dtype)


def load_sampler(path: Path | str) -> LatentSampler:
    """Return the sampler of a chain that was trained on a pipeline.

    Raises:
        CheckpointError: the file is missing, damaged, or its chain was trained on another kind of generator.
    """
    chain = load_chain(path)
    form: Any = chain.info.get(LATENTS_NAME)
    try:
        channels, height, width = (int(side) for side in form["shape"])
        patch = int(form["patch"])
        drawn = drawn_prompts({str(text): float(share) for text, share in form.get("prompts", {}).items()})
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        kind = chain.generator_spec.get("type")
        raise CheckpointError(f"{path} is a chain on a generator of type {kind}, expected diffusers") from error
    held = 0 if drawn is None else 1
    if (
        any(flow.dim != channels * height * width + flow.held or flow.held != held for flow in chain.flows)
        or patch < 1
        or height % patch
        or width % patch
    ):
        raise CheckpointError(f"the flows in {path} do not fit its latents of shape {form['shape']}: write it again")
    return LatentSampler(chain, (channels, height, width), patch, drawn)


class _Latents:
    """Stands for the generator under a chain, of which only the latents are wanted."""

    def __init__(self, shape: tuple[int, int, int], held: int) -> None:
        self.image_shape, self.held = shape, held
        self.prior = GaussianPrior.standard(math.prod(shape) + held)

    def __call__(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        return latent[:, : math.prod(self.image_shape)].reshape(-1, *self.image_shape)
