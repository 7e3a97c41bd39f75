"""The reward for diversity: known in closed form where images are of classes that have nothing in common."""

from __future__ import annotations

import math

import pytest
import torch

from promptgen.config.energies import DiversitySpec
from promptgen.energies.base import Sample
from promptgen.energies.diversity import DiversityEnergy, diverse_weights, unit_length
from promptgen.errors import ConfigError, DataError
from promptgen.metrics.vendi import vendi_score
from promptgen.seeding import stream

SHARES = torch.tensor([0.7, 0.2, 0.08, 0.02])
AXES = torch.linalg.qr(torch.randn(6, 6, generator=stream(0, "axes"), dtype=torch.float64))[0].float()[:, :4]
"""Features of the classes, which have nothing in common."""


def network(image):
    return image.flatten(1)


def images(classes, scale=1.0):
    return (scale * AXES.T[classes])[:, :, None, None]


def of_shares(n=2000):
    return torch.arange(4).repeat_interleave((SHARES * n).round().long())


def fitted(features, weight=1.0):
    energy = DiversityEnergy(network, weight=weight)
    energy.fit(energy.features(features))
    return energy


def energy_of(image, energy):
    return energy(Sample(image.new_zeros(len(image), 1), image))


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_shares_of_classes_become_those_of_the_closed_form(weight):
    """The maximum of weight x entropy - KL has the shares to the power 1 / (1 + weight)."""
    energy = fitted(images(of_shares()), weight)
    tilted = (SHARES.log() - weight * energy_of(images(range(4), scale=3.0), energy)).softmax(dim=0)
    expected = (SHARES.log() / (1 + weight)).softmax(dim=0)
    torch.testing.assert_close(tilted, expected, rtol=0.01, atol=0.001)


def test_the_score_grows_with_the_weight_and_never_collapses():
    """Unlike a reward for being far from the mean, which a few rare images would take for themselves."""
    features = torch.randn(600, 8, generator=stream(1, "features"), dtype=torch.float64) * 0.3
    features[:, 0] += torch.randn(600, generator=stream(2, "features"), dtype=torch.float64).exp()  # skewed
    units = unit_length(features)
    scores = []
    for weight in (1e-9, 1.0, 4.0, 32.0):
        weights = diverse_weights(units, weight).exp()
        chosen = torch.multinomial(weights, 20_000, replacement=True, generator=stream(3, "chosen"))
        scores.append(vendi_score(units[chosen]).value)
    assert scores == sorted(scores)
    assert scores[-1] > 1.5 * scores[0]


def test_it_is_lower_for_what_is_rarer_and_has_a_gradient():
    energy = fitted(images(of_shares()))
    values = energy_of(images(range(4)), energy)
    assert values.max() <= 0
    assert (values.diff() < 0).all()
    between = (images([0]) + images([3])).requires_grad_()
    (gradient,) = torch.autograd.grad(energy_of(between, energy).sum(), between)
    direction = gradient.flatten() @ AXES
    assert direction[0] > 0 > direction[3]


def test_what_no_image_shows_is_rewarded_within_bounds():
    energy = fitted(images(of_shares()))
    unseen = torch.linalg.qr(torch.cat([AXES, torch.eye(6)], dim=1))[0][:, 4]
    assert -math.log(1000) - 1e-4 <= float(energy_of(unseen[None, :, None, None], energy)) < -5


def test_features_of_length_zero_earn_nothing():
    energy = fitted(images(of_shares()))
    assert float(energy_of(torch.zeros(1, 6, 1, 1), energy)) == 0


def test_images_that_are_all_alike_are_refused():
    with pytest.raises(DataError, match="alike"):
        fitted(images([1] * 400))


def test_more_diversity_than_the_images_show_is_refused():
    with pytest.raises(ConfigError, match=r"a weight of 1000 asks for more diversity than 1000 images show"):
        fitted(images(of_shares(1000)), weight=1000.0)


@pytest.mark.parametrize("weight", [0.0, -0.5])
def test_a_weight_without_a_target_is_refused(weight):
    with pytest.raises(ValueError, match="weight"):
        DiversitySpec(type="diversity", weight=weight, features="world-judge")


def test_an_energy_that_was_not_fitted_says_so():
    with pytest.raises(DataError, match="has not been fitted"):
        energy_of(images(range(4)), DiversityEnergy(network, weight=1.0))
    with pytest.raises(DataError, match=r"\(N, D\), got \(4, 6, 1, 1\)"):
        DiversityEnergy(lambda image: image, weight=1.0).features(images(range(4)))


def test_a_fitted_energy_is_the_one_of_its_spectrum():
    energy, again = fitted(images(of_shares())), DiversityEnergy(network, weight=1.0)
    again.set_spectrum(energy.axes, energy.logs)
    assert torch.equal(energy_of(images(range(4)), again), energy_of(images(range(4)), energy))


def test_the_network_of_a_method_moves_with_the_energy():
    class Net(torch.nn.Linear):
        def features(self, image):
            return self(image.flatten(1))

    energy = DiversityEnergy(Net(6, 2).features, weight=1.0).double()
    assert energy.features(images(range(4)).double()).dtype == torch.float64
