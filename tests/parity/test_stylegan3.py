"""StyleGAN3, both variants, reads the published layout and computes what the original network computed."""

import copy
import re

import numpy as np
import pytest
import torch
from filling import assert_close, assert_kept, decimals_of, fixtures_of, part

from promptgen.generators.stylegan3.generator import load_stylegan3, random_stylegan3
from tests.parity.nvidia_files import stylegan3_file

fixtures = pytest.mark.parametrize("fixture", fixtures_of("stylegan3"), scope="module")


@pytest.fixture(scope="module")
def model(fixture, tmp_path_factory):
    layers = fixture.hyper_parameters["layers"]
    first = {"size": layers[0]["in_size"], "sampling_rate": layers[0]["in_rate"], "bandwidth": layers[0]["in_cutoff"]}
    path = tmp_path_factory.mktemp("published") / "network.pkl"
    settings = fixture.hyper_parameters["init_kwargs"]
    return load_stylegan3(stylegan3_file(path, fixture.section("G_ema"), settings, layers, first))


@pytest.fixture(scope="module")
def features(fixture, model):
    """The map of the input and of every layer."""
    with torch.no_grad():
        return list(model.synthesis.features(model.styles(fixture.inputs["z"])))


@fixtures
def test_the_shape_follows_from_the_file(fixture, model):
    settings = fixture.hyper_parameters["init_kwargs"]
    assert model.image_shape == (3, settings["img_resolution"], settings["img_resolution"])
    assert model.config.variant == ("r" if settings.get("use_radial_filters") else "t")
    assert len(model.synthesis.layer_names) + 1 == int(fixture.expected["num_ws"])


@fixtures
def test_mapping(fixture, model):
    assert_close(model.styles(fixture.inputs["z"]), fixture.expected["w"])


@fixtures
def test_every_layer_that_was_kept(fixture, features):
    compared = [key for key in fixture.expected if key.startswith("features_")]
    assert compared
    for key in compared:
        layer = re.match(r"features_(?:L(\d+)|input)", key)[1]
        assert_close(part(features[0 if layer is None else int(layer) + 1], key), fixture.expected[key])


@fixtures
@torch.no_grad()
def test_image_at_each_truncation_with_the_centre_of_the_file(fixture, model):
    truncated = copy.copy(model)  # with the same weights
    for name, truncation in decimals_of(fixture.expected, "image_trunc").items():
        truncated.config = model.config.model_copy(update={"truncation": truncation})
        assert_kept(fixture, name, 2 * truncated(fixture.inputs["z"]) - 1)
    for name, truncation in decimals_of(fixture.expected, "w_trunc").items():
        truncated.config = model.config.model_copy(update={"truncation": truncation})
        assert_close(truncated.styles(fixture.inputs["z"]), fixture.expected[name])


@fixtures
@torch.no_grad()
def test_every_layer_takes_its_own_slot(fixture, model):
    w = model.styles(fixture.inputs["z"])
    count, own = int(fixture.expected["num_ws"]), int(fixture.inputs["mix_slots"])
    slots = torch.stack([w if slot < own else w.flip(0) for slot in range(count)], dim=1)
    assert_kept(fixture, "image_mixed", model.synthesis(slots))


@fixtures
@torch.no_grad()
def test_a_movement_of_the_image(fixture, model):
    moved = copy.deepcopy(model)
    moved.synthesis.input.transform.copy_(fixture.inputs["transform"])
    assert_kept(fixture, "image_transformed", 2 * moved(fixture.inputs["z"]) - 1)


@fixtures
@torch.no_grad()
def test_sample_of_the_layout(fixture):
    """A small file of the publisher's own making gives its tensors and images, at the size and width that it says."""
    with np.load(fixture.folder / "layout_sample.npz") as arrays:
        known = {key: torch.from_numpy(arrays[key]) for key in arrays}
    for name, truncation in decimals_of(known, "image_trunc").items():
        model = load_stylegan3(fixture.folder / "layout_sample.pkl", truncation)
        assert_close(2 * model(known["input:z"]) - 1, known[name])
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, known[f"tensor:{key}"], rtol=0, atol=0)


@fixtures
def test_sampling_and_filters_of_the_published_design(fixture):
    """Random networks and safetensors compute the layers: the same geometry, and the same filters up to rounding."""
    settings, tensors = fixture.hyper_parameters["init_kwargs"], fixture.section("G_ema")
    made = random_stylegan3(
        size=settings["img_resolution"],
        variant="r" if settings.get("use_radial_filters") else "t",
        channel_base=settings["channel_base"],
        channel_max=settings["channel_max"],
        latent_dim=settings["z_dim"],
    )
    state = made.state_dict()
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in tensors.items()}
    filters = [key for key in state if key.endswith("_filter")]
    assert filters
    for key in filters:
        torch.testing.assert_close(state[key], tensors[key], rtol=0, atol=1e-6)
    _, layers = made.config.geometry
    assert [list(layer.padding) for layer in layers] == [one["padding"] for one in fixture.hyper_parameters["layers"]]
