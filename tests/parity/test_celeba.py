"""The attribute network reads the published layout and computes what the original network computed."""

import pytest
import torch
from filling import assert_close, assert_kept, fixtures_of

from promptgen.energies.base import Sample
from promptgen.energies.classifier import ClassifierEnergy
from promptgen.perception.celeba import load_celeba
from promptgen.perception.networks import imagenet_input

ENERGIES = {"present": "energy_attribute_present", "absent": "energy_attribute_absent"}
EPSILON = 1e-8  # inside the logarithm of the reference, which no more than 18.4 nats can come of
fixtures = pytest.mark.parametrize("fixture", fixtures_of("celeba"), scope="module")


@pytest.fixture(scope="module")
def model(fixture, tmp_path_factory):
    path = fixture.write_file(tmp_path_factory.mktemp("published") / "best.pth", epoch=3, optimizer={"state": {}})
    published = fixture.hyper_parameters
    model = load_celeba(path, "it", ("absent", "present"), published["architecture"], published["hidden_size"])
    path.unlink()
    return model


@fixtures
def test_preprocessing(fixture):
    assert_kept(fixture, "preprocessed", imagenet_input(fixture.inputs["image"]))


@fixtures
@torch.no_grad()
def test_hidden_layer_logit_and_probability(fixture, model):
    assert_close(model.hidden(fixture.inputs["image"]), fixture.expected["hidden"])
    logits = model(fixture.inputs["image"])["it"]
    assert_close(logits[:, 1] - logits[:, 0], fixture.expected["logit"])
    assert_close(logits.softmax(dim=1)[:, 1], fixture.expected["probability"])


@fixtures
@torch.no_grad()
@pytest.mark.parametrize("wanted", ENERGIES)
def test_energy(fixture, model, wanted):
    image, expected = fixture.inputs["image"], fixture.expected[ENERGIES[wanted]].double()
    probability = (-ClassifierEnergy(model, {"it": wanted})(Sample(image.flatten(1), image)).double()).exp() + EPSILON
    # The reference's probability has the spacing of float32 numbers near 1, all that is left of it far in a tail.
    allowed = 1e-4 * expected.abs().max() + 2e-7 / probability
    assert ((-probability.log() - expected).abs() <= allowed).all()
