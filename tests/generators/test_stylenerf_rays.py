"""StyleNeRF's cameras, rays and what is summed along them."""

import math

import pytest
import torch

from promptgen.generators.stylenerf.rays import background_positions, cast_rays, encode, opacity_weights, resampled
from promptgen.seeding import stream
from tests.generators import small


def test_camera_looks_at_the_origin():
    camera = small.stylenerf().camera(torch.tensor([0.0, 0.4]), torch.tensor([0.0, 0.3]))
    position, backwards = camera.pose[:, :3, 3], camera.pose[:, :3, 2]
    torch.testing.assert_close(position, backwards)
    torch.testing.assert_close(position[0], torch.tensor([1.0, 0.0, 0.0]))
    assert position[1, 1] > 0  # to the side
    torch.testing.assert_close(position[1, 2], torch.tensor(0.3).sin())  # and up
    rotation = camera.pose[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(2, 3, 3))
    assert (torch.linalg.det(rotation) > 0).all()


@pytest.mark.parametrize("gaussian", [True, False])
def test_cameras_of_the_training(gaussian):
    model = small.stylenerf(gaussian=gaussian)
    camera = model.trained_cameras(4000, stream(0, "cameras"))
    forward, side, up = camera.pose[:, :3, 3].T
    yaw, pitch = torch.atan2(side, forward), torch.asin(up)
    width = 1 if gaussian else 1 / math.sqrt(3)  # standard deviation of a uniform number between -1 and 1
    for angle, spread in ((yaw, 0.3), (pitch, 0.155)):
        assert abs(float(angle.mean())) < 0.1 * spread
        assert float(angle.std()) == pytest.approx(spread * width, rel=0.05)
    torch.testing.assert_close(model.trained_cameras(4000, stream(0, "cameras")).pose, camera.pose, rtol=0, atol=0)


def test_rays_go_through_the_centres_of_pixels():
    origins, directions = cast_rays(small.stylenerf().camera(0.0, 0.0), 2)
    half = math.tan(math.radians(6)) / 2
    torch.testing.assert_close(origins, torch.tensor([[[1.0, 0.0, 0.0]]]))
    # From the front the camera's right is the world's y axis; rows come from the top.
    expected = torch.tensor([[-1, -half, half], [-1, half, half], [-1, -half, -half], [-1, half, -half]])
    torch.testing.assert_close(directions[0], expected, atol=1e-6, rtol=0)


def test_encoding():
    found = encode(torch.tensor([[0.25, 0.5]]), 2)
    root = math.sqrt(0.5)
    torch.testing.assert_close(found, torch.tensor([[root, 1.0, root, 0.0, 1.0, 0.0, 0.0, -1.0]]), atol=1e-6, rtol=0)


def test_background_positions_lie_on_the_ray_and_the_sphere():
    origins, directions = (part.double() for part in cast_rays(small.stylenerf().camera(0.3, 0.1), 4))
    found = background_positions(origins, directions, torch.tensor([0.5, 0.1, 0.0], dtype=torch.float64))
    torch.testing.assert_close(found[..., :3].norm(dim=3), torch.ones(1, 16, 3, dtype=torch.float64))
    points = found[..., :2, :3] / found[..., :2, 3:]
    across = torch.linalg.cross(points - origins[:, :, None], directions[:, :, None].expand_as(points))
    torch.testing.assert_close(across, torch.zeros_like(across), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[..., 2, :3], directions / directions.norm(dim=2, keepdim=True))


def test_opacity_weights():
    density, distances = torch.tensor([[[1.0, 2.0, 5.0]]]), torch.tensor([[[0.5, 0.25]]])
    weights, transmittance = opacity_weights(density, distances, last=0.0)
    through = math.exp(-0.5)
    torch.testing.assert_close(weights[0, 0], torch.tensor([1 - through, through * (1 - through), 0.0]))
    assert float(transmittance) == pytest.approx(through**2)
    everything, _ = opacity_weights(density, distances, last=1.0)
    assert float(everything.sum()) == pytest.approx(1)


def test_resampled_fractions_are_quantiles():
    fractions = torch.linspace(0, 1, 5)
    even = resampled(fractions, torch.ones(1, 1, 5))
    torch.testing.assert_close(even[0, 0], torch.linspace(0.125, 0.875, 5))
    peaked = resampled(fractions, torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]]))
    assert ((peaked[0, 0, 1:-1] > 0.37) & (peaked[0, 0, 1:-1] < 0.63)).all()
