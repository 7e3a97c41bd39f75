"""NVAE's decoder reads the published layout and computes what the original network computed."""

import argparse
import copy

import pytest
import torch
from filling import assert_close, decimals_of, fixtures_of, kept_of, part

from promptgen.generators.nvae import load_nvae
from promptgen.generators.nvae_output import Mixture

LOW = 0.7
"""The temperature of the arrays whose name says none."""

fixtures = pytest.mark.parametrize("fixture", fixtures_of("nvae"), scope="module")


@pytest.fixture(scope="module")
def path(fixture, tmp_path_factory):
    """A file as its training leaves it, whose options are a namespace."""
    options = argparse.Namespace(**fixture.file_content()["args"], epochs=400, save="checkpoints")
    path = tmp_path_factory.mktemp("published") / "checkpoint.pt"
    yield fixture.write_file(path, args=options, optimizer={})
    path.unlink()


@pytest.fixture(scope="module")
def model(path):
    """With all noise as the latent."""
    return load_nvae(path, LOW, groups="all")


def at(model, temperature):
    """Return the model at another temperature, with the same weights."""
    other = copy.copy(model)
    other.config = model.config.model_copy(update={"temperature": temperature})
    return other


def noises(fixture):
    return [fixture.inputs[name] for name in sorted(fixture.inputs) if name.startswith("eps_")]


def latent(fixture):
    return torch.cat([noise.flatten(1) for noise in noises(fixture)], dim=1)


def assert_as_close_as_rounding_allows(image, exact, expected):
    """Fail unless `image` is close, or as close as it is to `exact`, the same in double precision.

    Where a pixel lies between two components, rounding in all layers before can swap them.
    """
    rounding = (image.double() - exact).abs().max() / exact.abs().max()
    assert_close(image, expected, max(1e-4, float(rounding)))


@fixtures
def test_shapes_follow_from_the_options(fixture, model):
    published, config = fixture.hyper_parameters, model.config
    assert [list(shape) for shape in config.latent_shapes] == published["latent_shapes"]
    assert config.groups_by_scale[::-1] == published["groups_per_scale"]
    assert config.image_size == published["image_size"]


@fixtures
@torch.no_grad()
def test_decoder_output(fixture, model):
    for name, temperature in decimals_of(fixture.expected, "logits_t").items():
        decoded = at(model, temperature).decode(noises(fixture))
        for key in kept_of(fixture.expected, name):
            assert_close(part(decoded.output, key), fixture.expected[key])


@fixtures
@torch.no_grad()
def test_distribution_of_each_group(fixture, model):
    decoded = model.decode(noises(fixture))
    results = {"prior_mu": decoded.means, "prior_sigma": decoded.deviations}
    compared = [name for name in fixture.expected if name.startswith("prior_")]
    assert compared
    for name in compared:
        _, kind, index, *_ = name.split("_")
        assert_close(part(results[f"prior_{kind}"][int(index)], name), fixture.expected[name])


@fixtures
@torch.no_grad()
def test_mean_image(fixture, model):
    double = copy.deepcopy(model).double()
    top = noises(fixture)[0][0].numel()
    without_top = torch.cat([torch.zeros(len(latent(fixture)), top), latent(fixture)[:, top:]], dim=1)
    cases = {name: (t, latent(fixture)) for name, t in decimals_of(fixture.expected, "image_t").items()}
    for name, (temperature, given) in {**cases, "image_t07_top_zero": (LOW, without_top)}.items():
        image, exact = (at(m, temperature)(x).clamp(0, 1) for m, x in ((model, given), (double, given.double())))
        for key in kept_of(fixture.expected, name):
            assert_as_close_as_rounding_allows(part(image, key), part(exact, key), fixture.expected[key])


@fixtures
@torch.no_grad()
def test_first_group_alone_with_the_other_noise_fixed(fixture, path, model):
    first = load_nvae(path, LOW)
    for index, noise in enumerate(noises(fixture)):
        first.fixed.get_buffer(f"noise_{index}").copy_(noise[:1])
    assert_close(first(noises(fixture)[0][:1].flatten(1)), model(latent(fixture)[:1]))


@fixtures
@torch.no_grad()
def test_mixture(fixture, model):
    if model.config.mixtures == 1:
        pytest.skip("this network describes pixels by a Gaussian")
    mixture = Mixture.parse(model.decode(noises(fixture)).output, model.config.mixtures)
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
    for name in kept_of(fixture.expected, "image_t07_drawn"):
        assert_close(part(drawn, name), fixture.expected[name])
