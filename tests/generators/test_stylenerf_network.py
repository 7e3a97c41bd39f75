"""StyleNeRF: gradient, backgrounds, truncation, the camera's place in it, shapes."""

import pytest
import torch
from pydantic import ValidationError

from promptgen.errors import ConfigError
from promptgen.generators.stylenerf.config import StyleNeRFConfig
from promptgen.seeding import stream
from tests.generators import small


def test_gradient_is_that_of_finite_differences():
    model = small.stylenerf(resample=False).double()  # with re-sampling the image jumps
    direction = small.latents(model, 1).double()
    latent = small.latents(model, 2)[1:].double().requires_grad_()
    (gradient,) = torch.autograd.grad(model(latent).square().sum(), latent)
    with torch.no_grad():
        after, before = (model(latent + step * direction).square().sum() for step in (1e-6, -1e-6))
    torch.testing.assert_close((gradient * direction).sum(), (after - before) / 2e-6, rtol=1e-5, atol=1e-6)


def test_the_seed_decides_the_background():
    assert torch.equal(small.stylenerf(1).fixed_code, small.stylenerf(1).fixed_code)
    assert not torch.equal(small.stylenerf(1).fixed_code, small.stylenerf(2).fixed_code)


def test_every_image_has_its_own_background_from_a_stream():
    codes = small.stylenerf().backgrounds(3, stream(3, "noise"))
    assert not torch.equal(codes[0], codes[1])


def test_truncation_moves_styles_to_their_mean():
    model, truncated = small.stylenerf(), small.stylenerf(truncation=0.25)
    w, mean = model.styles(small.latents(model)), truncated.mapping.w_avg
    assert mean.abs().sum() > 0
    torch.testing.assert_close(truncated.styles(small.latents(model)), mean + 0.25 * (w - mean))
    torch.testing.assert_close(truncated.mapping.w_avg, small.stylenerf(truncation=0.5).mapping.w_avg, rtol=0, atol=0)


def test_camera_of_the_configuration_and_of_the_argument():
    turned, model = small.stylenerf(camera={"yaw": 0.2, "pitch": -0.1}), small.stylenerf()
    latent = small.latents(model)
    camera = model.camera(0.2, -0.1)
    torch.testing.assert_close(model(latent, camera=camera), turned(latent), rtol=0, atol=0)
    assert not torch.allclose(model(latent), turned(latent))
    several = model.camera(torch.tensor([0.2, 0.0, 0.2]), torch.tensor([-0.1, 0.0, -0.1]))
    images = model(latent, camera=several)
    torch.testing.assert_close(images[[0, 2]], turned(latent)[[0, 2]])
    torch.testing.assert_close(images[1], model(latent)[1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 12},
        {"volume_size": 32},
        {"channel_base": 2**-10},
        {"channel_base": 64.0, "channel_max": 10**6},
        {"truncation": 1.5},
        {"ray_samples": 2},
        {"depth_range": (1.0, 1.0)},
        {"camera": {"yaw": 4.0}},
        {"camera": {"roll": 0.0}},
        {"samples": 3},
    ],
)
def test_impossible_configurations_are_refused(wrong):
    with pytest.raises(ValidationError):
        StyleNeRFConfig(**small.STYLENERF | wrong)
    with pytest.raises(ConfigError):
        small.stylenerf(**wrong)


@pytest.mark.parametrize(("size", "blocks"), [(256, 3), (512, 4), (1024, 5)])
def test_published_sizes(size, blocks):
    config = StyleNeRFConfig(image_size=size)
    assert len(config.block_sizes) == blocks
    assert [config.channels_at(at) for at in config.block_sizes] == [512, 256, 128, 64, 32][:blocks]
