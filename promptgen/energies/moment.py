"""Energy of a moment constraint: ``E(x) = -weight * beta . gamma(x)``, which tilts the class shares of a generator.

gamma is always the vector of class *probabilities*, also where the constraint is on hard labels. A hard label has no
gradient, and an energy whose gradient is not that of its value would define no distribution that the flow could
be measured against. So the controlled distribution is ``p(x) exp(weight * beta . P(class | x))`` in both cases, and
`kind` says which shares this family is fitted by: those of hard labels (what is counted in the end) or mean
probabilities. `promptgen.moments.ascent.MomentAscent` moves beta until they are met.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from promptgen.energies.base import Sample
from promptgen.errors import DataError, TooFewSamplesError
from promptgen.labels import FeatureKind, classes, feature_names, features
from promptgen.perception.base import Classifier


class MomentEnergy(nn.Module):
    """Tilt of one or several attributes, which also counts what it sees during training.

    Args:
        classifier: reads the attributes off images.
        attributes: attributes or products such as ``"hair x glasses"``, one simplex each.
        beta: multipliers, (K,), for the simplices side by side; zeros (no tilt) if left out.
        weight: the lambda of the reference; 1 is the exact tilt.
        kind: whether `take_shares` counts hard labels or averages probabilities.

    Attributes:
        names: name of each multiplier, such as ``"hair:short"``.
        sizes: number of classes of each attribute; they sum to K.
        beta: the multipliers, a buffer, (K,).
    """

    beta: Tensor
    _feature_sum: Tensor
    _seen: int

    def __init__(
        self,
        classifier: Classifier,
        attributes: str | Sequence[str],
        beta: ArrayLike | None = None,
        weight: float = 1.0,
        kind: FeatureKind = "hard",
    ) -> None:
        super().__init__()
        self.attributes = (attributes,) if isinstance(attributes, str) else tuple(attributes)
        self.names = feature_names(classifier.attributes, self.attributes)
        self.sizes = tuple(len(classes(classifier.attributes, attribute)) for attribute in self.attributes)
        self.classifier = classifier
        self.weight = weight
        self.kind = kind
        self.register_buffer("beta", torch.zeros(len(self.names)))
        if beta is not None:
            self.set_beta(beta)
        self.forget_shares()

    def set_beta(self, beta: ArrayLike) -> None:
        """Replace the multipliers by `beta`, (K,).

        Raises:
            DataError: another number of multipliers than names, or one is not finite.
        """
        values = torch.as_tensor(beta, dtype=self.beta.dtype)
        if values.shape != self.beta.shape or not bool(values.isfinite().all()):
            raise DataError(f"beta must be {len(self.names)} finite numbers ({', '.join(self.names)}), got {beta!r}")
        self.beta.copy_(values)

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,); counts the samples if their images carry a gradient, as in training only."""
        logits = self.classifier(sample.image)
        if sample.image.requires_grad:
            seen = features({name: part.detach() for name, part in logits.items()}, self.attributes, self.kind)
            self._feature_sum = self._feature_sum.to(seen.device) + seen.sum(dim=0, dtype=torch.float64)
            self._seen += len(seen)
        return -self.weight * (features(logits, self.attributes, "soft") @ self.beta)

    def take_shares(self) -> Tensor:
        """Return the shares, (K,) float64 on the CPU, of all training samples since the last call, and forget them.

        Micro-batches add up, and the classifier runs no second time.

        Raises:
            TooFewSamplesError: no training sample was seen since the last call.
        """
        if self._seen == 0:
            raise TooFewSamplesError("the moment energy has seen no image with a gradient since its shares were taken")
        shares = (self._feature_sum / self._seen).cpu()
        self.forget_shares()
        return shares

    def forget_shares(self) -> None:
        """Forget the samples counted so far."""
        self._feature_sum = torch.zeros(len(self.names), dtype=torch.float64)
        self._seen = 0
