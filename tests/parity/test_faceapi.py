"""face-api's published networks compute what they compute in TensorFlow.js, and the generator makes faces."""

import pytest
import torch
from published_faces import EXPECTED, assert_agrees, files_of, pictures

from promptgen.generators.dcgan import load_dcgan
from promptgen.perception.faceapi import load_age_gender, load_expression
from promptgen.seeding import stream


@torch.no_grad()
def test_expression():
    model = load_expression(*files_of("faceapi_expression"))
    logits = model(pictures(112))["expression"]
    assert_agrees(logits, EXPECTED["expression"])
    assert logits.argmax(1).unique().numel() > 1
    assert_agrees(model.logits(pictures(112)), EXPECTED["expression"])


@torch.no_grad()
def test_age_and_gender():
    model = load_age_gender(*files_of("faceapi_age_gender"))
    years, gender = model.years_and_gender(pictures(112))
    assert_agrees(years, EXPECTED["years"])
    assert_agrees(gender, EXPECTED["gender_logits"])
    logits = model(pictures(112))
    assert torch.equal(logits["gender"][:, 0], gender[:, 1])  # female comes first here
    assert logits["age"].argmax(1).tolist() == [sum(year >= edge for edge in (20, 40, 60)) for year in years]


@torch.no_grad()
def test_the_pictures_are_what_the_generator_makes():
    model = load_dcgan(files_of("dcgan")[0])
    image = model(model.prior.sample(4, stream(0, "pictures")))
    assert (image - pictures(64)[2:]).abs().max() < 0.6 / 255


@pytest.mark.parametrize("side", [64, 200])
def test_gradients_of_published_weights(side):
    """Along the gradient of its logit, the smile grows as much as the gradient says."""
    model = load_expression(*files_of("faceapi_expression"))
    image = torch.nn.functional.interpolate(pictures(64)[2:], size=(side, side), mode="bilinear").requires_grad_()
    smile = model(image)["expression"][:, 1]
    (gradient,) = torch.autograd.grad(smile.sum(), image)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    step = 1e-3 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    with torch.no_grad():
        grown = model(image + step)["expression"][:, 1] - model(image - step)["expression"][:, 1]
    torch.testing.assert_close(grown, 2e-3 * gradient.flatten(1).norm(dim=1), rtol=0.05, atol=1e-4)
