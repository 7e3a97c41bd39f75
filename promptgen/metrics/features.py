"""Features of images, (N, D), from a network: computed batch by batch, and kept or summarised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.rows import Rows, chunks
from promptgen.networks.finite import require_finite

FeatureNetwork = Callable[[Tensor], Tensor]
"""Maps images (B, 3, H, W) in [0, 1] to features (B, D)."""


class FeatureStatistics:
    """Number, mean and covariance of features that arrive in batches; memory does not grow with their number.

    Attributes:
        n: number of samples so far.
        mean: mean so far, (D,) float64.

    Example:
        >>> statistics = FeatureStatistics()
        >>> statistics.update(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
        >>> statistics.update(torch.tensor([[4.0, 1.0]]))
        >>> statistics.n, statistics.mean.tolist(), statistics.covariance.tolist()
        (3, [2.0, 1.0], [[4.0, 0.0], [0.0, 0.0]])
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    @classmethod
    def of(cls, features: Rows) -> FeatureStatistics:
        """Return the statistics of features, (N, D), which are read in chunks; the errors are those of `update`."""
        statistics = cls()
        for _, part in chunks(features):
            statistics.update(part)
        return statistics

    def update(self, features: Tensor) -> None:
        """Add features, (B, D).

        Raises:
            DataError: not (B, D), not finite, or D differs from that of earlier batches.
        """
        rows = check_features(features, self.n).double()
        if not len(rows):
            return
        if not self.n:
            self.mean, self._scatter = rows.new_zeros(rows.shape[1]), rows.new_zeros(rows.shape[1], rows.shape[1])
        if rows.shape[1] != len(self.mean):
            raise DataError(f"these samples have {rows.shape[1]} features, earlier ones had {len(self.mean)}")
        mean, n = rows.mean(dim=0), self.n + len(rows)
        centred, shift = rows - mean, mean - self.mean
        self._scatter += centred.T @ centred + torch.outer(shift, shift) * (self.n * len(rows) / n)
        self.mean = self.mean + shift * (len(rows) / n)
        self.n = n

    @property
    def covariance(self) -> Tensor:
        """Covariance so far, (D, D) float64.

        Raises:
            TooFewSamplesError: there are fewer than two samples.
        """
        if self.n < 2:
            raise TooFewSamplesError(f"a covariance needs at least 2 samples, got {self.n}")
        return self._scatter / (self.n - 1)


def image_features(network: FeatureNetwork, batches: Iterable[Tensor], first: int = 0) -> Iterator[Tensor]:
    """Yield the features, (B, D) float32 on the CPU, of batches of images (B, 3, H, W), clamped to [0, 1].

    `FeatureStatistics` accepts them one batch after another; ``torch.cat(list(...))`` keeps them all.

    Args:
        network: the network.
        batches: the batches of images.
        first: number of the first image of the first batch, for errors.

    Raises:
        DataError: the network does not return (B, D), or a pixel or a feature is not finite; the message names the
            sample.
    """
    for images in batches:
        require_finite(images, "the pixels", first)
        with torch.inference_mode():
            features = network(images.clamp(0, 1))
        if features.ndim != 2 or len(features) != len(images):
            shape = tuple(features.shape)
            raise DataError(f"a network must return one vector per image, ({len(images)}, D), got shape {shape}")
        yield check_features(features, first)
        first += len(images)


def check_features(features: Tensor, first: int = 0) -> Tensor:
    """Return features, (N, D), as float32 on the CPU.

    Args:
        features: the features.
        first: number of the first sample, for errors.

    Raises:
        DataError: not (N, D), or not finite as float32; the message names the sample.
    """
    if features.ndim != 2 or not features.shape[1]:
        raise DataError(f"features must be of shape (N, D), got {tuple(features.shape)}")
    return require_finite(features.detach().float(), "the features", first).cpu()


def matching_features(features: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features of two sets, (N, D) and (M, D), as float32 on the CPU.

    Raises:
        DataError: the features are not (N, D) and (M, D), or not finite.
    """
    first, second = check_features(features), check_features(reference)
    if first.shape[1] != second.shape[1]:
        raise DataError(f"both sets must have the same features, got {first.shape[1]} and {second.shape[1]}")
    return first, second


def disjoint_parts(n: int, count: int, size: int, rng: torch.Generator) -> tuple[Tensor, ...]:
    """Return the indices of `count` disjoint random parts of `n` samples, `size` samples each."""
    return torch.split(torch.randperm(n, generator=rng)[: count * size], size)
