"""StyleGAN2: the shared-weight convolution equals the modulated one, truncation, noise, freezing, damaged files."""

import math

import pytest
import torch
import torch.nn.functional as F
from hostile import Trap
from pydantic import ValidationError

from promptgen.errors import ConfigError
from promptgen.generators.stylegan2.generator import StyleGAN2Config, load_stylegan2
from promptgen.generators.stylegan2.layers import ModulatedConv
from promptgen.seeding import stream
from tests.generators import small


@pytest.mark.parametrize("upsample", [False, True])
def test_modulated_convolution_equals_its_definition(upsample):
    layer = ModulatedConv(5, 4, 3, 6, stream(0, "layer"), upsample=upsample).double()
    x, w = torch.randn(2, 5, 8, 8, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    for i, result in enumerate(layer(x, w)):
        style = layer.modulation(w[i])
        weight = layer.weight[0] / math.sqrt(5 * 9) * style[:, None, None]  # one image's own weights
        weight = weight * torch.rsqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
        if upsample:
            doubled = F.conv_transpose2d(x[i], weight.transpose(0, 1), stride=2)
            expected = F.conv2d(F.pad(doubled, (1, 1, 1, 1))[:, None], layer.blur.kernel[None, None])[:, 0]
        else:
            expected = F.conv2d(x[i], weight, padding=1)
        torch.testing.assert_close(result, expected)


def test_state_dict_is_the_published_layout_alone():
    assert not [key for key in small.stylegan2(truncation=0.5).state_dict() if key.startswith(("prior", "mean"))]


def test_every_parameter_learns_until_frozen():
    model = small.with_noise(small.stylegan2())
    model(small.latents(model)).square().mean().backward()
    assert [name for name, value in model.named_parameters() if not value.grad.any()] == []
    model.freeze()
    assert not any(value.requires_grad for value in model.parameters())


def test_truncation_moves_styles_to_their_mean():
    model = small.stylegan2(truncation=0.0)
    model.freeze()
    images = model(small.latents(model))
    torch.testing.assert_close(images, images[:1].expand_as(images))
    many = model.mapping(model.prior.sample(50_000, stream(9, "others")))
    torch.testing.assert_close(model.mean_w, many.mean(dim=0), rtol=0, atol=0.02)


def test_truncation_halves_the_distance_to_a_given_mean():
    model = small.stylegan2(truncation=0.5)
    model.set_mean_w(torch.ones(6))
    torch.testing.assert_close(model.truncate(torch.full((2, 6), 3.0)), torch.full((2, 6), 2.0))


def test_truncation_without_its_centre_is_an_error():
    model = small.stylegan2(truncation=0.5)
    with pytest.raises(ConfigError, match="needs mean_w"):
        model(small.latents(model))


@pytest.mark.parametrize(
    "wrong", [{"size": 48}, {"size": 32, "channels": small.STYLEGAN2["channels"]}, {"size": 2048}, {"sise": 16}]
)
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(ValidationError):
        StyleGAN2Config(**{"size": 16} | wrong)


def test_published_channels():
    config = StyleGAN2Config(size=1024)
    assert [config.channels_at(r) for r in config.resolutions] == [512, 512, 512, 512, 512, 256, 128, 64, 32]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"not a checkpoint", "fetch it again"),
        ({"generator": {}}, "expected the entry 'g_ema', found \\['generator'\\]"),
        ({"g_ema": {"input.input": 1}}, "a dict of tensors under 'g_ema'"),
        ({"g_ema": {"input.input": torch.zeros(1, 2, 4, 4)}}, "missing: .*of another shape: input.input is"),
        ({"g_ema": Trap()}, "refused"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(tmp_path, refused, content, message):
    path = tmp_path / "model.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with refused(f"model.pt: .*{message}"):
        load_stylegan2(path, 8)
