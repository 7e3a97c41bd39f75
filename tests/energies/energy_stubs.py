"""Small stand-ins for the models that energies look through."""

import torch
from torch import Tensor

from promptgen.energies.base import Sample


class LinearClassifier(torch.nn.Module):
    """Reads `hair` (2 classes) and `age` (3 classes) off the first five numbers of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes = {"hair": ("short", "long"), "age": ("young", "middle", "old")}
        self.calls = 0

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        flat = image.flatten(1)
        return {"hair": flat[:, :2], "age": flat[:, 2:5]}


def sample_of(image: Tensor) -> Sample:
    return Sample(latent=image.flatten(1), image=image)


def random_images(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)
