"""The reward for diversity: known in closed form where features are Gaussian."""

from __future__ import annotations

import pytest
import torch

from promptgen.config.energies import DiversitySpec
from promptgen.energies.base import Sample
from promptgen.energies.diversity import DiversityEnergy
from promptgen.errors import DataError
from promptgen.seeding import stream

MATRIX = torch.linalg.qr(torch.randn(3, 3, generator=stream(0, "matrix"), dtype=torch.float64))[0].float()
SCALE = torch.tensor([2.0, 1.0, 0.5])


def network(image):
    return image.flatten(1)


def images(n=50_000, name="own"):
    """Three Gaussian features with the deviations of SCALE, along rotated axes."""
    features = torch.randn(n, 3, generator=stream(0, name)) * SCALE @ MATRIX.T + 1
    return features[:, :, None, None]


def energy_of(image, energy):
    return energy(Sample(image.new_zeros(len(image), 1), image))


def test_the_tilt_makes_every_variance_so_many_times_as_large():
    energy, weight = DiversityEnergy(network, torch.split(images(), 1000)), 0.4
    fresh = images(name="fresh")
    tilted = (-weight * energy_of(fresh, energy)).double().softmax(dim=0)
    along = (network(fresh).double() - 1) @ MATRIX.double()
    variances = tilted @ along.square()
    torch.testing.assert_close(
        variances / SCALE.double().square(), torch.full((3,), 1 / (1 - weight)).double(), rtol=0.1, atol=0
    )
    assert float((tilted @ along).abs().max()) < 0.1


def test_only_the_largest_components_count():
    energy = DiversityEnergy(network, [images()], components=1)
    torch.testing.assert_close(energy.whitening[:, 0].abs() * SCALE[0], MATRIX[:, 0].abs(), rtol=0.05, atol=0.02)


def test_it_is_lowest_for_rare_images_and_has_a_gradient():
    energy = DiversityEnergy(network, [images()])
    rare = images(20, "rare").requires_grad_()
    values = energy_of(rare, energy)
    assert float(values.detach().max()) <= 0
    (gradient,) = torch.autograd.grad(values.sum(), rare)
    outward = (gradient * (rare - 1)).sum(dim=(1, 2, 3))
    assert bool((outward < 0).all())


def test_images_that_are_all_alike_are_refused():
    with pytest.raises(DataError, match="alike"):
        DiversityEnergy(network, [torch.ones(8, 3, 1, 1)])


@pytest.mark.parametrize("weight", [0.0, 1.0, -0.5, 3.0])
def test_a_weight_without_a_proper_target_is_refused(weight):
    generator = {"type": "custom", "factory": "promptgen.world.prompted:PromptedWorld"}
    with pytest.raises(ValueError, match="weight"):
        DiversitySpec(type="diversity", weight=weight, features="world-judge", generator=generator)
