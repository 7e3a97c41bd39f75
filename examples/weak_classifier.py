"""A classifier that sees badly, to show what its errors do and who notices: docs/report.md has the figures.

`experiments/world-weak-classifier.yaml` names it by its dotted path.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

import promptgen.world
from promptgen.world.networks import load_network

WEIGHTS = Path(promptgen.world.__file__).parent / "weights" / "world-classifier.safetensors"


class ShortSighted(nn.Module):
    """The world's classifier of hair, which sees no more than a few pixels of a picture.

    Args:
        side: pixels along each side that it sees, from 1 to the picture's.
    """

    attributes = {"hair": ("short", "long")}  # noqa: RUF012

    def __init__(self, side: int = 5) -> None:
        super().__init__()
        self.side = side
        self.network = load_network(WEIGHTS)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits, (B, 2), of the hair on images (B, 3, 64, 64) in [0, 1]."""
        seen = functional.interpolate(image, size=self.side, mode="area")
        blurred = functional.interpolate(seen, size=image.shape[-1], mode="bilinear")
        return {"hair": self.network(blurred)["hair"]}
