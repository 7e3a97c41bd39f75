"""The floating-point type in which frozen networks compute: single precision, or half of it with autocast.

Weights stay in single precision, and so does what goes in and comes out: energies, densities and statistics never see
another type. Inside, `torch.autocast` has convolutions and matrix products compute in 16 bits. What has to stay in
single precision there, as in the published code, says so with `exact`: styles, rays and pixel distributions.

The numbers of float16 end at 65,504 and lose their digits below 0.00006. Gradients are therefore scaled on their way
back through a network: a power of two brings the largest to about 1, and is divided out at the end.

Source: *Mixed Precision Training* (Micikevicius et al., ICLR 2018, https://arxiv.org/abs/1710.03740).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from promptgen.errors import ConfigError, NonFiniteEnergyError, first_line
from promptgen.networks.frozen import FrozenModule, networks_in, rebound

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}

P = ParamSpec("P")
R = TypeVar("R")


def use_precision(model: Any, precision: str, device: torch.device) -> Any:
    """Let the frozen networks in a model compute in this precision, and return the model.

    Args:
        model: a network, a method of one, or what is built of them; networks that do not derive from
            `promptgen.networks.frozen.FrozenModule` keep the precision that they are written in.
        precision: float32, bfloat16 or float16.
        device: where they run.

    Raises:
        ConfigError: torch cannot compute in this precision on that device.
    """
    if precision == "float32":
        return model
    require_precision(precision, device)
    for network in networks_in(model):
        if network.precision != precision:
            network.wrap_entries(functools.partial(_lowered, DTYPES[precision]))
            network.precision = precision
    return rebound(model)


def require_precision(precision: str, device: torch.device) -> None:
    """Try the operations of networks, and their gradients.

    Raises:
        ConfigError: torch cannot compute in this precision on that device.
    """
    if (reason := _refusal(precision, device)) is not None:
        raise ConfigError(
            f"precision: {precision} does not run on {device} with torch {torch.__version__} ({reason}): choose "
            "bfloat16 or float32"
        )


@functools.cache
def _refusal(precision: str, device: torch.device) -> str | None:
    """Return why torch cannot compute in a precision on a device; None if it can."""
    if precision == "float32":
        return None
    if device.type not in ("cpu", "cuda"):
        return "only cpu and cuda have it"
    if precision == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        return "this GPU is older than it"
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.LeakyReLU(), nn.Flatten()
    ).to(device)
    try:
        image = torch.ones(2, 4, 4, 4, device=device, requires_grad=True)
        with torch.autocast(device.type, DTYPES[precision]):
            features = layers(image)
            (features @ features.mT).sum().float().backward()
    except RuntimeError as error:
        return first_line(error)
    return None


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function or method of a network compute in single precision, whatever the precision of the network.

    Its arguments of 16 bits become single precision; others stay as they are.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        kind = next((kind for kind in ("cuda", "cpu") if torch.is_autocast_enabled(kind)), None)
        if kind is None:
            return function(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(*tree_map_only(Tensor, widened, args), **tree_map_only(Tensor, widened, kwargs))

    return run


def widened(values: Tensor) -> Tensor:
    """Return numbers of 16 bits in single precision, and others as they are."""
    return values.float() if values.dtype in DTYPES.values() else values


def _lowered(dtype: torch.dtype, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an entry of a network that computes in 16 bits; tensors go in and come out in single precision."""

    @functools.wraps(function)
    def run(network: FrozenModule, *args: Any, **kwargs: Any) -> Any:
        values, form = tree_flatten((args, kwargs))
        tensors = [value for value in values if isinstance(value, Tensor)]
        if tensors[0].dtype == torch.float64:
            return function(network, *args, **kwargs)
        name = f"{type(network).__name__} in {str(dtype).removeprefix('torch.')}"
        scale = _Scale(name) if dtype == torch.float16 else None
        if scale is not None:
            enter: Any = _Enter.apply
            values = [enter(scale, value) if isinstance(value, Tensor) else value for value in values]
            args, kwargs = tree_unflatten(values, form)
        with torch.autocast(tensors[0].device.type, dtype):
            outputs = function(network, *args, **kwargs)
        leaves, form = tree_flatten(outputs)
        results = [widened(value) for value in leaves]
        if not _all_finite(results) and _all_finite(tensors):
            raise NonFiniteEnergyError(f"{name} returned NaN or infinity: choose precision: float32 or bfloat16")
        leave: Any = _Leave.apply
        return tree_unflatten(results if scale is None else list(leave(scale, *results)), form)

    return run


def _all_finite(tensors: list[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


class _Scale:
    """The factor of a network's gradients, chosen where they come in and divided out where they leave."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.factor = torch.ones(())


class _Leave(torch.autograd.Function):
    """Returns the outputs of a network; on the way back, scales their gradients."""

    @staticmethod
    def forward(ctx: Any, scale: _Scale, *outputs: Tensor) -> tuple[Tensor, ...]:
        ctx.scale = scale
        return tuple(output.view_as(output) for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        largest = torch.stack([gradient.abs().amax() for gradient in gradients]).amax()
        usable = largest.isfinite() & (largest > 0)
        ctx.scale.factor = torch.where(usable, torch.exp2(-largest.log2().floor()), torch.ones_like(largest))
        return None, *(gradient * ctx.scale.factor for gradient in gradients)


class _Enter(torch.autograd.Function):
    """Returns an input of a network; on the way back, divides by the factor that `_Leave` has chosen."""

    @staticmethod
    def forward(ctx: Any, scale: _Scale, value: Tensor) -> Tensor:
        ctx.scale = scale
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        if not bool(gradient.isfinite().all()):
            raise NonFiniteEnergyError(
                f"the gradient of {ctx.scale.name} became NaN or infinite: choose precision: float32 or bfloat16"
            )
        return None, gradient / ctx.scale.factor
