"""Objectives that are linear in recorded outputs: ``E = coefficients . features(outputs)``.

An energy of weighted terms is linear in its terms, with the weights as coefficients; a moment constraint is linear in
the class probabilities of an attribute, with minus the multipliers as coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from promptgen.energies.base import Energy, Sample, WeightedSum
from promptgen.energies.moment import MomentEnergy
from promptgen.evaluations.evaluator import Outputs, Slope
from promptgen.evaluations.store import Evaluations
from promptgen.evaluations.surrogate import Kind, Records
from promptgen.labels import features as class_features
from promptgen.perception.base import Classifier
from promptgen.perception.reading import read_logits

Reader = Callable[[Sample], Tensor]


@dataclass(frozen=True)
class Objective:
    """What a flow is trained for.

    Attributes:
        name: name of the features; equal names mean equal features.
        labels: name of each feature, for records.
        kind: what the features are.
        features: maps outputs to features, (B, J).
        coefficients: nats per unit of each feature, (J,).
        differentiable: whether the features have gradients with respect to the latent.
    """

    name: str
    labels: tuple[str, ...]
    kind: Kind
    features: Callable[[Outputs], Tensor]
    coefficients: Tensor
    differentiable: bool = True

    def with_coefficients(self, coefficients: Tensor) -> Objective:
        """Return the same objective with other coefficients, (J,)."""
        return replace(self, coefficients=coefficients)

    def energy(self, features: Tensor) -> Tensor:
        """Return the energy, nats, (B,), of features, (B, J)."""
        return features @ self.coefficients.to(features)

    def slope(self, n: int, rng: torch.Generator) -> Slope | None:
        """Return what to differentiate in `n` records; None if the features have no gradient.

        Of values, it is the energy itself, up to a factor. Of probabilities, whose multipliers are not known
        beforehand, it is a random combination; not their plain sum, which is 1 and has no gradient.
        """
        if not self.differentiable:
            return None
        if self.kind == "values":
            return self.energy_slope(n)
        size = len(self.coefficients)
        direction = 2.0 * torch.randint(0, 2, (n, size), generator=rng) - 1
        constant = direction.sum(dim=1).abs() == size
        direction[constant, 0] *= -1
        return Slope(self.name, self.features, direction.to(self.coefficients))

    def energy_slope(self, n: int) -> Slope:
        """Return the energy divided by `size`, to differentiate in `n` records."""
        return Slope(self.name, self.features, (self.coefficients / self.size).expand(n, len(self.coefficients)))

    @property
    def gradient_factor(self) -> float:
        """By what recorded gradients are multiplied so that their mean square is that of the energy's, or larger.

        The energy of probabilities is ``-beta . P``, and a record has the gradient of ``d . P`` with random signs d.
        For all a that sum to zero, ``(beta . a)^2 <= (beta' M^+ beta) (a' M a)`` with ``M = E[d d']``; with two
        classes, both sides are equal.
        """
        if self.kind == "values":
            return float(self.size)
        classes, moments = len(self.coefficients), torch.eye(len(self.coefficients), dtype=torch.float64)
        centred = moments - 1 / classes
        moments[0, 1:] -= 4 / 2**classes  # a constant sign, which has no gradient, is changed in the first class
        moments[1:, 0] -= 4 / 2**classes
        beta = centred @ self.coefficients.double().cpu()
        return math.sqrt(float(beta @ torch.linalg.pinv(centred @ moments @ centred, rtol=1e-9) @ beta))

    @property
    def size(self) -> Tensor:
        """The largest absolute coefficient, nats."""
        return self.coefficients.abs().max()

    def records(self, evaluations: Sequence[Evaluations], *, contextual: bool = False) -> Records:
        """Return all evaluations as records of these features; gradients of other features are left out.

        Args:
            evaluations: the evaluations.
            contextual: whether the features may depend on the condition, which every evaluation then has.
        """
        rows = [self._rows(part, contextual) for part in evaluations]
        return Records(*(torch.cat(columns) for columns in zip(*rows, strict=True)))

    def _rows(self, part: Evaluations, contextual: bool) -> tuple[Tensor, ...]:
        features = self.features(part.outputs)
        context = part.context if contextual and part.context is not None else part.latent.new_zeros(len(part), 0)
        if part.direction is None or part.gradient is None or part.slope_name != self.name:
            return part.latent, context, features, torch.zeros_like(features), torch.zeros_like(part.latent)
        return part.latent, context, features, part.direction, part.gradient


def control_objective(
    energy: WeightedSum, names: Mapping[str, str], *, differentiable: bool = True
) -> tuple[Objective, dict[str, Reader]]:
    """Return the objective of a weighted sum of energies, and the functions that read its terms.

    Args:
        energy: the sum.
        names: name of the output of each term; it has to change with everything that the term depends on.
        differentiable: whether all terms have a gradient.
    """

    def reader(term: Energy) -> Reader:
        return lambda sample: term(sample)[:, None]

    outputs = {names[name]: reader(term.energy) for name, term in energy.terms.items()}
    order = list(outputs)
    weights = torch.tensor([term.weight for term in energy.terms.values()])
    objective = Objective(
        name=" + ".join(order),
        labels=tuple(energy.terms),
        kind="values",
        features=lambda read: torch.cat([read[name] for name in order], dim=1),
        coefficients=weights,
        differentiable=differentiable,
    )
    return objective, outputs


def moment_objective(
    energy: MomentEnergy, name: str, *, differentiable: bool = True
) -> tuple[Objective, dict[str, Reader]]:
    """Return the objective of a moment constraint, and the function that reads the classifier.

    Args:
        energy: the constraint.
        name: name of the classifier's output; it has to change with everything that the classifier depends on.
        differentiable: whether the classifier has a gradient.
    """
    classifier = energy.classifier

    def probabilities(outputs: Outputs) -> Tensor:
        return class_features(split_logits(classifier, outputs[name]), energy.attributes, "soft")

    objective = Objective(
        name=f"{name}: {', '.join(energy.attributes)}",
        labels=energy.names,
        kind="probabilities",
        features=probabilities,
        coefficients=-energy.weight * energy.beta,
        differentiable=differentiable,
    )
    return objective, {name: classifier_reader(classifier)}


def split_logits(classifier: Classifier, read: Tensor) -> dict[str, Tensor]:
    """Return log-probabilities by attribute, (N, K_a), of what `classifier_reader` reads, (N, K)."""
    sizes = [len(labels) for labels in classifier.attributes.values()]
    return dict(zip(classifier.attributes, torch.split(read, sizes, dim=1), strict=True))


def without_gradient(reader: Reader) -> Reader:
    """Return a reader of images detached from their latents, for outputs that are recorded but not differentiated."""
    return lambda sample: reader(replace(sample, image=sample.image.detach()))


def classifier_reader(classifier: Classifier) -> Reader:
    """Return a function that reads the log-probabilities of all attributes side by side, (B, K).

    It raises DataError if a logit is NaN or infinite.
    """

    def read(sample: Sample) -> Tensor:
        logits = read_logits(classifier, sample.image, sample.latent, "the classifier", first=None)
        return torch.cat([logits[name].log_softmax(dim=1) for name in classifier.attributes], dim=1)

    return read
