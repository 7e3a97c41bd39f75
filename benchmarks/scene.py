"""A generator, readers and energies that are known exactly: an image shows six features of its latent.

The features are orthonormal projections ``u = z V`` of the latent, so ``u ~ N(0, I)`` in any number of dimensions D.
Each pixel shows one feature as ``1/2 + u / SPAN``. Readers and energies see nothing but the image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from promptgen.energies.base import Sample
from promptgen.generators.base import GaussianPrior, Generator
from promptgen.networks.frozen import FrozenModule
from promptgen.seeding import stream

FEATURES = 6
SPAN = 16.0

Score = Callable[[Tensor], Tensor]
"""Maps features, (B, 6), to a number per sample, (B,)."""


class Scene(FrozenModule):
    """The generator: an image of 1 x 2 pixels in 3 channels shows the features of a latent.

    Args:
        dim: number of dimensions D of the latent, at least 6.
    """

    image_shape = (3, 1, 2)
    directions: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.prior = GaussianPrior.standard(dim)
        drawn = torch.randn(dim, FEATURES, generator=stream(0, "directions", dim), dtype=torch.float64)
        self.register_buffer("directions", torch.linalg.qr(drawn)[0].float())
        self.freeze()

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, 1, 2), of latents (B, D)."""
        return image_of(latent @ self.directions)


def image_of(features: Tensor) -> Tensor:
    """Return the images, (B, 3, 1, 2), of features (B, 6)."""
    return (0.5 + features / SPAN).reshape(-1, *Scene.image_shape)


def features_of(image: Tensor) -> Tensor:
    """Return the features, (B, 6), that images (B, 3, 1, 2) show."""
    return (image.flatten(1) - 0.5) * SPAN


class CountedGenerator:
    """A generator that counts what it is asked for.

    An image forward is one unit. One with gradient is three: the two more are counted when the gradient is taken.

    Attributes:
        forward: images generated.
        backward: gradients of images taken.

    Example:
        >>> generator = CountedGenerator(Scene(8))
        >>> latent = torch.zeros(5, 8, requires_grad=True)
        >>> image = generator(latent)
        >>> generator.units
        5
        >>> image.sum().backward()
        >>> generator.units
        15
    """

    def __init__(self, generator: Generator) -> None:
        self.generator, self.prior, self.image_shape = generator, generator.prior, generator.image_shape
        self.forward = self.backward = 0

    @property
    def units(self) -> int:
        return self.forward + 2 * self.backward

    def __call__(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, H, W), of latents (B, D)."""
        image = self.generator(latent, noise=noise)
        self.forward += len(latent)
        if image.requires_grad:
            image.register_hook(self._count_gradient)  # type: ignore[no-untyped-call]
        return image

    def _count_gradient(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


@dataclass(frozen=True)
class Scale:
    """Ordered classes of a score.

    Attributes:
        score: the score.
        boundaries: values of the score where one class ends and the next begins, (K - 1,), ascending.
        width: width of the boundaries, which are sigmoids of the score.
    """

    score: Score
    boundaries: tuple[float, ...]
    width: float = 0.15

    def logits(self, features: Tensor) -> Tensor:
        """Return the log-probabilities of the classes, (B, K), of features (B, 6)."""
        ends = features.new_tensor([-torch.inf, *self.boundaries, torch.inf])
        low, high = ends[:-1], ends[1:]
        score = self.score(features)[:, None]
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))
        between = F.logsigmoid((score - low) / self.width) + F.logsigmoid((high - score) / self.width)
        return between + torch.log1p(-torch.exp((low - high) / self.width))


class Reader(FrozenModule):
    """The classifier of a scene, exact and differentiable.

    Args:
        scales: the classes of each attribute, which are named by their index.
    """

    attributes: Mapping[str, tuple[str, ...]]

    def __init__(self, scales: Mapping[str, Scale]) -> None:
        super().__init__()
        self.scales = dict(scales)
        self.attributes = {
            name: tuple(str(index) for index in range(len(scale.boundaries) + 1)) for name, scale in scales.items()
        }

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the logits of each attribute, (B, K), of images (B, 3, 1, 2)."""
        features = features_of(image)
        return {name: scale.logits(features) for name, scale in self.scales.items()}


class Likeness(FrozenModule):
    """A steep energy like that of a text: ``weight (1 - cos)`` of the angle between an embedding and a wanted one."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,)."""
        return self.weight * (1 - likeness(features_of(sample.image)))


class Near(FrozenModule):
    """``|(u1, u2) - centre|^2 / (2 width^2)``: the first two features should be near a point.

    Args:
        centre: the point.
        width: standard deviation.
    """

    def __init__(self, centre: tuple[float, float], width: float) -> None:
        super().__init__()
        self.centre, self.width = centre, width

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,)."""
        features = features_of(sample.image)[:, :2]
        return (features - features.new_tensor(self.centre)).square().sum(dim=1) / (2 * self.width**2)


def curved(u: Tensor) -> Tensor:
    """Return a score that bends in four features."""
    return u[:, 0] + 0.5 * torch.sin(2 * u[:, 1]) + 0.4 * u[:, 2] * u[:, 3]


def leaning(u: Tensor) -> Tensor:
    """Return a score that shares the first feature with `curved`."""
    return 0.5 * u[:, 0] - u[:, 2] + 0.3 * u[:, 1] * u[:, 3]


def beside(u: Tensor) -> Tensor:
    """Return the score of the bystander, which correlates with `curved` but is never asked for."""
    return 0.6 * u[:, 0] + 0.8 * u[:, 4]


def likeness(u: Tensor) -> Tensor:
    """Return the cosine between the embedding of a scene and the wanted one."""
    embedding = torch.stack([u[:, 0] + 0.5 * torch.sin(2 * u[:, 1]), u[:, 2] - 0.3 * u[:, 0].square()], dim=1)
    embedding = F.normalize(F.pad(embedding, (0, 1), value=1.5), dim=1)
    return embedding @ F.normalize(u.new_tensor([1.0, 0.8, 0.2]), dim=0)
