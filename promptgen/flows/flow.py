"""The invertible network that transforms noise into a generator's latents: ``z = f(eps; c)`` with an exact density.

Each block is a scale and shift per dimension, a fixed random rotation and an affine coupling,

    ``x -> exp(s) x + t``,    ``x -> Q x``,    ``(x_1, x_2) -> (x_1, exp(a(x_1, c)) x_2 + b(x_1, c))``,

where the log-scale `a` is bounded. A final rotation undoes all the others, so a new flow is the identity.
A latent made of several parts, such as BigGAN's z and class embedding, can have a separate flow for each part. Where
an energy depends on few directions of the latent only, a flow can be confined to these: everything else stays noise.
The blocks are nflows transforms. The coupling is a subclass, because the affine coupling of nflows can only contract.

L. Dinh, J. Sohl-Dickstein, S. Bengio, "Density estimation using Real NVP", 2017, https://arxiv.org/abs/1605.08803
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import torch
from nflows.transforms.base import CompositeTransform, Transform
from nflows.transforms.coupling import AffineCouplingTransform
from nflows.transforms.standard import PointwiseAffineTransform
from torch import Tensor, nn
from torch.nn import functional as F

from promptgen.conditions import Condition
from promptgen.errors import DataError
from promptgen.flows.config import LARGEST_DENSE
from promptgen.flows.config import FlowConfig as FlowConfig
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
            blocks = [_Subspace(free, self.config, _free(directions, held), context_dim, rng)]
        elif self.config.parts is None:
            blocks = _blocks(free, self.config, context_dim, rng)
        else:
            blocks = [_Parts(free, self.config, self.config.parts, context_dim, rng)]
        blocks = [_Held(held, blocks)] if held else blocks
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
        within = next((module.directions for module in self.modules() if isinstance(module, _Subspace)), None)
        return None if within is None else F.pad(within, (0, 0, 0, self.held))

    def along(self, directions: Tensor) -> Flow:
        """Return this flow in coordinates along orthonormal directions, (D, S), whose span holds its own directions.

        Its points are (B, S), in units of the prior. Both flows have the same parameters: to train one trains both.

        Raises:
            DataError: the flow is not confined to directions.
        """
        within = next((module for module in self.modules() if isinstance(module, _Subspace)), None)
        if within is None or self.held:
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


def _blocks(dim: int, config: FlowConfig, context_dim: int, rng: torch.Generator) -> list[nn.Module]:
    """Return the blocks of a flow and the final rotation, which together are the identity at first."""
    _require_few(dim, config)
    blocks: list[nn.Module] = []
    product = torch.eye(dim, dtype=torch.float64)
    for _ in range(config.blocks):
        rotation = _random_rotation(dim, rng)
        product = rotation @ product
        blocks += [_ScaleShift(dim), _Rotation(rotation), _BoundedCoupling(dim, config, context_dim, rng)]
    return [*blocks, _Rotation(product.T)]


def _require_few(dim: int, config: FlowConfig) -> None:
    """Check that the rotations of a flow that moves all dimensions fit into memory.

    Raises:
        DataError: there are more than `LARGEST_DENSE` dimensions.
    """
    if dim > LARGEST_DENSE:
        needed = (config.blocks + 1) * dim**2 * 4 / 1e9
        raise DataError(
            f"a flow that moves all {dim:,} dimensions needs {needed:,.1f} GB for its rotations, expected at most "
            f"{LARGEST_DENSE:,} dimensions: train with `method: reuse` and energies with gradients, which confines the "
            "flow to the directions that matter"
        )


def _random_rotation(dim: int, rng: torch.Generator) -> Tensor:
    """Draw an orthogonal matrix, (D, D) float64, uniformly (Haar measure)."""
    q, r = torch.linalg.qr(torch.randn(dim, dim, generator=rng, dtype=torch.float64))
    rotation: Tensor = q * r.diagonal().sign()
    return rotation


class _Parts(Transform):  # type: ignore[misc]
    """Independent flows for the parts of the dimensions; all of them see the condition."""

    def __init__(
        self, dim: int, config: FlowConfig, sizes: tuple[int, ...], context_dim: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        if sum(sizes) != dim:
            parts = " + ".join(map(str, sizes))
            raise DataError(f"the latent has {dim} dimensions, flow.parts has {parts} = {sum(sizes)}: make them agree")
        self.sizes = list(sizes)
        self.flows = nn.ModuleList(CompositeTransform(_blocks(size, config, context_dim, rng)) for size in sizes)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._join([flow(part, context) for flow, part in self._with_parts(inputs)])

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._join([flow.inverse(part, context) for flow, part in self._with_parts(inputs)])

    def _with_parts(self, inputs: Tensor) -> Iterator[tuple[CompositeTransform, Tensor]]:
        return zip(self.flows, torch.split(inputs, self.sizes, dim=1), strict=True)

    @staticmethod
    def _join(results: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        outputs, log_dets = zip(*results, strict=True)
        return torch.cat(outputs, dim=1), torch.stack(log_dets).sum(dim=0)


def _free(directions: Tensor, held: int) -> Tensor:
    """Return directions, (D, R), without the last `held` dimensions, in which they must have zeros."""
    cut = len(directions) - held
    if bool(directions[cut:].any()):
        raise DataError(f"the directions of a flow must be 0 in the last {held} dimensions, which it holds")
    return directions[:cut]


class _Held(Transform):  # type: ignore[misc]
    """A flow of the first dimensions; the last ones pass unchanged and are part of its condition."""

    def __init__(self, held: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.held = held
        self.flow = CompositeTransform(blocks)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.flow, inputs, context)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.flow.inverse, inputs, context)

    def _move(
        self, move: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]], points: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        free, held = points[:, : -self.held], points[:, -self.held :]
        moved, log_det = move(free, held if context is None else torch.cat([context, held], dim=1))
        return torch.cat([moved, held], dim=1), log_det


class _Subspace(Transform):  # type: ignore[misc]
    """A flow of the coordinates along some directions; the orthogonal complement passes unchanged."""

    directions: Tensor

    def __init__(
        self, dim: int, config: FlowConfig, directions: Tensor, context_dim: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        rank = directions.shape[1] if directions.ndim == 2 else 0
        if directions.ndim != 2 or len(directions) != dim or not 2 <= rank <= dim:
            raise DataError(f"directions must be ({dim}, R) with 2 <= R <= {dim}, got {tuple(directions.shape)}")
        if config.parts is not None:
            raise DataError("a flow with parts cannot be confined to directions: leave out one of the two")
        layout = torch.contiguous_format  # that of a flow from a file, so that both round alike
        self.register_buffer("directions", directions.detach().clone(memory_format=layout))
        self.flow = CompositeTransform(_blocks(rank, config, context_dim, rng))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.flow, inputs, context)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.flow.inverse, inputs, context)

    def _move(
        self, move: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]], points: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        before = points @ self.directions
        after, log_det = move(before, context)
        return points + (after - before) @ self.directions.T, log_det


class _ScaleShift(Transform):  # type: ignore[misc]
    """``x -> exp(s) x + t`` with learned `s` and `t` per dimension, initially zero."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs * self.log_scale.exp() + self.shift, self.log_scale.sum().expand(len(inputs))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (inputs - self.shift) * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(inputs))


class _Rotation(Transform):  # type: ignore[misc]
    """``x -> Q x`` with a fixed orthogonal `Q`, (D, D)."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix.contiguous())

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs @ self.matrix.T, inputs.new_zeros(len(inputs))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs @ self.matrix, inputs.new_zeros(len(inputs))


class _BoundedCoupling(AffineCouplingTransform):  # type: ignore[misc]
    """Scales and shifts the second half of the dimensions as functions of the first half and the condition."""

    def __init__(self, dim: int, config: FlowConfig, context_dim: int, rng: torch.Generator) -> None:
        def network(inputs: int, outputs: int) -> nn.Module:
            return _CouplingNetwork(inputs + context_dim, config.hidden, outputs, rng)

        super().__init__(mask=torch.arange(dim) >= dim // 2, transform_net_create_fn=network)
        self.bound = config.log_scale_bound

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        fixed, moved = self._halves(inputs)
        log_scale, shift = self._log_scale_and_shift(self.transform_net(fixed, context))
        return torch.cat([fixed, moved * log_scale.exp() + shift], dim=1), log_scale.sum(dim=1)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        fixed, moved = self._halves(inputs)
        log_scale, shift = self._log_scale_and_shift(self.transform_net(fixed, context))
        return torch.cat([fixed, (moved - shift) * (-log_scale).exp()], dim=1), -log_scale.sum(dim=1)

    def _halves(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Split points without the indices of nflows' own coupling, whose gradients are slow."""
        fixed, moved = torch.tensor_split(inputs, [inputs.shape[1] // 2], dim=1)
        return fixed, moved

    def _log_scale_and_shift(self, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        shift, unbounded = transform_params.chunk(2, dim=1)
        return torch.tanh(unbounded / self.bound) * self.bound, shift


class _CouplingNetwork(nn.Module):
    """One hidden layer, with outputs that are initially zero for all inputs."""

    def __init__(self, inputs: int, hidden: int, outputs: int, rng: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.hidden_weight = nn.Parameter(torch.empty(hidden, inputs).uniform_(-bound, bound, generator=rng))
        self.hidden_bias = nn.Parameter(torch.empty(hidden).uniform_(-bound, bound, generator=rng))
        self.output_weight = nn.Parameter(torch.zeros(outputs, hidden))
        self.output_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        if context is not None:
            inputs = torch.cat([inputs, context], dim=1)
        hidden = F.silu(F.linear(inputs, self.hidden_weight, self.hidden_bias))
        return F.linear(hidden, self.output_weight, self.output_bias)
