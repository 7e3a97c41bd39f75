"""Energy of a moment constraint: ``E(x) = -weight * beta . gamma(x)``, which tilts the class shares of a generator.

gamma is always the vector of class *probabilities*, even if the constraint is on hard labels. A hard label has no
gradient, and an energy with a surrogate gradient would not define a distribution to measure the flow against. The
controlled distribution is therefore ``p(x) exp(weight * beta . P(class | x))`` in both cases, and `kind` says which
shares beta is fitted to: those of hard labels, which are counted in the end, or mean probabilities.
`promptgen.moments.ascent.MomentAscent` adjusts beta until these shares meet the target.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from promptgen.energies.base import Sample
from promptgen.errors import DataError, TooFewSamplesError
from promptgen.labels import FeatureKind, classes, feature_names, simplices
from promptgen.perception.base import Classifier, logits_of_samples


class MomentEnergy(nn.Module):
    """Tilt of one or several attributes, which also counts the classes of the training samples.

    Args:
        classifier: classifies images by attribute.
        attributes: attributes or products such as ``"hair x glasses"``, one simplex each.
        beta: multipliers, (K,), for the simplices side by side; the default is zeros (no tilt).
        weight: the lambda of the reference code; 1 is the exact tilt.
        kind: whether `take_shares` counts hard labels or averages probabilities.

    Attributes:
        names: name of each multiplier, such as ``"hair:short"``.
        sizes: number of classes of each attribute; they sum to K.
        beta: the multipliers, a buffer, (K,).

    Example:
        With a positive multiplier for "long", images that are certainly long have a lower energy:

        >>> class Reader:
        ...     attributes = {"hair": ("short", "long")}
        ...     def __call__(self, image):
        ...         sure = 1000 * (image.mean(dim=(1, 2, 3)) - 0.5)
        ...         return {"hair": torch.stack([-sure, sure], dim=1)}
        >>> energy = MomentEnergy(Reader(), "hair", beta=[-0.5, 0.5])
        >>> images = torch.tensor([0.0, 1.0])[:, None, None, None].expand(-1, 3, 4, 4)
        >>> energy.names, energy(Sample(torch.zeros(2, 4), images)).tolist()
        (('hair:short', 'hair:long'), [0.5, -0.5])
    """

    beta: Tensor
    _feature_sum: Tensor
    _count: int

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
            DataError: there is not one multiplier per name, or a multiplier is not finite.
        """
        values = torch.as_tensor(beta, dtype=self.beta.dtype)
        if values.shape != self.beta.shape or not bool(values.isfinite().all()):
            raise DataError(f"beta must be {len(self.names)} finite numbers ({', '.join(self.names)}), got {beta!r}")
        self.beta.copy_(values)

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,), and count the samples if their images carry a gradient (in training)."""
        logits = logits_of_samples(self.classifier, sample.image, sample.latent)
        if sample.image.requires_grad:
            labels = simplices({name: part.detach() for name, part in logits.items()}, self.attributes, self.kind)
            self._feature_sum = self._feature_sum.to(labels.device) + labels.sum(dim=0, dtype=torch.float64)
            self._count += len(labels)
        return -self.weight * (simplices(logits, self.attributes, "soft") @ self.beta)

    def take_shares(self) -> Tensor:
        """Return the shares, (K,) float64 on the CPU, of all training samples since the last call, and reset the count.

        The shares include all micro-batches, and the classifier does not run again.

        Raises:
            TooFewSamplesError: there was no training sample since the last call.
        """
        if self._count == 0:
            raise TooFewSamplesError("no training sample since the shares were last taken: evaluate the energy first")
        shares = (self._feature_sum / self._count).cpu()
        self.forget_shares()
        return shares

    def forget_shares(self) -> None:
        """Reset the count of training samples."""
        self._feature_sum = torch.zeros(len(self.names), dtype=torch.float64)
        self._count = 0
