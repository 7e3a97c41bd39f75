"""Energy of target attributes: minus the log-probability that a classifier gives them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from promptgen.energies.base import Sample
from promptgen.errors import ConfigError
from promptgen.labels import class_index
from promptgen.perception.base import Classifier


class ClassifierEnergy(nn.Module):
    """``E(x) = sum_a weight_a * -log P(a = v_a | x)`` in nats, from log-softmax of the logits.

    Args:
        classifier: classifies images by attribute.
        wanted: target label of each controlled attribute, such as ``{"glasses": "with"}``.
        weights: weights by attribute; the default is 1.

    Raises:
        ConfigError: the classifier does not know an attribute or label, or a weight belongs to no target attribute.

    Example:
        >>> import torch
        >>> class Reader:
        ...     attributes = {"glasses": ("without", "with")}
        ...     def __call__(self, image):
        ...         return {"glasses": torch.tensor([[0.0, 0.0]]).expand(len(image), -1)}  # a coin flip
        >>> energy = ClassifierEnergy(Reader(), {"glasses": "with"})
        >>> round(energy(Sample(latent=torch.zeros(1, 4), image=torch.zeros(1, 3, 8, 8))).item(), 4)  # log(2)
        0.6931
    """

    def __init__(
        self, classifier: Classifier, wanted: Mapping[str, str], weights: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        if not wanted:
            raise ConfigError(f"no target attribute: choose from {', '.join(classifier.attributes)}")
        if unused := set(weights or {}) - set(wanted):
            raise ConfigError(
                f"{', '.join(sorted(unused))} has a weight but no target; targets are {', '.join(wanted)}"
            )
        self.classifier = classifier
        self.weights = dict.fromkeys(wanted, 1.0) | dict(weights or {})
        self.indices = {name: class_index(classifier.attributes, name, label) for name, label in wanted.items()}

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,), at least 0 if no weight is negative."""
        logits = self.classifier(sample.image)
        energy = sample.image.new_zeros(len(sample.image))
        for attribute, index in self.indices.items():
            energy = energy - self.weights[attribute] * logits[attribute].log_softmax(dim=1)[:, index]
        return energy
