import pytest
import torch
from energy_stubs import LinearClassifier, random_images, sample_of

from promptgen.energies.classifier import ClassifierEnergy
from promptgen.errors import ConfigError


def test_is_minus_the_weighted_log_probability():
    images = random_images(8)
    energy = ClassifierEnergy(LinearClassifier(), {"hair": "long", "age": "young"}, {"age": 2.5})
    flat = images.flatten(1)
    hair, age = flat[:, :2].softmax(dim=1), flat[:, 2:5].softmax(dim=1)
    torch.testing.assert_close(energy(sample_of(images)), -hair[:, 1].log() - 2.5 * age[:, 0].log())


def test_a_hopeless_image_still_has_a_gradient():
    images = torch.zeros(1, 3, 2, 2)
    images[0, 0, 0, 0] = 500.0  # P(long) underflows to 0 in float32
    images.requires_grad_()
    energy = ClassifierEnergy(LinearClassifier(), {"hair": "long"})(sample_of(images))
    energy.sum().backward()
    assert energy.item() == pytest.approx(500.0)
    assert images.grad.abs().max() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("wanted", "weights", "message"),
    [
        ({"beard": "with"}, None, "'beard'.*hair, age"),
        ({"hair": "lnog"}, None, "'hair'.*'lnog'.*short, long.*'long'"),
        ({"hair": "long"}, {"age": 1.0}, "age.*weight.*hair"),
        ({}, None, "attribute"),
    ],
)
def test_unknown_names_are_refused(wanted, weights, message):
    with pytest.raises(ConfigError, match=message):
        ClassifierEnergy(LinearClassifier(), wanted, weights)
