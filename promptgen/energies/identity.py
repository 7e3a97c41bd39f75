"""Energy of an identity: the condition of a flow may change the pose but not the person."""

from __future__ import annotations

from torch import Tensor, nn

from promptgen.energies.base import Sample
from promptgen.errors import DataError
from promptgen.perception.base import Embedder


class IdentityEnergy(nn.Module):
    """``E = 1 - cos(e(G(f(eps; c))), e(G(f(eps; 0))))``: distance from the image of the same eps at the null condition.

    Example:
        >>> import torch
        >>> def colour(image):
        ...     return nn.functional.normalize(image.mean(dim=(2, 3)), dim=1)
        >>> red, green = torch.eye(3)[:2, :, None, None].expand(-1, -1, 8, 8)
        >>> image, anchor = torch.stack([red, green]), torch.stack([red, red])
        >>> IdentityEnergy(colour)(Sample(torch.zeros(2, 4), image, anchor=anchor)).tolist()
        [0.0, 1.0]
    """

    needs_anchor = True

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy, (B,), in [0, 2].

        Raises:
            DataError: the sample has no anchor image.
        """
        if sample.anchor is None:
            raise DataError("the identity energy needs the image at the null condition: train a flow with a condition")
        return 1 - (self.embedder(sample.image) * self.embedder(sample.anchor)).sum(dim=1)
