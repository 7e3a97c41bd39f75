"""The identity network reads the published layout and computes what the original network computed."""

import pytest
import torch
from filling import assert_close, assert_kept, fixtures_of

from promptgen.energies.base import Sample
from promptgen.energies.identity import IdentityEnergy
from promptgen.perception.arcface import load_arcface

fixtures = pytest.mark.parametrize("fixture", fixtures_of("arcface"), scope="module")


@pytest.fixture(scope="module")
def model(fixture, tmp_path_factory):
    path = fixture.write_file(tmp_path_factory.mktemp("published") / "arcface.pth")
    published = fixture.hyper_parameters
    model = load_arcface(
        path,
        published["num_layers"],
        published["mode"] == "ir_se",
        input_side=published["input_size"],
        affine=published["affine"],
    )
    path.unlink()
    return model


@fixtures
@pytest.mark.parametrize("image", ["image", "image_0"])
def test_face(fixture, model, image):
    assert_kept(fixture, f"face_{image}", model.face(fixture.inputs[image]))


@fixtures
@torch.no_grad()
@pytest.mark.parametrize("suffix", ["", "_0"])
def test_embedding(fixture, model, suffix):
    embedding = model(fixture.inputs[f"image{suffix}"])
    assert_close(embedding, fixture.expected[f"embedding{suffix}"])
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(len(embedding)))


@fixtures
@torch.no_grad()
def test_energy(fixture, model):
    image, anchor = fixture.inputs["image"], fixture.inputs["image_0"]
    energy = IdentityEnergy(model)(Sample(image.flatten(1), image, anchor=anchor))
    assert_close(energy, fixture.expected["id_energy"])
