"""Networks with frozen weights."""

from __future__ import annotations

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

    def freeze(self) -> None:
        """Disable weight gradients and switch to evaluation for good. Call at the end of construction or loading."""
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> FrozenModule:
        """Do nothing: a frozen network has a single mode."""
        return self
