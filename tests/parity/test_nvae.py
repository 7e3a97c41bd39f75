"""NVAE's decoder reads the published layout and computes what the original network computed."""

import argparse
import copy
import re

import pytest
import torch
from filling import PART, assert_close, decimals_of, fixtures_of, part

from promptgen.generators.nvae.generator import load_nvae
from promptgen.generators.nvae.output import Mixture

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
    groups = {int(name.removeprefix("eps_")): name for name in fixture.inputs if name.startswith("eps_")}
    return [fixture.inputs[groups[index]] for index in sorted(groups)]


def latent(fixture):
    return torch.cat([noise.flatten(1) for noise in noises(fixture)], dim=1)


def results(fixture, model, dtype):
    """Return what the network computes in the precision `dtype`, by the names of the expected arrays."""
    model, given = model.to(dtype), [noise.to(dtype) for noise in noises(fixture)]
    found = {}
    for name, temperature in decimals_of(fixture.expected, "logits_t").items():
        found[name] = at(model, temperature).decode(given).output
    for name, temperature in decimals_of(fixture.expected, "image_t").items():
        found[name] = at(model, temperature)(latent(fixture).to(dtype))
    without_top = torch.cat([noise.flatten(1) for noise in (torch.zeros_like(given[0]), *given[1:])], dim=1)
    found["image_t07_top_zero"] = model(without_top)
    decoded = model.decode(given)
    found |= {f"prior_mu_{index:02}": mean for index, mean in enumerate(decoded.means)}
    found |= {f"prior_sigma_{index:02}": deviation for index, deviation in enumerate(decoded.deviations)}
    if model.config.mixtures > 1:
        mixture = Mixture.parse(decoded.output, model.config.mixtures)
        found |= {"mixture_logits_first": mixture.logits, "mixture_means_first": mixture.means}
        found |= {"mixture_log_scales_first": mixture.log_scales, "mixture_coeffs_first": mixture.coefficients}
        uniform = [fixture.inputs[name].to(dtype) for name in ("uniform_mixture", "uniform_pixel")]
        found["image_t07_drawn"] = mixture.draw(*uniform)
    return {name: value.clamp(0, 1) if name.startswith("image_") else value for name, value in found.items()}


@pytest.fixture(scope="module")
@torch.no_grad()
def computed(fixture, model):
    """The results in single and in double precision."""
    return results(fixture, model, torch.float32), results(fixture, copy.deepcopy(model), torch.float64)


@fixtures
def test_shapes_follow_from_the_options(fixture, model):
    published, config = fixture.hyper_parameters, model.config
    assert [list(shape) for shape in config.latent_shapes] == published["latent_shapes"]
    assert config.groups_by_scale[::-1] == published["groups_per_scale"]
    assert config.image_size == published["image_size"]


@fixtures
@pytest.mark.parametrize("kind", ["logits", "prior", "image", "mixture"])
def test_every_array(fixture, model, computed, kind):
    """A pile of many groups amplifies rounding: there the results need be no closer than rounding has them.

    A wrong network is as wrong in double precision, so that this hides nothing.
    """
    if kind == "mixture" and model.config.mixtures == 1:
        pytest.skip("this network describes pixels by a Gaussian")
    compared = [key for key in fixture.expected if key.startswith(f"{kind}_")]
    assert compared
    for key in compared:
        expected = fixture.expected[key]
        height, width = expected.shape[-2:]
        single, double = (found[re.sub(f"_{PART}$", "", key)] for found in computed)
        rounding = (single.double() - double).abs().max() / double.abs().max()
        assert_close(part(single, key)[..., :height, :width], expected, max(1e-4, 2 * float(rounding)))


@fixtures
@torch.no_grad()
def test_first_group_alone_with_the_other_noise_fixed(fixture, path, model):
    first = load_nvae(path, LOW)
    for index, noise in enumerate(noises(fixture)):
        first.fixed.get_buffer(f"noise_{index}").copy_(noise[:1])
    assert_close(first(noises(fixture)[0][:1].flatten(1)), model(latent(fixture)[:1]))
