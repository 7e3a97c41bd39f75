"""A flow on a generator, which is a generator again: ``G'(eps) = G(f(eps))`` with prior N(0, I)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from promptgen.conditions import Condition, split_context
from promptgen.errors import DataError
from promptgen.flows.flow import Flow
from promptgen.frozen import FrozenModule
from promptgen.generators.base import (
    GaussianPrior,
    Generator,
    HasTruth,
    condition_of,
    conditioned_images,
    conditioned_truth,
    truth_classes,
)


class ChainedGenerator(FrozenModule):
    """Images of a generator whose latents are drawn by a flow. Chains of chains are chains.

    It keeps its own copy of the flow, so that training the original further does not change it. On a generator with
    known attributes, `truth` is there too. What the flows of a chain can be told, wherever they are in it, the chain
    can be told: its `condition` has the coordinates of the lowest conditional flow first.

    Args:
        base: the generator, which may be a chain.
        flow: the flow of the base's latents.

    Raises:
        DataError: the flow and the generator's latents differ in dimension, or two conditions have the same name.
    """

    image_shape: tuple[int, int, int]
    condition: Condition

    def __new__(cls, base: object = None, flow: object = None) -> ChainedGenerator:
        """Make a chain that has `truth` if, and only if, its base has: `isinstance(chain, HasTruth)` must not lie."""
        # Without arguments when a chain is copied, whose class has been chosen already.
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
        self.freeze()

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None, context: Tensor | None = None) -> Tensor:
        """Return images, (B, 3, H, W), nominally in [0, 1], of latents (B, D).

        Args:
            latent: latents of the chain, standard normal under its prior.
            noise: as of the base.
            context: conditions, (B, C), with the columns of `condition`; None means the null condition.
        """
        below, _ = split_context(context, self.flow.context_dim)
        return conditioned_images(self.base, self.latent(latent, context), below, noise=noise)

    def latent(self, eps: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the base's latents, (B, D), of the chain's own latents `eps`, (B, D).

        Raises:
            DataError: the conditions are not those that the chain takes.
        """
        if context is not None and context.shape != (expected := (len(eps), len(self.condition))):
            raise DataError(f"this chain takes conditions of shape {expected}, got {tuple(context.shape)}")
        _, own = split_context(context, self.flow.context_dim)
        latent, _ = self.flow(eps, self.flow.null_context(len(eps)) if own is None else own)
        return cast(Tensor, latent)


class _TruthfulChain(ChainedGenerator):
    """A chain on a generator whose latents have known attributes."""

    @property
    def attributes(self) -> Mapping[str, Sequence[str]] | None:
        """Class labels of each attribute, in the order of the true indices; None if the base does not tell."""
        return truth_classes(cast(HasTruth, self.base))

    def truth(self, latent: Tensor, context: Tensor | None = None) -> Mapping[str, Tensor]:
        """Return the true class index, (B,) int64, of each attribute for latents of the chain, (B, D).

        Args:
            latent: latents of the chain.
            context: conditions, (B, C); None means the null condition.
        """
        below, _ = split_context(context, self.flow.context_dim)
        return conditioned_truth(cast(HasTruth, self.base), self.latent(latent, context), below)
