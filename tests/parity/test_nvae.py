"""NVAE's decoder reads the published layout and computes what the original network computed."""

import argparse

import pytest
import torch
from filling import assert_close, fixtures_of, part

from promptgen.generators.nvae import load_nvae
from promptgen.generators.nvae_output import Mixture

fixtures = pytest.mark.parametrize("fixture", fixtures_of("nvae"), scope="module")


@pytest.fixture(scope="module")
def path(fixture, tmp_path_factory):
    """A file as its training leaves it, whose options are a namespace."""
    options = argparse.Namespace(**fixture.file_content()["args"], epochs=400, save="checkpoints")
    return fixture.write_file(tmp_path_factory.mktemp("published") / "checkpoint.pt", args=options, optimizer={})


@pytest.fixture(scope="module")
def models(path):
    """Load with all noise as the latent, at the temperature asked for."""
    loaded = {}

    def model(temperature):
        if temperature not in loaded:
            loaded[temperature] = load_nvae(path, temperature, groups="all")
        return loaded[temperature]

    return model


def noises(fixture):
    return [fixture.inputs[name] for name in sorted(fixture.inputs) if name.startswith("eps_")]


def latent(fixture):
    return torch.cat([noise.flatten(1) for noise in noises(fixture)], dim=1)


def temperature(name):
    """Return the temperature in a name: 0.7 for image_t07_drawn_stride2."""
    digits = name.split("_")[1].removeprefix("t")
    return float(f"{digits[0]}.{digits[1:]}")


def names_with(fixture, prefix):
    found = [name for name in fixture.expected if name.startswith(prefix)]
    assert found
    return found


@fixtures
def test_shapes_follow_from_the_options(fixture, models):
    published, config = fixture.hyper_parameters, models(1.0).config
    assert [list(shape) for shape in config.latent_shapes] == published["latent_shapes"]
    assert config.groups_by_scale[::-1] == published["groups_per_scale"]
    assert config.image_size == published["image_size"]


@fixtures
@torch.no_grad()
def test_decoder_output(fixture, models):
    for name in names_with(fixture, "logits_t"):
        decoded = models(temperature(name)).decode(noises(fixture))
        assert_close(part(decoded.output, name), fixture.expected[name])


@fixtures
@torch.no_grad()
def test_distribution_of_each_group(fixture, models):
    decoded = models(0.7).decode(noises(fixture))
    for name in names_with(fixture, "prior_mu_"):
        assert_close(decoded.means[int(name[-2:])], fixture.expected[name])
    for name in names_with(fixture, "prior_sigma_"):
        assert_close(decoded.deviations[int(name[-2:])], fixture.expected[name])


@fixtures
@torch.no_grad()
def test_mean_image(fixture, models):
    for name in names_with(fixture, "image_t"):
        if "drawn" in name:
            continue
        given = latent(fixture)
        if "top_zero" in name:
            given[:, : noises(fixture)[0][0].numel()] = 0
        image = models(temperature(name))(given).clamp(0, 1)
        assert_close(part(image, name), fixture.expected[name])


@fixtures
@torch.no_grad()
def test_first_group_alone_with_the_other_noise_fixed(fixture, path):
    model = load_nvae(path, 0.7)
    for index, noise in enumerate(noises(fixture)):
        model.fixed.get_buffer(f"noise_{index}").copy_(noise[:1])
    image = model(noises(fixture)[0][:1].flatten(1)).clamp(0, 1)
    assert_close(image, fixture.expected["image_t07"][:1])


@fixtures
@torch.no_grad()
def test_mixture(fixture, models):
    if fixture.hyper_parameters["args"]["num_mixture_dec"] == 1:
        pytest.skip("this network describes pixels by a Gaussian")
    mixture = Mixture.parse(models(0.7).decode(noises(fixture)).output, models(0.7).config.mixtures)
    parsed = {
        "mixture_logits_first": mixture.logits,
        "mixture_means_first": mixture.means,
        "mixture_log_scales_first": mixture.log_scales,
        "mixture_coeffs_first": mixture.coefficients,
    }
    for name, result in parsed.items():
        height, width = fixture.expected[name].shape[-2:]
        assert_close(result[..., :height, :width], fixture.expected[name])
    drawn = mixture.draw(fixture.inputs["uniform_mixture"], fixture.inputs["uniform_pixel"]).clamp(0, 1)
    for name in names_with(fixture, "image_t07_drawn"):
        assert_close(part(drawn, name), fixture.expected[name])
