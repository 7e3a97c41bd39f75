"""How close two sets of images are, measured in the features of a network.

    Frechet distance   |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2))    of means m and covariances S, as if Gaussian
    kernel distance    unbiased squared MMD with k(x, y) = (1 + x . y / D)^3

Precision and recall are in `promptgen.metrics.precision_recall`; `compare` returns all four. They depend on the
network, so figures from different networks are not comparable. The Frechet distance of samples is too large on average,
the more so the fewer they are; `Frechet.floor` is its value by chance alone. The kernel distance has no such bias, and
may be negative. Precision and recall depend on the numbers of samples, so compare them at equal numbers.

M. Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", NeurIPS 2017,
https://arxiv.org/abs/1706.08500
M. Binkowski et al., "Demystifying MMD GANs", ICLR 2018, https://arxiv.org/abs/1801.01401

torch-fidelity does the arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.estimate import Estimate, student_quantile
from promptgen.metrics.features import FeatureStatistics, disjoint_parts, matching_features
from promptgen.metrics.precision_recall import precision_recall_intervals
from promptgen.metrics.rows import Rows
from promptgen.metrics.sizes import SUBSET_SIZE, SUBSETS
from promptgen.networks.torchvision_ops import import_fidelity
from promptgen.seeding import stream


@dataclass(frozen=True)
class Frechet:
    """The Frechet distance of two sets.

    Attributes:
        value: squared distance.
        floor: mean squared distance, to first order, between two samples of these sizes from one Gaussian with the
            pooled covariance; reliable if there are many more samples than features.
        n: number of samples in the set.
        n_reference: number of samples in the reference.
        dim: number of features per sample.
    """

    value: float
    floor: float
    n: int
    n_reference: int
    dim: int

    @property
    def few_samples(self) -> bool:
        """Whether a covariance is singular, which makes the distance unreliable and the floor too low."""
        return min(self.n, self.n_reference) <= self.dim


@dataclass(frozen=True)
class Kernel:
    """The kernel distance of two sets.

    Attributes:
        value: mean over disjoint subsets.
        error: standard error of the mean, from the spread of the subsets.
        subsets: number of subsets.
        subset_size: samples of each set per subset.
    """

    value: float
    error: float
    subsets: int
    subset_size: int

    def interval(self, confidence: float = 0.95) -> Estimate:
        """Return the distance with its interval, from Student's t over the subsets."""
        half = student_quantile(self.subsets, confidence) * self.error
        return Estimate(self.value, self.value - half, self.value + half)


@dataclass(frozen=True)
class Quality:
    """All quality metrics of a set of images against a reference.

    Attributes:
        n: number of samples in the set.
        n_reference: number of samples in the reference.
        frechet: the Frechet distance.
        kernel: the kernel distance.
        precision: share of the set that resembles the reference, with its interval.
        recall: share of the reference that the set covers, with its interval.
    """

    n: int
    n_reference: int
    frechet: Frechet
    kernel: Kernel
    precision: Estimate
    recall: Estimate

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics by name, and whether there are too few samples for the Frechet distance."""
        return {**asdict(self), "few_samples": self.frechet.few_samples}


def frechet_distance(statistics: FeatureStatistics, reference: FeatureStatistics) -> Frechet:
    """Return the Frechet distance between two sets from their statistics.

    Raises:
        DataError: the sets differ in their number of features.
        TooFewSamplesError: a set has fewer than two samples.
    """
    first, second = ({"mu": part.mean.numpy(), "sigma": part.covariance.numpy()} for part in (statistics, reference))
    if first["mu"].shape != second["mu"].shape:
        raise DataError(f"both sets must have the same features, got {len(first['mu'])} and {len(second['mu'])}")
    metrics = import_fidelity("metric_fid").fid_statistics_to_metric(first, second, verbose=False)
    value = max(next(iter(metrics.values())), 0.0)
    return Frechet(value, _floor(statistics, reference), statistics.n, reference.n, len(statistics.mean))


def kernel_distance(features: Rows, reference: Rows, *, seed: int = 0) -> Kernel:
    """Return the kernel distance between features, (N, D), and those of a reference, (M, D).

    Both sets are split at random into disjoint subsets, which are independent, so their spread gives the standard
    error. The larger set is cut to the size of the smaller one.

    Args:
        features: features of the set.
        reference: features of the reference.
        seed: seed of the split.

    Raises:
        DataError: the features are not (N, D) and (M, D), or not finite.
        TooFewSamplesError: a set has fewer than two samples per subset.
    """
    n = min(len(features), len(reference))
    if n < 2 * SUBSETS:
        raise TooFewSamplesError(f"a kernel distance needs at least {2 * SUBSETS} samples of each set, got {n}")
    size = min(SUBSET_SIZE, n // SUBSETS)
    parts = [
        disjoint_parts(len(rows), n // size, size, stream(seed, "kernel distance", name))
        for name, rows in (("set", features), ("reference", reference))
    ]
    options = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_coef0": 1}
    kernel_mmd = import_fidelity("metric_kid").kernel_mmd
    subsets = (matching_features(features[one], reference[other]) for one, other in zip(*parts, strict=True))
    distances = [float(kernel_mmd(*(part.double().numpy() for part in pair), **options)) for pair in subsets]
    values = torch.tensor(distances, dtype=torch.float64)
    return Kernel(float(values.mean()), float(values.std()) / math.sqrt(len(values)), len(values), size)


def compare(features: Rows, reference: Rows, *, confidence: float = 0.95, seed: int = 0) -> Quality:
    """Return all quality metrics of features, (N, D), against those of a reference, (M, D).

    Memory does not grow with the number of samples: the Frechet and the kernel distance read all of them in parts, and
    precision and recall are those of a random subset.

    Args:
        features: features of the set.
        reference: features of the reference.
        confidence: coverage probability of the intervals of precision and recall.
        seed: seed of the subset, and of the splits from which errors are estimated.

    Raises:
        DataError: the features are not (N, D) and (M, D), or not finite.
        TooFewSamplesError: a set has too few samples for one of the metrics.

    Example:
        A set compared with itself has distance 0, and covers everything:

        >>> features = torch.randn(40, 2, generator=stream(0, "example"))
        >>> quality = compare(features, features)
        >>> round(quality.frechet.value, 3), quality.precision.value, quality.recall.value
        (0.0, 1.0, 1.0)
        >>> quality.frechet.floor > 0  # two different samples would not reach 0
        True
    """
    frechet = frechet_distance(FeatureStatistics.of(features), FeatureStatistics.of(reference))
    precision, recall = precision_recall_intervals(features, reference, confidence=confidence, seed=seed)
    return Quality(
        n=len(features),
        n_reference=len(reference),
        frechet=frechet,
        kernel=kernel_distance(features, reference, seed=seed),
        precision=precision,
        recall=recall,
    )


def _floor(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """Return the mean Frechet distance between two samples of one Gaussian, to first order in 1 / n.

    With eigenvalues l_i of the covariance S, the means contribute ``tr S`` and the covariances, through the second
    derivative of the distance, ``sum_ij (1 + [i = j]) l_i l_j / (2 (l_i + l_j))``, both times ``1 / n + 1 / n'``.
    """
    pooled = (first.n * first.covariance + second.n * second.covariance) / (first.n + second.n)
    values = torch.linalg.eigvalsh(pooled).clamp(min=0)
    sums = (values[:, None] + values).clamp(min=torch.finfo(values.dtype).tiny)
    pairs = values[:, None] * values / (2 * sums)
    return float((values.sum() + pairs.sum() + pairs.diagonal().sum()) * (1 / first.n + 1 / second.n))
