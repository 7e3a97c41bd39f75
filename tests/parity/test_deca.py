"""The pose encoder reads the published layout and computes what the original network computed."""

import re

import pytest
import torch
from filling import assert_close, assert_kept, fixtures_of

from promptgen.energies.base import Sample
from promptgen.energies.pose import PoseEnergy
from promptgen.perception.deca import CODE, axis_angle_rotation, load_deca
from promptgen.rotations import EULER, euler_rotation, geodesic_angle

fixtures = pytest.mark.parametrize("fixture", fixtures_of("deca"), scope="module")


@pytest.fixture(scope="module")
def model(fixture, tmp_path_factory):
    path = fixture.write_file(tmp_path_factory.mktemp("published") / "deca_model.tar", global_step=7, opt={"lr": 1e-4})
    published = fixture.hyper_parameters
    architecture, hidden = re.match(r"(resnet\d+)\b.*-> (\d+) ->", published["architecture"]).groups()
    model = load_deca(path, architecture, published["n_outputs"], int(hidden))
    path.unlink()
    return model


def canonical(fixture):
    return tuple(fixture.hyper_parameters["canonical_pose_euler"])


def assert_within(result, expected, bound=1e-5):
    torch.testing.assert_close(result, expected, rtol=0, atol=bound)


@fixtures
def test_preprocessing(fixture, model):
    assert_kept(fixture, "preprocessed", model.preprocess(fixture.inputs["image"]))


@fixtures
@torch.no_grad()
def test_features_code_and_pose(fixture, model):
    image = fixture.inputs["image"]
    assert_close(model.features(image), fixture.expected["features"])
    code = model.code(image)
    assert_close(code, fixture.expected["code"])
    assert_close(code[:, CODE["pose"]], fixture.expected["pose"])


@fixtures
@torch.no_grad()
def test_rotations_and_angle(fixture, model):
    target = euler_rotation(fixture.inputs["alpha"]) @ euler_rotation(torch.tensor([canonical(fixture)]))
    seen = model(fixture.inputs["image"])
    assert_close(target, fixture.expected["target_rotation"])
    assert_close(seen, fixture.expected["global_rotation"])
    assert_close(geodesic_angle(target @ seen.mT), fixture.expected["geodesic_angle"])


@fixtures
@torch.no_grad()
def test_energy(fixture, model):
    image, alpha = fixture.inputs["image"], fixture.inputs["alpha"]
    energy = PoseEnergy(model, canonical(fixture), EULER[: alpha.shape[1]])
    assert_within(energy(Sample(image.flatten(1), image, alpha)), fixture.expected["pose_energy"])


@fixtures
def test_energy_of_given_rotations(fixture):
    axis_angle, alpha = fixture.inputs["case_axis_angle"].clone().requires_grad_(), fixture.inputs["case_alpha"]
    names = EULER[: alpha.shape[1]]
    energy = PoseEnergy(lambda image: axis_angle_rotation(image[:, :, 0, 0]), canonical(fixture), names)
    values = energy(Sample(axis_angle, axis_angle[:, :, None, None], alpha))
    assert_within(values.detach(), fixture.expected["case_energy"])
    (gradient,) = torch.autograd.grad(values.sum(), axis_angle)
    assert gradient.isfinite().all()
