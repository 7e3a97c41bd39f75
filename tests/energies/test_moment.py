import numpy as np
import pytest
import torch
from energy_stubs import LinearClassifier, random_images, sample_of

from promptgen.energies.moment import MomentEnergy
from promptgen.errors import ConfigError, DataError, TooFewSamplesError


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_energy_is_minus_beta_times_the_probabilities(kind):
    images, beta = random_images(8), [0.5, -0.5, 1.0, 0.0, -1.0]
    energy = MomentEnergy(LinearClassifier().double(), ["hair", "age"], beta, weight=2.0, kind=kind).double()
    flat = images.flatten(1)
    soft = torch.cat([flat[:, :2].softmax(dim=1), flat[:, 2:5].softmax(dim=1)], dim=1)
    torch.testing.assert_close(energy(sample_of(images)), -2 * soft @ torch.tensor(beta, dtype=torch.float64))


def test_gradient_is_that_of_the_value():
    images = random_images(3).requires_grad_()
    energy = MomentEnergy(LinearClassifier(), "hair x age", np.linspace(-1, 1, 6)).double()
    assert torch.autograd.gradcheck(lambda image: energy(sample_of(image)), images)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_shares_add_up_over_micro_batches_without_a_second_look(kind):
    images, classifier = random_images(12, dtype=torch.float32), LinearClassifier()
    energy = MomentEnergy(classifier, "age", kind=kind)
    for part in images.requires_grad_().split([5, 5, 2]):
        energy(sample_of(part))
    logits = images.detach().flatten(1)[:, 2:5]
    hard = torch.nn.functional.one_hot(logits.argmax(dim=1), 3)
    expected = hard if kind == "hard" else logits.softmax(dim=1)
    torch.testing.assert_close(energy.take_shares(), expected.double().mean(dim=0))
    assert classifier.calls == 3


def test_only_training_samples_are_counted():
    energy = MomentEnergy(LinearClassifier(), "age")
    energy(sample_of(random_images(4, dtype=torch.float32)))  # held-out samples carry no gradient
    with pytest.raises(TooFewSamplesError):
        energy.take_shares()


def test_taking_the_shares_forgets_them():
    energy = MomentEnergy(LinearClassifier(), "age")
    energy(sample_of(random_images(4, dtype=torch.float32).requires_grad_()))
    energy.take_shares()
    with pytest.raises(TooFewSamplesError):
        energy.take_shares()


def test_beta_is_zero_at_first_and_travels_with_the_module():
    energy = MomentEnergy(LinearClassifier(), ["hair", "age"])
    assert energy.names == ("hair:short", "hair:long", "age:young", "age:middle", "age:old")
    assert energy.sizes == (2, 3)
    assert (energy.beta == 0).all()
    energy.set_beta([1, 2, 3, 4, 5])
    assert "beta" in energy.state_dict()
    assert energy.beta.tolist() == [1, 2, 3, 4, 5]


def test_bad_multipliers_and_names_are_refused():
    with pytest.raises(DataError, match="5 finite numbers"):
        MomentEnergy(LinearClassifier(), ["hair", "age"], [1.0, 2.0])
    with pytest.raises(DataError, match="2 finite numbers"):
        MomentEnergy(LinearClassifier(), "hair", [float("inf"), 0.0])
    with pytest.raises(ConfigError, match="unknown attribute"):
        MomentEnergy(LinearClassifier(), "beard")
