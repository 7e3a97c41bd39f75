"""An energy that rewards diversity: images are wanted that the generator makes too seldom.

The Vendi score of a distribution is ``exp H(S)``, where ``H(S) = -tr(S log S)``, S = E[x x^T], and x are features of
unit length (`promptgen.metrics.vendi`). The distribution p* that maximises

    weight * H(S) - KL(p* || p)

over all distributions is unique, since H is concave in S and S is linear in p*. It is ``p exp(-weight E)`` with the
energy ``E = x^T (log S) x``, where S is that of p* itself: what p* already has enough of is no longer rewarded, so that
no weight makes it collapse to the rarest images. S is found by weighting the generator's own images.

The energy is therefore fitted before it is used: to the features of such images, once, or to what an earlier fit found.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from promptgen.energies.base import Sample
from promptgen.errors import ConfigError, DataError
from promptgen.metrics.features import check_features
from promptgen.networks.frozen import rebound

LEAST_EIGENVALUE = 1e-3
"""Eigenvalues of S below this one, of directions that hardly any image has, count as this large."""

LEAST_EFFECTIVE = 256
"""Least effective number of images from which S is estimated: fewer would be learned by heart."""

ALIKE = 1e-6
"""Fraction of all features beside the common one below which images are all alike."""

CLOSE, MOST_STEPS = 1e-3, 500
"""Largest sum of absolute differences between the weights and those of their own energy, and most steps to it."""


class DiversityEnergy(nn.Module):
    """``E = x^T (log S) x`` of features x of unit length, nats.

    Args:
        network: maps images (B, 3, H, W) to features (B, F).
        weight: what the energy will be multiplied by: nats of KL to the generator that a nat of the log Vendi score is
            worth.

    Example:
        Of 1,600 images 1,200 are red and 400 blue; with a weight of 1, red becomes ``sqrt(3)`` times as frequent:

        >>> colours = torch.eye(3)[[0] * 1200 + [2] * 400][:, :, None, None]
        >>> energy = DiversityEnergy(lambda image: image.mean(dim=(2, 3)), weight=1.0)
        >>> energy.fit(energy.features(colours))
        >>> tilted = torch.tensor([0.75, 0.25]) * (-energy(Sample(torch.zeros(2, 1), colours[[0, -1]]))).exp()
        >>> round(float(tilted[0] / tilted[1]) ** 2, 2)
        3.0
    """

    axes: Tensor | None
    logs: Tensor | None

    def __init__(self, network: Callable[[Tensor], Tensor], *, weight: float) -> None:
        super().__init__()
        self.network, self.weight = network, weight
        # The network that a method belongs to moves to a device with the energy.
        self.owner = owner if isinstance(owner := getattr(network, "__self__", None), nn.Module) else None
        self.register_buffer("axes", None)
        self.register_buffer("logs", None)

    def features(self, image: Tensor) -> Tensor:
        """Return the features, (B, F), of images (B, 3, H, W).

        Raises:
            DataError: the network does not return features (B, F).
        """
        features: Tensor = rebound(self.network)(image)
        if features.ndim != 2:
            check_features(features)  # says what is wrong
        return features

    def fit(self, features: Tensor) -> None:
        """Find S for features, (N, F), of at least 256 images of the generator.

        Raises:
            ConfigError: the weight asks for more diversity than these images show.
            DataError: the images are all alike, or the features are not finite.
        """
        units = unit_length(check_features(features).double())
        log_weights = diverse_weights(units, self.weight)
        effective = 1 / float(log_weights.exp().square().sum())
        if effective < LEAST_EFFECTIVE:
            raise ConfigError(
                f"a weight of {self.weight:g} asks for more diversity than {len(units)} images show (they are worth "
                f"{effective:.0f}, expected at least {LEAST_EFFECTIVE}): lower it, or raise samples"
            )
        eigenvalues, axes = _spectrum(units, log_weights)
        if float(eigenvalues.max()) > 1 - ALIKE:
            raise DataError("the generator's own images are all alike, so no diversity can be wanted of it")
        self.set_spectrum(axes.float(), eigenvalues.log().float())

    def set_spectrum(self, axes: Tensor, logs: Tensor) -> None:
        """Take S as an earlier fit found it: its eigenvectors, (F, R), and the logs of its eigenvalues, (R,)."""
        self.axes, self.logs = axes, logs

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,), at most 0.

        Raises:
            DataError: the energy has not been fitted.
        """
        if self.axes is None or self.logs is None:
            raise DataError("this energy of diversity has not been fitted to images of the generator: call fit")
        features = self.features(sample.image)
        units, unseen = unit_length(features), math.log(LEAST_EIGENVALUE)
        along = (units @ self.axes.to(features)).square()
        # What the axes do not hold has the least eigenvalue, and features of length zero earn nothing.
        return unseen * units.square().sum(dim=1) + along @ (self.logs.to(features) - unseen)


def unit_length(features: Tensor) -> Tensor:
    """Return features, (N, F), divided by their lengths."""
    return nn.functional.normalize(features, dim=1)


def diverse_weights(units: Tensor, weight: float) -> Tensor:
    """Return the logs of the weights, (N,), which sum to 1, of the most diverse distribution of samples.

    They maximise ``weight * H(S) - KL`` to equal weights: mirror ascent, whose step halves where it would descend.

    Args:
        units: features of unit length, (N, F) float64.
        weight: factor of the entropy, positive.

    Example:
        >>> units = torch.eye(2, dtype=torch.float64)[[0, 0, 0, 0, 1]]
        >>> shares = diverse_weights(units, weight=1.0).exp()  # each class's share becomes its square root, scaled
        >>> round(float(shares[:4].sum() / shares[4]), 2)
        2.0
    """
    n, step = len(units), 0.5
    log_weights = torch.full((n,), -math.log(n), dtype=units.dtype)

    def objective(log_weights: Tensor, eigenvalues: Tensor) -> float:
        divergence = float(log_weights.exp() @ log_weights) + math.log(n)
        entropy = -float((eigenvalues * eigenvalues.log()).sum())  # H(S), nats
        return weight * entropy - divergence

    eigenvalues, axes = _spectrum(units, log_weights)
    value = objective(log_weights, eigenvalues)
    for _ in range(MOST_STEPS):
        own = (-weight * (units @ axes).square() @ eigenvalues.log()).log_softmax(dim=0)
        if float((own.exp() - log_weights.exp()).abs().sum()) < CLOSE:
            break
        moved = ((1 - step) * log_weights + step * own).log_softmax(dim=0)
        spectrum = _spectrum(units, moved)
        if (moved_value := objective(moved, spectrum[0])) >= value:
            log_weights, (eigenvalues, axes), value = moved, spectrum, moved_value
            step = min(1.0, 1.5 * step)
        else:
            step /= 2
    return log_weights


def _spectrum(units: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues of S, (R,), the small ones raised, and its eigenvectors, (F, R), with R = min(N, F)."""
    rows = units * (0.5 * log_weights).exp()[:, None]
    _, singular, axes = torch.linalg.svd(rows, full_matrices=False)
    return singular.square().clamp(min=LEAST_EIGENVALUE), axes.T
