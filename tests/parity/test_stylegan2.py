"""StyleGAN2 reads the published layout and computes what the original network computed."""

import argparse
import copy
import re

import pytest
import torch
from filling import assert_close, assert_kept, decimals_of, fixtures_of, part

from promptgen.errors import ModelFileError
from promptgen.generators.stylegan2.generator import load_stylegan2

fixtures = pytest.mark.parametrize("fixture", fixtures_of("stylegan2"), scope="module")


@pytest.fixture(scope="module")
def path(fixture, tmp_path_factory):
    """A file as a training leaves it, with entries that are no concern of the generator."""
    extra = {"latent_avg": torch.zeros(3), "args": argparse.Namespace(lr=0.002, arch="stylegan2")}
    path = fixture.write_file(tmp_path_factory.mktemp("published") / "generator.pt", **extra)
    yield path
    path.unlink()


def load(fixture, path, **options):
    published = fixture.hyper_parameters
    sizes = {"latent_dim": published["style_dim"], "mapping_layers": published["n_mlp"]}
    return load_stylegan2(
        path, published["size"], channel_multiplier=published["channel_multiplier"], **sizes, **options
    )


@pytest.fixture(scope="module")
def model(fixture, path):
    return load(fixture, path)


@fixtures
@torch.no_grad()
def test_mapping_and_every_resolution(fixture, model):
    w = model.mapping(fixture.inputs["z"])
    assert_close(w, fixture.expected["w"])
    images = {f"rgb_{image.shape[-1]}": image for image in model.skip_images(w)}
    compared = [key for key in fixture.expected if key.startswith("rgb_")]
    assert compared
    for key in compared:
        assert_close(part(images[re.match(r"rgb_\d+", key)[0]], key), fixture.expected[key])


@fixtures
@torch.no_grad()
def test_image_at_each_truncation(fixture, model):
    model.set_mean_w(fixture.inputs["mean_latent"])
    for name, truncation in decimals_of(fixture.expected, "image_trunc").items():
        truncated = copy.copy(model)  # with the same weights
        truncated.config = model.config.model_copy(update={"truncation": truncation})
        assert_kept(fixture, name, 2 * truncated(fixture.inputs["z"]) - 1)


@fixtures
def test_truncation_and_its_centre_may_be_given_at_loading(fixture, path):
    centre = fixture.inputs["mean_latent"]
    model = load(fixture, path, truncation=0.5, mean_w=centre)
    torch.testing.assert_close(model.truncate(centre[None] + 2), centre[None] + 1)


@fixtures
def test_another_size_names_the_first_difference(fixture, path):
    other = 8 if fixture.hyper_parameters["size"] > 8 else 16
    with pytest.raises(ModelFileError, match=r"(missing|unexpected): convs\..* and \d+ more"):
        load_stylegan2(path, other)
