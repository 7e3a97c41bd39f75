"""Energy of wanted attributes: minus the log-probability that a classifier gives them."""

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
        classifier: reads the attributes off images.
        wanted: the wanted label of each attribute, such as ``{"glasses": "with"}``.
        weights: weight of each attribute; those left out count once.

    Raises:
        ConfigError: an attribute or label is unknown to the classifier, or a weight is for an attribute not wanted.
    """

    def __init__(
        self, classifier: Classifier, wanted: Mapping[str, str], weights: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        if not wanted:
            raise ConfigError(f"no attribute is wanted, expected some of {', '.join(classifier.attributes)}")
        if unused := set(weights or {}) - set(wanted):
            raise ConfigError(f"weights are given for {', '.join(sorted(unused))}, wanted are {', '.join(wanted)}")
        self.classifier = classifier
        self.weights = dict.fromkeys(wanted, 1.0) | dict(weights or {})
        self.indices = {name: class_index(classifier.attributes, name, label) for name, label in wanted.items()}

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,), from 0 on when no weight is negative."""
        logits = self.classifier(sample.image)
        energy = sample.image.new_zeros(len(sample.image))
        for attribute, index in self.indices.items():
            energy = energy - self.weights[attribute] * logits[attribute].log_softmax(dim=1)[:, index]
        return energy
