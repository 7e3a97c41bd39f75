"""Pose energy: rotations against scipy, angles at 0 and pi, finite gradients, conventions."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from promptgen.energies.base import Sample
from promptgen.energies.pose import PoseEnergy
from promptgen.errors import DataError
from promptgen.rotations import EULER, YawPitchRotation, euler_rotation, geodesic_angle, pose_angles
from promptgen.seeding import stream


def angles(n=64, dim=3):
    return (torch.rand(n, dim, generator=stream(0, "angles"), dtype=torch.float64) - 0.5) * 2 * math.pi


def about(axis, angle):
    """Rotations by `angle` about `axis`."""
    unit = np.array(axis) / np.linalg.norm(axis)
    return torch.from_numpy(Rotation.from_rotvec(np.outer(np.atleast_1d(angle), unit)).as_matrix())


def sample(image, context):
    return Sample(latent=torch.zeros(len(image), 2), image=image, context=context)


class Seen(nn.Module):
    """An estimator that reads the angles off the first pixels."""

    def forward(self, image):
        return euler_rotation(image[:, :, 0, 0])


def picture(angles):
    return angles[:, :, None, None].expand(-1, 3, 4, 4)


def test_euler_angles_are_intrinsic_xyz():
    expected = Rotation.from_euler("XYZ", angles().numpy()).as_matrix()
    np.testing.assert_allclose(euler_rotation(angles()).numpy(), expected, atol=1e-12)
    two = angles(dim=2)
    assert torch.equal(euler_rotation(two), euler_rotation(nn.functional.pad(two, (0, 1))))


def test_angles_against_scipy():
    matrices = euler_rotation(angles())
    expected = Rotation.from_matrix(matrices.numpy()).magnitude()
    np.testing.assert_allclose(geodesic_angle(matrices).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [0.0, 1e-6, 1e-3, 0.01, 1.0, math.pi - 1e-3, math.pi - 1e-6, math.pi])
def test_angles_keep_their_digits_near_0_and_pi(angle, dtype):
    result = geodesic_angle(about([1.0, -2.0, 0.5], angle).to(dtype))
    tolerance = 5e-7 if dtype == torch.float32 else 1e-14
    torch.testing.assert_close(result, torch.tensor([angle], dtype=dtype), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-6, 0.01, 1.0, math.pi - 1e-6, math.pi])
def test_gradients_are_finite(angle, dtype):
    context = torch.tensor([[angle, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    geodesic_angle(euler_rotation(context)).square().sum().backward()
    assert context.grad.isfinite().all()
    if angle <= 1:
        torch.testing.assert_close(context.grad[0, 0], torch.tensor(2 * angle, dtype=dtype))


def test_gradient_against_finite_differences():
    context = angles(4).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: geodesic_angle(euler_rotation(c)).square(), context)


def test_energy_is_zero_where_the_wanted_pose_is_seen():
    canonical = (0.3, 0.0, 0.0)
    energy = PoseEnergy(Seen(), canonical, names=EULER).double()
    wanted = angles(5) / 9
    seen = Rotation.from_euler("XYZ", wanted.numpy()) * Rotation.from_euler("XYZ", np.array(canonical))
    image = picture(torch.from_numpy(seen.as_euler("XYZ")))
    # The canonical pose was built in float32.
    torch.testing.assert_close(energy(sample(image, wanted)), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-13)


def test_energy_is_the_squared_angle():
    seen, wanted = torch.zeros(2, 3), torch.tensor([[0.2, 0.0], [0.0, -0.5]])
    torch.testing.assert_close(PoseEnergy(Seen())(sample(picture(seen), wanted)), torch.tensor([0.04, 0.25]))


def test_yaw_is_about_y_and_pitch_about_x():
    rotation = YawPitchRotation()(torch.tensor([[0.4, 0.1]]))
    torch.testing.assert_close(rotation, euler_rotation(torch.tensor([[0.1, 0.4]])))


def test_angles_are_found_by_name():
    """Whatever the order of the columns and whatever else is among them, yaw is about Y, pitch X, roll Z."""
    context = torch.tensor([[0.1, 0.9, 0.2]])
    assert torch.equal(pose_angles(context, ("yaw", "light", "roll")), torch.tensor([[0.0, 0.1, 0.2]]))
    assert torch.equal(pose_angles(context, EULER), context)
    seen = picture(torch.tensor([[0.0, 0.1, 0.0]]))
    for names, wanted in ((("yaw", "pitch"), [0.1, 0.0]), (("pitch", "yaw"), [0.0, 0.1])):
        energy = PoseEnergy(Seen(), names=names)
        torch.testing.assert_close(energy(sample(seen, torch.tensor([wanted]))), torch.zeros(1))
    with pytest.raises(DataError, match=r"pitch, yaw.*\(B, 2\).*\(1, 3\)"):
        pose_angles(context, ("pitch", "yaw"))


def test_what_is_seen_is_counted_from_the_canonical_pose():
    canonical = (0.3, 0.0, 0.0)
    energy = PoseEnergy(Seen(), canonical).double()
    torch.testing.assert_close(
        energy.rotations(picture(torch.tensor([canonical], dtype=torch.float64))),
        torch.eye(3, dtype=torch.float64)[None],
        rtol=0,
        atol=1e-7,
    )


def test_a_missing_condition_is_an_error():
    with pytest.raises(DataError, match=r"pose.*condition"):
        PoseEnergy(Seen())(sample(torch.zeros(1, 3, 4, 4), None))
    with pytest.raises(DataError, match=r"got \(1, 4\)"):
        euler_rotation(torch.zeros(1, 4))
