"""Networks with frozen weights."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, ClassVar, Self

from torch import nn


class FrozenModule(nn.Module):
    """A network that is only evaluated: its weights have no gradients, and `train()` does nothing.

    Example:
        >>> import torch
        >>> class Doubler(FrozenModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.factor = nn.Parameter(torch.tensor(2.0))
        ...         self.freeze()
        >>> doubler = Doubler().train()
        >>> doubler.training, doubler.factor.requires_grad
        (False, False)
    """

    entries: ClassVar[tuple[str, ...]] = ("forward",)
    """Methods from images or latents to tensors, through which callers have the network compute; the precision and the
    compilation of params.yaml apply to them. Empty for a network that has to compute as it is written."""

    is_compiled = False
    """Whether its entries are compiled; `promptgen.networks.compilation.compiled` sets it."""

    precision = "float32"
    """What its entries compute in; `promptgen.networks.precision.use_precision` sets it."""

    def freeze(self) -> None:
        """Disable weight gradients and switch to evaluation for good. Call at the end of construction or loading."""
        self.requires_grad_(False)
        super().train(False)

    def frozen(self) -> Self:
        """Freeze the network and return it."""
        self.freeze()
        return self

    def train(self, mode: bool = True) -> FrozenModule:
        """Do nothing: a frozen network has a single mode."""
        return self

    def wrap_entries(self, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Replace each entry of this network by what `wrap` makes of it; both take the network first."""
        for name in self.entries:
            bound = getattr(self, name)
            setattr(self, name, MethodType(wrap(bound.__func__), self))


def networks_in(model: Any) -> list[FrozenModule]:
    """Return the frozen networks in a model, or in the one that a method belongs to; of nested ones the innermost."""
    owner = getattr(model, "__self__", model)
    parts = owner.modules() if isinstance(owner, nn.Module) else ()
    networks = [part for part in parts if isinstance(part, FrozenModule)]
    return [part for part in networks if sum(isinstance(inner, FrozenModule) for inner in part.modules()) == 1]


def rebound(model: Any) -> Any:
    """Return a method of a network as it is after its entries have been wrapped, and other models as they are."""
    owner, name = getattr(model, "__self__", None), getattr(model, "__name__", "")
    return getattr(owner, name) if isinstance(owner, FrozenModule) and name in owner.entries else model
