"""An energy that rewards diversity: images are wanted that the generator makes too seldom.

With x the features of an image along the principal components of the generator's own images, in units of their standard
deviations, the energy is ``-|x|^2 / 2``. Where features are Gaussian, the tilt ``exp(weight |x|^2 / 2)`` is a Gaussian
with the same mean, and ``1 / (1 - weight)`` times the variance along every component: what varied little varies more,
and nothing is asked for in particular. Features of images are bounded, so the target is a proper density.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from promptgen.energies.base import Sample
from promptgen.errors import DataError
from promptgen.metrics.features import FeatureStatistics, check_features

LEAST_VARIANCE = 1e-3
"""Components with a smaller variance, as a fraction of the largest one, are left out."""


class DiversityEnergy(nn.Module):
    """``E = -|x|^2 / 2`` of whitened features x.

    Args:
        network: maps images (B, 3, H, W) to features (B, F).
        images: batches of the generator's own images, at least two images in all.
        components: most principal components.

    Raises:
        DataError: the images are all alike, or the network does not return finite features (B, F).
        TooFewSamplesError: there are fewer than two images.

    Example:
        >>> own = torch.tensor([0.2, 0.4, 0.6, 0.8])[:, None, None, None].expand(-1, 3, 2, 2)
        >>> energy = DiversityEnergy(lambda image: image.mean(dim=(1, 2, 3))[:, None], [own])
        >>> mean, far = 0.5, 0.5 + 2 * float(own[:, 0, 0, 0].std())
        >>> images = torch.tensor([mean, far])[:, None, None, None].expand(-1, 3, 2, 2)
        >>> energy(Sample(torch.zeros(2, 1), images)).abs().round(decimals=3).tolist()  # 0, and two deviations: -2
        [0.0, 2.0]
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, network: Callable[[Tensor], Tensor], images: Iterable[Tensor], *, components: int = 16) -> None:
        super().__init__()
        self.network, statistics = network, FeatureStatistics()
        for batch in images:
            with torch.no_grad():
                statistics.update(network(batch))
        variances, directions = torch.linalg.eigh(statistics.covariance)
        variances, directions = variances.flip(0)[:components], directions.flip(1)[:, :components]
        if float(variances[0]) <= 0:
            raise DataError("the generator's own images are all alike, so no diversity can be wanted of it")
        kept = variances > LEAST_VARIANCE * variances[0]
        self.register_buffer("mean", statistics.mean.float())
        self.register_buffer("whitening", (directions[:, kept] / variances[kept].sqrt()).float())

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,), at most 0."""
        features = self.network(sample.image)
        if features.ndim != 2:
            check_features(features)  # says what is wrong
        whitened = (features - self.mean.to(features)) @ self.whitening.to(features)
        return -0.5 * whitened.square().sum(dim=1)
