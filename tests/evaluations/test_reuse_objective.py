"""Objectives that are linear in what is recorded, against the energies that they stand for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from promptgen.energies.base import Sample, Term, WeightedSum
from promptgen.energies.moment import MomentEnergy
from promptgen.evaluations.objective import (
    classifier_reader,
    control_objective,
    moment_objective,
    split_logits,
    without_gradient,
)
from promptgen.evaluations.store import EvaluationStore
from promptgen.labels import probabilities
from promptgen.seeding import stream
from tests.evaluations.small import Coordinates, Reader, normal


def bright(sample):
    return sample.image.mean(dim=(1, 2, 3))


def far(sample):
    return sample.latent.square().sum(dim=1)


SUM = WeightedSum({"far": Term(far, 0.5), "bright": Term(bright, -3.0)})
NAMES = {"bright": "bright@1", "far": "far@1"}


def read(outputs, n=40):
    latent = normal(n)
    return EvaluationStore(Coordinates(), outputs).evaluate(latent), Sample(latent, Coordinates()(latent))


def test_a_sum_of_energies_is_linear_in_its_terms():
    objective, outputs = control_objective(SUM, NAMES)
    evaluations, sample = read(outputs)
    torch.testing.assert_close(objective.energy(objective.features(evaluations.outputs)), SUM(sample))
    assert objective.labels == ("far", "bright")
    doubled = objective.with_coefficients(2 * objective.coefficients)
    torch.testing.assert_close(doubled.energy(objective.features(evaluations.outputs)), 2 * SUM(sample))


@pytest.mark.parametrize("attribute", ["hair", "hair x glasses"])
@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_a_moment_constraint_is_linear_in_probabilities(attribute, weight):
    beta = torch.linspace(-1, 2, 2 if attribute == "hair" else 4)
    energy = MomentEnergy(Reader(), attribute, beta, weight)
    objective, outputs = moment_objective(energy, "classifier@1")
    evaluations, sample = read(outputs)
    features = objective.features(evaluations.outputs)
    torch.testing.assert_close(objective.energy(features), energy(sample))
    torch.testing.assert_close(features.sum(dim=1), torch.ones(40))
    assert objective.labels == energy.names


def test_log_probabilities_tell_what_the_classifier_said():
    image = Coordinates()(normal(20))
    row = classifier_reader(Reader())(SimpleNamespace(image=image, latent=normal(20)))
    parts = split_logits(Reader(), row)
    for name in Reader.attributes:
        torch.testing.assert_close(probabilities(parts, name), probabilities(Reader()(image), name))


def test_what_is_differentiated_is_the_energy_or_a_random_combination_of_probabilities():
    control, outputs = control_objective(SUM, NAMES)
    evaluations = EvaluationStore(Coordinates(), outputs).evaluate(normal(5), slope=control.slope(5, stream(0, "a")))
    point = normal(5).requires_grad_()
    (expected,) = torch.autograd.grad(SUM(Sample(point, Coordinates()(point))).sum(), point)
    along = torch.nn.functional.cosine_similarity(evaluations.gradient, expected)
    torch.testing.assert_close(along.abs(), torch.ones(5))
    moment, _ = moment_objective(MomentEnergy(Reader(), "hair x glasses"), "classifier@1")
    direction = moment.slope(200, stream(0, "a")).direction
    assert set(direction.unique().tolist()) == {-1.0, 1.0}
    assert direction.unique(dim=0).shape[0] == 2**4 - 2  # all but the plain sum, which is constant


def test_without_a_gradient_nothing_is_differentiated():
    objective, _ = moment_objective(MomentEnergy(Reader(hard=True), "hair"), "classifier@1", differentiable=False)
    assert objective.slope(5, stream(0, "a")) is None


def test_every_gradient_of_two_probabilities_says_something():
    objective, outputs = moment_objective(MomentEnergy(Reader(), "hair"), "classifier@1")
    slope = objective.slope(60, stream(0, "a"))
    evaluations = EvaluationStore(Coordinates(), outputs).evaluate(normal(60), slope=slope)
    assert bool((evaluations.gradient[:, 0] != 0).all())


def test_gradients_of_other_features_are_left_out():
    control, outputs = control_objective(SUM, NAMES)
    moment, more = moment_objective(MomentEnergy(Reader(), "hair"), "classifier@1")
    store = EvaluationStore(Coordinates(), {**outputs, **more})
    parts = [
        store.evaluate(normal(5), slope=control.slope(5, stream(0, "a"))),
        store.evaluate(normal(7, seed=1), slope=moment.slope(7, stream(0, "b"))),
        store.evaluate(normal(3, seed=2)),
    ]
    records = moment.records(parts)
    assert len(records) == 15
    has_gradient = records.gradient.any(dim=1)
    assert has_gradient.tolist() == [False] * 5 + [True] * 7 + [False] * 3
    assert records.direction.any(dim=1).tolist() == has_gradient.tolist()
    assert records.context.shape == (15, 0)


def test_a_reader_without_gradient_does_not_reach_the_latent():
    latent = normal(3).requires_grad_()
    reader = without_gradient(classifier_reader(Reader()))
    assert not reader(Sample(latent, Coordinates()(latent))).requires_grad


def test_conditions_are_kept_where_they_matter():
    control, outputs = control_objective(SUM, NAMES)
    context = normal(6, 2, seed=3)
    evaluations = EvaluationStore(Coordinates(), outputs).evaluate(normal(6), context)
    assert torch.equal(control.records([evaluations], contextual=True).context, context)
    assert control.records([evaluations]).context.shape == (6, 0)
