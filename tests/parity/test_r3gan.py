"""R3GAN reads the published layout and computes what the original network computed, with and without classes."""

import re

import numpy as np
import pytest
import torch
from filling import assert_close, assert_kept, fixtures_of, part

from promptgen.generators.r3gan.generator import load_r3gan
from tests.parity.nvidia_files import in_class, r3gan_file

fixtures = pytest.mark.parametrize("fixture", fixtures_of("r3gan"), scope="module")


def facts_of(fixture):
    settings = fixture.hyper_parameters["init_kwargs"]
    return {
        "z_dim": settings["NoiseDimension"],
        "c_dim": settings["c_dim"],
        "img_resolution": settings["img_resolution"],
    }


@pytest.fixture(scope="module")
def model(fixture, tmp_path_factory):
    path = r3gan_file(tmp_path_factory.mktemp("published") / "network.pkl", fixture.section("G_ema"), facts_of(fixture))
    yield load_r3gan(path, classes="uniform" if facts_of(fixture)["c_dim"] else None)
    path.unlink()


def latents(inputs):
    """Return latents: z, and what draws its class if there are classes."""
    if "c" not in inputs:
        return inputs["z"]
    u = in_class(inputs["c"].argmax(dim=1), inputs["c"].shape[1])
    return torch.cat([inputs["z"], u[:, None].float()], dim=1)


@fixtures
def test_the_shape_follows_from_the_tensors(fixture, model):
    settings = fixture.hyper_parameters["init_kwargs"]
    assert model.image_shape == (3, settings["img_resolution"], settings["img_resolution"])
    assert list(model.config.widths) == settings["WidthPerStage"]
    assert list(model.config.groups) == settings["CardinalityPerStage"]
    assert list(model.config.depths) == settings["BlocksPerStage"]
    assert model.config.expansion == settings["ExpansionFactor"]


@fixtures
@torch.no_grad()
def test_every_stage_and_the_image(fixture, model):
    z, vectors = model.inputs(latents(fixture.inputs))
    stages = {f"stage_{x.shape[-1]}": x for x in model.Model.features(z, vectors)}
    compared = [key for key in fixture.expected if key.startswith("stage_")]
    assert compared
    for key in compared:
        assert_close(part(stages[re.match(r"stage_\d+", key)[0]], key), fixture.expected[key])
    assert_kept(fixture, "image", 2 * model(latents(fixture.inputs)) - 1)


@fixtures
@pytest.mark.parametrize("name", ["layout_sample.pkl", "layout_sample_old_names.pkl"])
@torch.no_grad()
def test_sample_of_the_layout(fixture, name):
    """A small file of the publisher's own making, under today's and older names, gives its tensors and image."""
    if not (fixture.folder / "layout_sample.npz").exists():
        pytest.skip("only the unconditional fixture comes with samples of the layout")
    with np.load(fixture.folder / "layout_sample.npz") as arrays:
        known = {key: torch.from_numpy(arrays[key]) for key in arrays}
    model = load_r3gan(fixture.folder / name)
    assert_close(2 * model(known["input:z"]) - 1, known["image"])
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, known[f"tensor:{key}"], rtol=0, atol=0)
