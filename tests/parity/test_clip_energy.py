"""Augmentations, preprocessing and energy of a text, with given draws, against the original computation."""

from dataclasses import dataclass

import pytest
import torch
from filling import Fixture, assert_close, fixtures_of
from torch import nn

from promptgen.energies import augment
from promptgen.energies.clip import distance
from promptgen.perception.clip import ClipModel, fit

TOLERANCE = 1e-5
fixtures = pytest.mark.parametrize("fixture", fixtures_of("clip-energy"))


class ToyNetwork(nn.Module):
    """The encoder of the fixture: means over 7 x 7 fields, then a matrix."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def encode_image(self, image):
        return nn.functional.adaptive_avg_pool2d(image, 7).flatten(1) @ self.weight.T


def toy_model(fixture):
    published = fixture.hyper_parameters
    network = ToyNetwork(fixture.inputs["toy_weight"])
    return ClipModel(network, published["clip_size"], None, tuple(published["mean"]), tuple(published["std"]))


@dataclass(frozen=True)
class Run:
    """The draws of one run."""

    fixture: Fixture
    name: str

    def __getattr__(self, key):
        return self.fixture.inputs[f"{self.name}_{key}"]


def stages(image, run):
    """Yield the name and the result of each augmentation."""
    yield "brightness", (image := augment.brightness(image, run.brightness))
    yield "saturation", (image := augment.saturation(image, run.saturation))
    yield "contrast", (image := augment.contrast(image, run.contrast))
    yield "translation", (image := augment.translate(image, run.translation_rows, run.translation_columns))
    yield "resize", (image := augment.resize(image, float(run.resize)))
    yield "cutout", augment.cutout(image, run.cutout_rows, run.cutout_columns)


@fixtures
def test_each_augmentation(fixture):
    named = {key.removesuffix("_brightness") for key in fixture.inputs if key.endswith("_brightness")}
    for name in named - {"energy"}:
        results = {f"{name}_{stage}": image for stage, image in stages(fixture.inputs["image"], Run(fixture, name))}
        compared = results.keys() & fixture.expected.keys()
        assert f"{name}_cutout" in compared
        for key in compared:
            assert_close(results[key], fixture.expected[key], TOLERANCE)


@fixtures
def test_preprocessing(fixture):
    model = toy_model(fixture)
    result = (fit(fixture.inputs["preprocess_image"], model.image_size) - model.mean) / model.std
    assert_close(result, fixture.expected["preprocessed"], TOLERANCE)


@fixtures
def test_energy_and_its_gradient(fixture):
    run = Run(fixture, "energy")
    draws = augment.Draws(
        brightness=run.brightness,
        saturation=run.saturation,
        contrast=run.contrast,
        rows=run.translation_rows,
        columns=run.translation_columns,
        resize=run.resize,
        cutout_rows=run.cutout_rows,
        cutout_columns=run.cutout_columns,
    )
    image = run.image.clone().requires_grad_()
    target = nn.functional.normalize(fixture.inputs["toy_text"], dim=0)
    energy = distance(toy_model(fixture), target, image, draws)
    assert_close(energy, fixture.expected["energy"], TOLERANCE)
    (gradient,) = torch.autograd.grad(energy.sum(), image)
    assert_close(gradient, fixture.expected["energy_gradient"], TOLERANCE)
