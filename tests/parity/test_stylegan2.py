"""StyleGAN2 reads the published layout and computes what the original network computed."""

import argparse

import pytest
import torch
from filling import assert_close, fixtures_of, part

from promptgen.errors import ModelFileError
from promptgen.generators.stylegan2 import load_stylegan2

fixtures = pytest.mark.parametrize("fixture", fixtures_of("stylegan2"), scope="module")


@pytest.fixture(scope="module")
def path(fixture, tmp_path_factory):
    """A file as a training leaves it, with entries that are no concern of the generator."""
    extra = {"latent_avg": torch.zeros(3), "args": argparse.Namespace(lr=0.002, arch="stylegan2")}
    return fixture.write_file(tmp_path_factory.mktemp("published") / "generator.pt", **extra)


def load(fixture, path, **options):
    published = fixture.hyper_parameters
    sizes = {"latent_dim": published["style_dim"], "mapping_layers": published["n_mlp"]}
    return load_stylegan2(
        path, published["size"], channel_multiplier=published["channel_multiplier"], **sizes, **options
    )


@pytest.fixture(scope="module")
def model(fixture, path):
    return load(fixture, path)


def assert_image(fixture, image, name):
    raw = 2 * image - 1
    compared = [key for key in fixture.expected if key == name or key.startswith(f"{name}_")]
    assert compared
    for key in compared:
        assert_close(part(raw, key), fixture.expected[key])


@fixtures
@torch.no_grad()
def test_mapping_and_every_resolution(fixture, model):
    w = model.mapping(fixture.inputs["z"])
    assert_close(w, fixture.expected["w"])
    images = {f"rgb_{image.shape[-1]}": image for image in model.skip_images(w)}
    compared = [name for name in fixture.expected if name.startswith("rgb_")]
    assert compared
    for name in compared:
        assert_close(images[name], fixture.expected[name])


@fixtures
@torch.no_grad()
def test_image(fixture, model):
    assert_image(fixture, model(fixture.inputs["z"]), "image_trunc1")


@fixtures
@torch.no_grad()
def test_image_truncated(fixture, path):
    truncated = load(fixture, path, truncation=0.7, mean_w=fixture.inputs["mean_latent"])
    assert_image(fixture, truncated(fixture.inputs["z"]), "image_trunc07")


@fixtures
def test_another_size_names_the_first_difference(fixture, path):
    size = fixture.hyper_parameters["size"]
    with pytest.raises(ModelFileError, match=r"unexpected: convs\..* and \d+ more"):
        load_stylegan2(path, size // 2)
