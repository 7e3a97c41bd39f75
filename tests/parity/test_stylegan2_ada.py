"""StyleGAN2 reads NVIDIA's pickles and computes what the original network computed, with and without classes."""

import copy
import re

import numpy as np
import pytest
import torch
from filling import assert_close, assert_kept, decimals_of, fixtures_of, kept_of, part

from promptgen.generators.stylegan2.generator import load_stylegan2
from tests.parity.nvidia_files import in_class, stylegan2_file

fixtures = pytest.mark.parametrize("fixture", fixtures_of("stylegan2_ada"), scope="module")


@pytest.fixture(scope="module")
def model(fixture, tmp_path_factory):
    settings = fixture.hyper_parameters["init_kwargs"]
    path = tmp_path_factory.mktemp("published") / "network.pkl"
    stylegan2_file(path, fixture.section("G_ema"), settings)
    yield load_stylegan2(path, classes="uniform" if settings["c_dim"] else None)
    path.unlink()


def latents(inputs):
    """Return latents: z, and what draws its class if there are classes."""
    if "c" not in inputs:
        return inputs["z"]
    u = in_class(inputs["c"].argmax(dim=1), inputs["c"].shape[1])
    return torch.cat([inputs["z"], u[:, None].float()], dim=1)


@fixtures
def test_the_shape_follows_from_the_file(fixture, model):
    settings = fixture.hyper_parameters["init_kwargs"]
    assert model.image_shape == (3, settings["img_resolution"], settings["img_resolution"])
    assert model.config.latent_dim == settings["z_dim"]
    assert model.config.class_count == settings["c_dim"]
    assert model.config.mapping_layers == settings["mapping_kwargs"]["num_layers"]
    assert len(model.convs) + 2 == int(fixture.expected["num_ws"])


@fixtures
@torch.no_grad()
def test_mapping_and_every_resolution(fixture, model):
    w = model.mapping(latents(fixture.inputs))
    assert_close(w, fixture.expected["w"])
    images = {f"rgb_{image.shape[-1]}": image for image in model.skip_images(w)}
    compared = [key for key in fixture.expected if key.startswith("rgb_")]
    assert compared
    for key in compared:
        assert_close(part(images[re.match(r"rgb_\d+", key)[0]], key), fixture.expected[key])


@fixtures
@torch.no_grad()
def test_image_at_each_truncation_with_the_centre_of_the_file(fixture, model):
    for name, truncation in decimals_of(fixture.expected, "image_trunc").items():
        truncated = copy.copy(model)  # with the same weights
        truncated.config = model.config.model_copy(update={"truncation": truncation})
        assert_kept(fixture, name, 2 * truncated(latents(fixture.inputs)) - 1)
    for name, truncation in decimals_of(fixture.expected, "w_trunc").items():
        truncated.config = model.config.model_copy(update={"truncation": truncation})
        assert_close(truncated.truncate(model.mapping(latents(fixture.inputs))), fixture.expected[name])


@fixtures
@torch.no_grad()
def test_every_layer_takes_its_own_slot(fixture, model):
    w = model.mapping(latents(fixture.inputs))
    count, own = int(fixture.expected["num_ws"]), int(fixture.inputs["mix_slots"])
    slots = torch.stack([w if slot < own else w.flip(0) for slot in range(count)], dim=1)
    assert_kept(fixture, "image_mixed", 2 * model.synthesis(slots) - 1)


@fixtures
@torch.no_grad()
def test_image_without_noise(fixture, model):
    silent = copy.deepcopy(model)
    for noise in silent.noises.buffers():
        noise.zero_()
    assert kept_of(fixture.expected, "image_nonoise")
    assert_kept(fixture, "image_nonoise", 2 * silent(latents(fixture.inputs)) - 1)


@fixtures
@torch.no_grad()
def test_sample_of_the_layout(fixture):
    """A small file of the publisher's own making gives its images, at the size and width that it says."""
    with np.load(fixture.folder / "layout_sample.npz") as arrays:
        known = {key: torch.from_numpy(arrays[key]) for key in arrays}
    inputs = {key.removeprefix("input:"): value for key, value in known.items() if key.startswith("input:")}
    classes = "uniform" if "c" in inputs else None
    for name, truncation in decimals_of(known, "image_trunc").items():
        model = load_stylegan2(fixture.folder / "layout_sample.pkl", truncation=truncation, classes=classes)
        assert_close(2 * model(latents(inputs)) - 1, known[name])
    assert_close(model.mapping(latents(inputs)), known["w"])
