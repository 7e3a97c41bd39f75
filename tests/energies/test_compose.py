import math

import pytest
import torch
from energy_stubs import random_images, sample_of

from promptgen.energies.base import Term, WeightedSum
from promptgen.energies.compose import AnyOf, Not
from promptgen.errors import ConfigError


def column(index):
    return lambda sample: sample.latent[:, index]


class NeedsAnchor(torch.nn.Module):
    needs_anchor = True

    def forward(self, sample):
        return sample.latent[:, 0]


@pytest.fixture
def sample():
    return sample_of(random_images(16))


def test_and_multiplies_densities(sample):
    both = WeightedSum({"a": Term(column(0)), "b": Term(column(1), 2.0)})
    expected = (-sample.latent[:, 0]).exp() * (-2 * sample.latent[:, 1]).exp()
    torch.testing.assert_close((-both(sample)).exp(), expected)


def test_or_adds_densities(sample):
    either = AnyOf({"a": Term(column(0)), "b": Term(column(1), 2.0)})
    expected = (-sample.latent[:, 0]).exp() + (-2 * sample.latent[:, 1]).exp()
    torch.testing.assert_close((-either(sample)).exp(), expected)


def test_or_lies_just_below_the_lowest_alternative(sample):
    steep = AnyOf({str(index): Term(column(index), 1000.0) for index in range(3)})
    lowest = 1000 * sample.latent[:, :3].min(dim=1).values
    assert (steep(sample) <= lowest + 1e-9).all()
    assert (steep(sample) >= lowest - math.log(3)).all()


def test_not_reverses_small_energies_and_is_bounded(sample):
    negated = Not(column(0), bound=5.0)
    small = sample_of(1e-3 * sample.image)
    torch.testing.assert_close(negated(small), -small.latent[:, 0], rtol=1e-4, atol=0)
    assert (negated(sample_of(1e6 * sample.image)).abs() <= 5.0).all()


def test_not_keeps_the_order_reversed(sample):
    energy, negated = sample.latent[:, 0], Not(column(0), bound=2.0)(sample)
    torch.testing.assert_close(negated.argsort(), energy.argsort(descending=True))


def test_expressions_nest_and_keep_gradients(sample):
    image = sample.image.clone().requires_grad_()
    inner = AnyOf({"a": Term(column(0)), "b": Term(Not(column(1), bound=3.0))})
    WeightedSum({"inner": Term(inner), "c": Term(column(2))})(sample_of(image)).sum().backward()
    used, unused = image.grad.flatten(1)[:, :3], image.grad.flatten(1)[:, 3:]
    assert (used != 0).all()
    assert (unused == 0).all()


def test_the_need_of_an_anchor_is_handed_on():
    assert Not(NeedsAnchor(), bound=1.0).needs_anchor
    assert AnyOf({"a": Term(NeedsAnchor()), "b": Term(column(0))}).needs_anchor
    assert not Not(column(0), bound=1.0).needs_anchor


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigError, match="at least one energy"):
        AnyOf({})
    with pytest.raises(ConfigError, match="bound"):
        Not(column(0), bound=0.0)
