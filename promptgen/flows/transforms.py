"""The transforms that flows are made of, and those that confine a flow to a part of each point.

All are nflows transforms. The coupling is a subclass, because the affine coupling of nflows can only contract.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from nflows.transforms.base import CompositeTransform, Transform
from nflows.transforms.coupling import AffineCouplingTransform
from torch import Tensor, nn
from torch.nn import functional as F

from promptgen.errors import DataError
from promptgen.flows.config import LARGEST_DENSE, FlowConfig
from promptgen.rotations import random_rotation


def coupling_blocks(dim: int, config: FlowConfig, context_dim: int, rng: torch.Generator) -> list[nn.Module]:
    """Return the blocks of a flow and the final rotation, which together are the identity at first."""
    _require_few(dim, config)
    blocks: list[nn.Module] = []
    product = torch.eye(dim, dtype=torch.float64)
    for _ in range(config.blocks):
        rotation = random_rotation(dim, rng)
        product = rotation @ product
        blocks += [ScaleShift(dim), Rotation(rotation), BoundedCoupling(dim, config, context_dim, rng)]
    return [*blocks, Rotation(product.T)]


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


class Parts(Transform):  # type: ignore[misc]
    """Independent flows for the parts of the dimensions; all of them see the condition."""

    def __init__(
        self, dim: int, config: FlowConfig, sizes: tuple[int, ...], context_dim: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        if sum(sizes) != dim:
            parts = " + ".join(map(str, sizes))
            raise DataError(f"the latent has {dim} dimensions, flow.parts has {parts} = {sum(sizes)}: make them agree")
        self.sizes = list(sizes)
        self.flows = nn.ModuleList(
            CompositeTransform(coupling_blocks(size, config, context_dim, rng)) for size in sizes
        )

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


Move = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""A flow, or its inverse: points and conditions to points and log-determinants."""


class PartialFlow(Transform):  # type: ignore[misc]
    """Base of the flows that move a part of each point."""

    flow: CompositeTransform

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.moved(self.flow, inputs, context)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.moved(self.flow.inverse, inputs, context)

    def moved(self, move: Move, points: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return points whose part `move` has moved, and its log-determinants."""
        raise NotImplementedError


def free_part(directions: Tensor, held: int) -> Tensor:
    """Return directions, (D, R), without the last `held` dimensions, in which they must have zeros."""
    cut = len(directions) - held
    if bool(directions[cut:].any()):
        raise DataError(f"the directions of a flow must be 0 in the last {held} dimensions, which it holds")
    return directions[:cut]


class Held(PartialFlow):
    """A flow of the first dimensions; the last ones pass unchanged and are part of its condition."""

    def __init__(self, held: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.held = held
        self.flow = CompositeTransform(blocks)

    def moved(self, move: Move, points: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        free, held = points[:, : -self.held], points[:, -self.held :]
        moved, log_det = move(free, held if context is None else torch.cat([context, held], dim=1))
        return torch.cat([moved, held], dim=1), log_det


class Subspace(PartialFlow):
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
        self.flow = CompositeTransform(coupling_blocks(rank, config, context_dim, rng))

    def moved(self, move: Move, points: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        before = points @ self.directions
        after, log_det = move(before, context)
        return points + (after - before) @ self.directions.T, log_det


class ScaleShift(Transform):  # type: ignore[misc]
    """``x -> exp(s) x + t`` with learned `s` and `t` per dimension, initially zero."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs * self.log_scale.exp() + self.shift, self.log_scale.sum().expand(len(inputs))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (inputs - self.shift) * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(inputs))


class Rotation(Transform):  # type: ignore[misc]
    """``x -> Q x`` with a fixed orthogonal `Q`, (D, D)."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix.contiguous())

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs @ self.matrix.T, inputs.new_zeros(len(inputs))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs @ self.matrix, inputs.new_zeros(len(inputs))


class BoundedCoupling(AffineCouplingTransform):  # type: ignore[misc]
    """Scales and shifts the second half of the dimensions as functions of the first half and the condition."""

    def __init__(self, dim: int, config: FlowConfig, context_dim: int, rng: torch.Generator) -> None:
        def network(inputs: int, outputs: int) -> nn.Module:
            return CouplingNetwork(inputs + context_dim, config.hidden, outputs, rng)

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


class CouplingNetwork(nn.Module):
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
