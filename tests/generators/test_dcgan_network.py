"""DCGAN: the layers of the tutorial, whatever their widths, with the normalisation of evaluation; damaged files."""

import pytest
import torch
from torch import nn

from promptgen.config.generators import DCGANSpec
from promptgen.errors import ConfigError
from promptgen.generators.dcgan import DCGAN, DCGANConfig, load_dcgan, random_dcgan
from promptgen.model_files.cards import Card
from promptgen.seeding import stream
from tests.generators import small


def published(config=None):
    """The state dict of a published file with made-up weights."""
    model = small.with_statistics(DCGAN(config or DCGANConfig(**small.DCGAN_SHAPE)))
    return {key: value for key, value in model.state_dict().items() if key.startswith("main.")}


def tutorial(latent, width, levels=4):
    """The generator of the tutorial, with `width` channels before the image."""
    layers, fan_in = [], latent
    for level in range(levels):
        fan_out = width << (levels - 1 - level)
        stride, padding = (1, 0) if level == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(fan_in, fan_out, 4, stride, padding, bias=False), nn.BatchNorm2d(fan_out)]
        layers += [nn.ReLU(True)]
        fan_in = fan_out
    return nn.Sequential(*layers, nn.ConvTranspose2d(fan_in, 3, 4, 2, 1, bias=False), nn.Tanh())


@pytest.mark.parametrize(("latent", "width", "levels"), [(100, 64, 4), (7, 5, 4), (3, 4, 1), (8, 3, 5)])
def test_the_tutorials_network_of_any_width(latent, width, levels, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = tutorial(latent, width, levels)
        network.requires_grad_(False)
        for layer in network:
            if isinstance(layer, nn.BatchNorm2d):
                for value in (layer.weight, layer.bias, layer.running_mean):
                    value.normal_()
                layer.running_var.uniform_(0.1, 3)
    path = tmp_path / "weights.tar"
    torch.save({"netG_state_dict": {f"main.{key}": value for key, value in network.state_dict().items()}}, path)
    model = load_dcgan(path)
    assert model.image_shape == (3, 4 << levels, 4 << levels)
    z = model.prior.sample(2, stream(0, "z")).requires_grad_()
    expected = (network.eval()(z[:, :, None, None]) + 1) / 2
    torch.testing.assert_close(model(z), expected, rtol=1e-5, atol=1e-5)
    weights = torch.rand(expected.shape, generator=stream(0, "weights"))
    gradients = [torch.autograd.grad((weights * image).sum(), z)[0] for image in (model(z), expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_the_batch_does_not_change_an_image():
    """As it would if the statistics of normalisation were those of the batch."""
    model = small.dcgan()
    z = small.latents(model)
    torch.testing.assert_close(model(z)[:1], model(z[:1]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"main.0.weight": None}, "found no such key"),
        ({"main.3.weight": None, "main.6.weight": None}, "expected a DCGAN"),
        ({"main.0.weight": torch.ones(6, 10)}, r"found \[\(6, 10\)"),
        ({"main.6.weight": torch.ones(8, 1, 4, 4)}, "1 colours, expected 3"),
        ({"main.3.weight": torch.ones(10, 8, 3, 3)}, r"main\.3\.weight is \(10, 8, 3, 3\), expected \(10, 8, 4, 4\)"),
        ({"main.3.weight": torch.ones(9, 8, 4, 4)}, r"main\.3\.weight is \(9, 8, 4, 4\), expected \(10, 8, 4, 4\)"),
        ({"main.1.weight": None}, r"missing: main\.1\.weight"),
        ({"main.1.running_var": -torch.ones(10)}, "variance .* is negative"),
        ({"main.1.running_mean": torch.full((10,), float("nan"))}, "not finite"),
        ({f"main.{3 * i}.weight": torch.ones(3, 3, 4, 4) for i in range(10)}, "10 convolutions, expected at most 9"),
    ],
)
def test_files_of_other_networks_are_refused(changes, match, tmp_path, refused):
    state = {key: value for key, value in (published() | changes).items() if value is not None}
    path = tmp_path / "weights.tar"
    torch.save({"netG_state_dict": state}, path)
    with refused(match):
        load_dcgan(path)


def test_a_card_that_states_another_shape_is_refused(tmp_path, refused):
    path = tmp_path / "weights.tar"
    torch.save({"netG_state_dict": published()}, path)
    assert load_dcgan(path, latent_dim=6, channels=[10, 8]).config == DCGANConfig(**small.DCGAN_SHAPE)
    for wrong in ({"latent_dim": 7}, {"channels": [10, 9]}):
        with refused(r"latents of 6 and channels \(10, 8\), expected"):
            load_dcgan(path, **wrong)


def test_random_networks_take_a_shape():
    assert random_dcgan(latent_dim=3, channels=[4]).image_shape == (3, 8, 8)
    assert random_dcgan().config == DCGANConfig()
    for wrong in ({"latent_dim": 0}, {"channels": []}, {"width": 3}, {"channels": [1] * 9}):
        with pytest.raises(ConfigError):
            random_dcgan(**wrong)


def test_the_size_is_planned_where_the_card_states_it():
    files = [{"file": "weights.tar", "urls": []}]
    unstated = Card(kind="generator", type="dcgan", files=files, licence="none")
    stated = unstated.model_copy(update={"arguments": small.DCGAN_SHAPE})
    published, random = (DCGANSpec(type="dcgan", model="mine", weights=weights) for weights in ("published", "random"))
    assert published.shape(unstated) is None
    assert (published.shape(stated).image_size, published.shape(stated).dim) == (16, 6)
    assert (random.shape(unstated).image_size, random.shape(unstated).dim) == (64, 100)
    seeded = DCGANSpec(type="dcgan", model="mine", weights="random", arguments={"seed": 3, "latent_dim": 5})
    assert seeded.shape(unstated).dim == 5
