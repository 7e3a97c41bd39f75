"""A flow on a generator is itself a generator: ``G'(eps) = G(f(eps))`` with prior N(0, I)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from promptgen.conditions import Condition, split_context
from promptgen.errors import DataError
from promptgen.flows.flow import Flow
from promptgen.generators.base import (
    GaussianPrior,
    Generator,
    HasTruth,
    condition_of,
    conditioned_images,
    conditioned_truth,
    held_by,
    truth_classes,
)
from promptgen.networks.frozen import FrozenModule


class ChainedGenerator(FrozenModule):
    """A generator whose latents are drawn by a flow. The base may be a chain itself.

    The chain keeps a copy of the flow, so training the original further does not change the chain. It has `truth` if
    its base has. Its `condition` collects the coordinates of all its conditional flows, the lowest flow first.

    Args:
        base: the generator, which may be a chain.
        flow: flow that draws the base's latents.

    Raises:
        DataError: the flow and the generator's latents differ in dimension, or two coordinates have the same name.

    Example:
        >>> from promptgen.flows.flow import FlowConfig
        >>> class Brightness:
        ...     prior, image_shape = GaussianPrior.standard(2), (3, 1, 1)
        ...     def __call__(self, latent, *, noise=None):
        ...         return latent[:, :1, None, None].expand(-1, 3, 1, 1)
        >>> flow = Flow(2, FlowConfig(blocks=1, hidden=4), scale=torch.tensor([2.0, 1.0]))
        >>> chain = ChainedGenerator(Brightness(), flow)  # a new flow only scales
        >>> round(float(chain(torch.tensor([[0.25, 1.0]]))[0, 0, 0, 0]), 4)
        0.5
    """

    image_shape: tuple[int, int, int]
    condition: Condition

    def __new__(cls, base: object = None, flow: object = None) -> ChainedGenerator:
        """Choose the class with `truth` if, and only if, the base has it, so that `isinstance(chain, HasTruth)` holds.

        Copying a chain calls this without arguments, on the class that was chosen before.
        """
        return super().__new__(_TruthfulChain if isinstance(base, HasTruth) else cls)

    def __init__(self, base: Generator, flow: Flow) -> None:
        super().__init__()
        if base.prior.dim != flow.dim:
            raise DataError(f"the generator's latents have {base.prior.dim} dimensions, the flow's have {flow.dim}")
        self.base = base
        self.flow = copy.deepcopy(flow)
        self.prior = GaussianPrior(torch.ones_like(base.prior.scale))
        self.condition = condition_of(base) + self.flow.condition
        self.image_shape = base.image_shape
        self.held = held_by(base)
        if self.flow.held != self.held:
            raise DataError(f"the generator holds {self.held} dimensions of its latent, the flow {self.flow.held}")
        self.freeze()

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None, context: Tensor | None = None) -> Tensor:
        """Return images, (B, 3, H, W), nominally in [0, 1], of latents (B, D).

        Args:
            latent: latents of the chain, standard normal under its prior.
            noise: random stream for noise inside the base; None means its fixed noise.
            context: conditions, (B, C), one column per coordinate of `condition`; None means the null condition.
        """
        below, _ = split_context(context, self.flow.context_dim)
        return conditioned_images(self.base, self.latent(latent, context), below, noise=noise)

    def latent(self, eps: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the base's latents, (B, D), for latents `eps` of the chain, (B, D).

        Raises:
            DataError: the conditions have the wrong shape for this chain.
        """
        if context is not None and context.shape != (expected := (len(eps), len(self.condition))):
            raise DataError(f"this chain takes conditions of shape {expected}, got {tuple(context.shape)}")
        _, flow_context = split_context(context, self.flow.context_dim)
        latent, _ = self.flow(eps, self.flow.null_context(len(eps)) if flow_context is None else flow_context)
        return cast(Tensor, latent)


def base_of(generator: Generator) -> Generator:
    """Return the generator under all flows of a chain; a generator without flows is its own base."""
    while isinstance(generator, ChainedGenerator):
        generator = generator.base
    return generator


def base_latent(generator: Generator, latent: Tensor, context: Tensor | None = None) -> Tensor:
    """Return the latents of the base, (B, D), for latents of a chain, (B, D), under its conditions, (B, C)."""
    while isinstance(generator, ChainedGenerator):
        latent = generator.latent(latent, context)
        context, _ = split_context(context, generator.flow.context_dim)
        generator = generator.base
    return latent


class _TruthfulChain(ChainedGenerator):
    """A chain on a generator that knows the true attributes of its latents."""

    @property
    def attributes(self) -> Mapping[str, Sequence[str]] | None:
        """Class labels of each attribute, in the order of the true indices; None if the base does not name them."""
        return truth_classes(cast(HasTruth, self.base))

    def truth(self, latent: Tensor, context: Tensor | None = None) -> Mapping[str, Tensor]:
        """Return the true class index, (B,) int64, of each attribute for latents of the chain, (B, D).

        Args:
            latent: latents of the chain.
            context: conditions, (B, C); None means the null condition.
        """
        below, _ = split_context(context, self.flow.context_dim)
        return conditioned_truth(cast(HasTruth, self.base), self.latent(latent, context), below)
