"""The invertible network that transforms noise into a generator's latents: ``z = f(eps; c)`` with an exact density.

Each block is a scale and shift per dimension, a fixed random rotation and an affine coupling,

    ``x -> exp(s) x + t``,    ``x -> Q x``,    ``(x_1, x_2) -> (x_1, exp(a(x_1, c)) x_2 + b(x_1, c))``,

where the log-scale `a` is bounded. A final rotation undoes all the others, so a new flow is the identity.
A latent made of several parts, such as BigGAN's z and class embedding, can have a separate flow for each part. Where
an energy depends on few directions of the latent only, a flow can be confined to these: everything else stays noise.
The blocks are in `promptgen.flows.transforms`.

L. Dinh, J. Sohl-Dickstein, S. Bengio, "Density estimation using Real NVP", 2017, https://arxiv.org/abs/1605.08803
"""

from __future__ import annotations

import copy
import math

import torch
from nflows.transforms.base import CompositeTransform
from nflows.transforms.standard import PointwiseAffineTransform
from torch import Tensor, nn
from torch.nn import functional as F

from promptgen.conditions import Condition
from promptgen.errors import DataError
from promptgen.flows.config import FlowConfig as FlowConfig
from promptgen.flows.transforms import Held, Parts, Subspace, coupling_blocks, free_part
from promptgen.seeding import stream


class Flow(nn.Module):
    """An invertible map from noise `eps` to latents `z`, both (B, D), under an optional condition `c`, (B, C).

    A new flow multiplies its input by `scale`, whatever the condition.

    Args:
        dim: number of dimensions D, at least 2.
        config: architecture of the network.
        condition: coordinates of the condition; without any, the default, the flow is unconditional.
        scale: standard deviations of the generator's prior, (D,), so that a new flow maps N(0, I) to the prior;
            None means ones.
        directions: orthonormal columns, (D, R) with 2 <= R <= D, in units of `scale`. The flow moves its points within
            their span and leaves the rest as it is; None means all directions.
        held: number of last dimensions, such as the one that draws a class, that the flow leaves as they are; it takes
            them as a condition. `directions` has zeros in them, and the parts of `config` do not contain them.
        seed: seed of the rotations and the initial weights.
        dtype: floating-point type of all parameters and buffers. Casting a flow later makes its rotations less exact.

    Raises:
        DataError: there are fewer than 2 dimensions, or too many to move all of them; or the parts, the scale or the
            directions do not match them.

    Example:
        >>> eps = torch.tensor([[0.5, -1.0, 2.0]])
        >>> flow = Flow(3, FlowConfig(blocks=2, hidden=8))
        >>> latent, log_det = flow(eps)
        >>> torch.allclose(latent, eps, atol=1e-5), torch.allclose(log_det, torch.zeros(1))  # the identity at first
        (True, True)
        >>> torch.allclose(flow.inverse(latent)[0], eps, atol=1e-5)
        True
    """

    context_scale: Tensor

    def __init__(
        self,
        dim: int,
        config: FlowConfig | None = None,
        condition: Condition | None = None,
        scale: Tensor | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        directions: Tensor | None = None,
        held: int = 0,
    ) -> None:
        super().__init__()
        if dim - held < 2:
            raise DataError(f"a flow couples dimensions with one another, so it needs at least 2, got {dim - held}")
        if scale is not None and scale.shape != (dim,):
            raise DataError(f"scale must be one number per dimension, ({dim},), got {tuple(scale.shape)}")
        self.dim, self.held = dim, held
        self.config = config or FlowConfig()
        self.condition = condition or Condition()
        self.context_dim = len(self.condition)
        largest = [max(-low, high) for low, high in self.condition.ranges.values()]
        self.register_buffer("context_scale", torch.tensor(largest, dtype=dtype), persistent=False)
        scale = torch.ones(dim) if scale is None else scale.detach().clone()
        rng = stream(seed, "flow")
        free, context_dim = dim - held, self.context_dim + held
        blocks: list[nn.Module]
        if directions is not None:
            blocks = [Subspace(free, self.config, free_part(directions, held), context_dim, rng)]
        elif self.config.parts is None:
            blocks = coupling_blocks(free, self.config, context_dim, rng)
        else:
            blocks = [Parts(free, self.config, self.config.parts, context_dim, rng)]
        blocks = [Held(held, blocks)] if held else blocks
        self.transform = CompositeTransform([*blocks, PointwiseAffineTransform(scale=scale)]).to(dtype)

    def forward(self, eps: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return latents, (B, D), and ``log|det dz/deps|``, (B,), of noise (B, D) under conditions (B, C).

        Raises:
            DataError: a shape is wrong, or a condition is missing or unexpected.
        """
        latent, log_det = self.transform(eps, self._scaled(eps, context))
        return latent, log_det

    def inverse(self, latent: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the noise, (B, D), and ``log|det deps/dz|``, (B,), of latents (B, D) under conditions (B, C).

        Raises:
            DataError: a shape is wrong, or a condition is missing or unexpected.
        """
        eps, log_det = self.transform.inverse(latent, self._scaled(latent, context))
        return eps, log_det

    def log_prob(self, latent: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the log density, nats, (B,), of latents (B, D) when the noise is N(0, I)."""
        eps, log_det = self.inverse(latent, context)
        return standard_log_prob(eps) + log_det

    @property
    def directions(self) -> Tensor | None:
        """Directions that the flow is confined to, (D, R); None if it moves all that it does not hold."""
        subspace = self._subspace
        return None if subspace is None else F.pad(subspace.directions, (0, 0, 0, self.held))

    @property
    def _subspace(self) -> Subspace | None:
        return next((module for module in self.modules() if isinstance(module, Subspace)), None)

    def along(self, directions: Tensor) -> Flow:
        """Return this flow in coordinates along orthonormal directions, (D, S), whose span holds its own directions.

        Its points are (B, S), in units of the prior. Both flows have the same parameters: to train one trains both.

        Raises:
            DataError: the flow is not confined to directions.
        """
        if (within := self._subspace) is None or self.held:
            raise DataError("a flow that moves all directions, or holds some, has no coordinates along a few of them")
        flow, inner = copy.copy(self), copy.copy(within)
        inner._buffers = {"directions": directions.T @ within.directions}
        flow._modules, flow.dim = {}, directions.shape[1]
        flow.transform = CompositeTransform([inner])
        return flow

    def null_context(self, n: int) -> Tensor | None:
        """Return `n` null conditions, zeros (n, C); None for an unconditional flow."""
        if not self.context_dim:
            return None
        parameter = next(self.parameters())
        return parameter.new_zeros(n, self.context_dim)

    def _scaled(self, points: Tensor, context: Tensor | None) -> Tensor | None:
        """Return conditions in units of their ranges, as the couplings expect: small angles are hard to learn.

        Raises:
            DataError: points or conditions have a wrong shape, which would otherwise broadcast silently.
        """
        if points.ndim != 2 or points.shape[1] != self.dim:
            raise DataError(f"this flow takes points of shape (B, {self.dim}), got {tuple(points.shape)}")
        expected = (len(points), self.context_dim) if self.context_dim else None
        shape = None if context is None else tuple(context.shape)
        if shape != expected:
            raise DataError(f"this flow takes conditions of shape {expected}, got {shape}")
        return None if context is None else context / self.context_scale


def standard_log_prob(eps: Tensor) -> Tensor:
    """Return the log density of N(0, I), nats, (B,), at `eps`, (B, D)."""
    return -0.5 * (eps.square().sum(dim=1) + eps.shape[1] * math.log(2 * math.pi))
