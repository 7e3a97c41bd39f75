"""Networks whose weights never change."""

from __future__ import annotations

from torch import nn


class FrozenModule(nn.Module):
    """A network that is only ever evaluated: no weight gradients, and `train()` does nothing."""

    def freeze(self) -> None:
        """Stop weight gradients and switch to evaluation for good. Call at the end of construction or loading."""
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> FrozenModule:
        """Ignore the request: a frozen network has one behaviour."""
        return self
