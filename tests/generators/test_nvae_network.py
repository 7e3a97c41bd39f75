"""NVAE: chosen groups, noise, temperature, kinds of cells, memory, published layout, damaged files."""

import argparse

import pytest
import torch
from pydantic import ValidationError
from torch.autograd.graph import saved_tensors_hooks

from promptgen.errors import DataError, ModelFileError
from promptgen.flow import Flow, FlowConfig
from promptgen.generators import nvae
from promptgen.generators.base import GaussianPrior
from promptgen.generators.nvae import NVAE, load_nvae, random_nvae
from promptgen.generators.nvae_config import CELLS, OPTIONS, NVAEConfig
from promptgen.generators.nvae_layers import fold_weight_norm
from promptgen.generators.nvae_output import Mixture, mean_image
from promptgen.objective import reverse_kl
from promptgen.seeding import stream

SHAPE = {
    "top_size": 2,
    "scales": 2,
    "groups_per_scale": 2,
    "min_groups_per_scale": 1,
    "latent_channels": 3,
    "channels": 4,
    "cells_per_group": 1,
    "mixtures": 2,
}
NUMBERS = [3 * 2 * 2, 3 * 4 * 4, 3 * 4 * 4]


def small(seed=0, **options):
    return random_nvae(seed=seed, **SHAPE | options)


def latents(model, n=3):
    return model.prior.sample(n, stream(0, "test"))


def published(model):
    """A published checkpoint of the model, encoder, copies of weights and all."""
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    given = model.config.model_dump()
    options = argparse.Namespace(**{name: given[field] for name, field in OPTIONS.items()}, num_nf=1)
    weight = state["image_conditional.1.weight"]
    # Twice the weight, of the norm it had: that is what loading has to restore.
    state["image_conditional.1.log_weight_norm"] = weight.flatten(1).norm(dim=1).log()[:, None, None, None]
    state["image_conditional.1.weight"] = 2 * weight
    state["image_conditional.1.weight_normalized"] = torch.zeros(1)
    return {"args": options, "state_dict": state | {"stem.weight": torch.zeros(4, 3, 3, 3)}, "epoch": 7}


@pytest.fixture
def path(tmp_path):
    torch.save(published(small()), tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


@pytest.mark.parametrize(("groups", "chosen"), [((0,), [0]), ((2, 0), [2, 0]), ("all", [0, 1, 2])])
def test_keeps_the_generator_contract(groups, chosen):
    model = small(groups=groups)
    assert isinstance(model.prior, GaussianPrior)
    assert model.image_shape == (3, 8, 8)
    assert model.prior.dim == sum(NUMBERS[index] for index in chosen)
    latent = latents(model).requires_grad_()
    image = model(latent)
    assert image.shape == (3, 3, 8, 8)
    torch.testing.assert_close(model(latent[:1]), image[:1])
    (gradient,) = torch.autograd.grad(image.square().sum(), latent)
    assert (gradient.abs() > 0).all()


def test_frozen_for_good():
    model = small()
    assert not any(value.requires_grad for value in model.parameters())
    assert not model.train().training


def test_chosen_groups_take_their_noise_in_the_order_given():
    model = small(groups=(2, 0))
    latent = torch.arange(float(model.prior.dim))[None]
    top, _, last = model.noises(latent)
    torch.testing.assert_close(last.flatten(), latent[0, : NUMBERS[2]])
    torch.testing.assert_close(top.flatten(), latent[0, NUMBERS[2] :])


def test_other_groups_have_fixed_noise_unless_a_stream_is_given():
    model = small()
    latent = latents(model)
    fixed = model(latent)
    torch.testing.assert_close(model(latent), fixed, rtol=0, atol=0)
    fresh = model(latent, noise=stream(3, "noise"))
    assert not torch.allclose(fresh, fixed)
    torch.testing.assert_close(model(latent, noise=stream(3, "noise")), fresh, rtol=0, atol=0)
    everything = small(groups="all")
    latent = latents(everything)
    torch.testing.assert_close(everything(latent, noise=stream(3, "noise")), everything(latent), rtol=0, atol=0)


def test_temperature_scales_every_deviation_of_the_top_group():
    latent = latents(small())
    warm, cool = (model.decode(model.noises(latent)) for model in (small(), small(temperature=0.5)))
    torch.testing.assert_close(warm.deviations[0], torch.full_like(warm.deviations[0], 1.01))
    torch.testing.assert_close(cool.deviations[0], torch.full_like(cool.deviations[0], 0.505))
    assert (cool.means[0] == 0).all()


@pytest.mark.parametrize("architecture", CELLS)
def test_every_kind_of_cell_computes(architecture):
    model = small(architecture=architecture, squeeze=architecture == "res_elu", channels=8)
    assert model(latents(model)).isfinite().all()


def saved_bytes(model, latent):
    """Return the bytes that are kept for the backward pass, the gradient and the image."""
    kept = []

    def keep(tensor):
        kept.append(tensor.nbytes)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        image = model(latent)
    (gradient,) = torch.autograd.grad(image.square().sum(), latent)
    return sum(kept), gradient, image


@pytest.mark.parametrize("groups", [(0,), (2, 0), (2,)])
def test_recomputation_changes_memory_alone(monkeypatch, groups):
    model = small(groups=groups, cells_per_group=3)
    latent = latents(model).requires_grad_()
    little, gradient, image = saved_bytes(model, latent)
    monkeypatch.setattr(nvae, "recomputed", lambda function, *arguments: function(*arguments))
    much, expected, expected_image = saved_bytes(model, latent)
    torch.testing.assert_close(image, expected_image, rtol=0, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0)
    assert 2 * little < much


def test_memory_is_that_of_the_features_between_groups():
    model, deep, long = small(), small(cells_per_group=4), small(groups_per_scale=3)
    latent = latents(model).requires_grad_()
    kept, deep_kept, long_kept = (saved_bytes(each, latent)[0] for each in (model, deep, long))
    assert deep_kept == kept
    per_group = latent.element_size() * len(latent) * (8 + 3) * 4 * 4  # 8 maps of features and 3 of noise
    assert long_kept - kept == per_group


def test_nothing_is_kept_where_no_gradient_is_asked_for():
    model = small()
    latent = latents(model)
    with saved_tensors_hooks(lambda tensor: pytest.fail("kept"), lambda tensor: tensor):
        expected = model(latent)
    with torch.no_grad():
        torch.testing.assert_close(model(latent.requires_grad_()), expected, rtol=0, atol=0)


def test_published_size():
    config = NVAEConfig()
    assert config.image_size == 256
    assert config.groups_by_scale == [4, 4, 4, 8, 16]
    assert config.latent_shapes[0] == (20, 8, 8)


def test_mean_image_of_one_sure_component():
    output = torch.zeros(1, 20, 1, 1)
    output[0, 0], output[0, 1] = 100.0, -100.0  # the first component, surely
    output[0, [2, 8, 14], 0, 0] = torch.tensor([0.5, 0.25, 3.0])  # its red, green and blue
    output[0, [6, 12], 0, 0] = 100.0  # green adds red; blue adds red
    image = mean_image(output, 2)
    torch.testing.assert_close(image.flatten(), torch.tensor([0.75, 0.875, 2.25]))
    drawn = Mixture.parse(output, 2).draw(torch.full((1, 2, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.5))
    torch.testing.assert_close(drawn, image)


def test_mean_image_of_a_gaussian():
    output = torch.tensor([0.0, 5.0, -5.0, 1.0, 2.0, 3.0])[None, :, None, None]
    tanh = torch.tanh(torch.tensor(1.0))
    expected = torch.stack([torch.tensor(0.5), (5 * tanh + 1) / 2, (1 - 5 * tanh) / 2])
    torch.testing.assert_close(mean_image(output, 1).flatten(), expected)
    assert small(mixtures=1)(torch.zeros(1, NUMBERS[0])).shape == (1, 3, 8, 8)


def test_statistics_are_estimated_again():
    model, untouched = small(), small()
    first = model.post_process[0]._ops[0].conv[1].bn
    assert (first.running_mean == 0).all()
    model.estimate_statistics(2, batch=4)
    assert (first.running_mean != 0).any()
    assert not any(module.training for module in model.modules())
    again = small()
    again.estimate_statistics(2, batch=4)
    latent = latents(model)
    torch.testing.assert_close(again(latent), model(latent), rtol=0, atol=0)
    assert not torch.allclose(untouched(latent), model(latent))


def test_loading_restores_the_network(path):
    model = load_nvae(path)
    latent = latents(model)
    torch.testing.assert_close(model(latent), small()(latent), rtol=1e-3, atol=1e-4)


def test_half_precision_is_read_as_single_before_a_norm_is_computed(path):
    halves = published(small())
    halves["state_dict"] = {key: value.half() for key, value in halves["state_dict"].items()}
    torch.save(halves, path)
    singles = {key: value.float() for key, value in halves["state_dict"].items() if key.startswith("image_")}
    expected = fold_weight_norm(singles, path)["image_conditional.1.weight"]
    torch.testing.assert_close(load_nvae(path).image_conditional[1].weight, expected, rtol=0, atol=0)


def test_one_step_of_a_flow():
    model = small()
    flow = Flow(model.prior.dim, FlowConfig(blocks=2, hidden=8), scale=model.prior.scale)
    optimiser = torch.optim.Adam(flow.parameters(), lr=0.01)
    eps = torch.randn(4, flow.dim, generator=stream(0, "eps"))

    def loss():
        return reverse_kl(flow, model, lambda sample: 50 * sample.image.mean(dim=(1, 2, 3)), eps).value

    before = loss()
    before.backward()
    optimiser.step()
    assert loss() < before


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": ()},
        {"groups": (0, 0)},
        {"groups": (3,)},
        {"groups": (-1,)},
        {"temperature": 0.0},
        {"architecture": "mbconv_den"},
        {"scales": 1, "groups_per_scale": 1},
        {"channels": 1, "preprocess_blocks": 0, "postprocess_blocks": 2},
        {"scale": 2},
    ],
)
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(ValidationError):
        NVAEConfig(**SHAPE | wrong)


def test_latents_of_a_wrong_shape_are_refused():
    with pytest.raises(DataError, match=r"expected latents of shape \(B, 12\), got \(3, 13\)"):
        small()(torch.zeros(3, 13))


class Trap:
    def __reduce__(self):
        return (print, ("this must never run",))


def without(entry, key):
    return lambda content: content[entry].__delitem__(key)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content.pop("args"), "expected the entries 'args' and 'state_dict', found"),
        (lambda content: content.update(args=3), "expected the options under 'args', got int"),
        (lambda content: delattr(content["args"], "use_se"), "the options lack use_se"),
        (lambda content: setattr(content["args"], "arch_instance", "odd"), "architecture must be one of"),
        (lambda content: setattr(content["args"], "num_channels_dec", 1024), "prior_ftr0 is .* 4096 channels"),
        (lambda content: setattr(content["args"], "num_channels_dec", 10**9), "channels: Input should be less"),
        (lambda content: setattr(content["args"], "num_cell_per_cond_dec", 2), "missing: dec_tower"),
        (lambda content: setattr(content["args"], "num_mixture_dec", 3), "of another shape: image_conditional"),
        (lambda content: content.update(state_dict={"prior_ftr0": 1}), "a dict of tensors under 'state_dict'"),
        (without("state_dict", "prior_ftr0"), "expected maps under 'prior_ftr0'"),
        (without("state_dict", "dec_tower.0.conv.bias"), "missing: dec_tower.0.conv.bias"),
        (without("state_dict", "image_conditional.1.weight"), "does not belong to a convolution's weight"),
        (lambda content: content.update(optimizer=Trap()), "refused"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(tmp_path, capsys, damage, message):
    content = published(small())
    damage(content)
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelFileError, match=f"checkpoint.pt: .*{message}") as error:
        load_nvae(tmp_path / "checkpoint.pt")
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_seed_decides_the_weights():
    latent = torch.zeros(1, NUMBERS[0])
    torch.testing.assert_close(small(1)(latent), small(1)(latent), rtol=0, atol=0)
    assert not torch.allclose(small(1)(latent), NVAE(NVAEConfig(**SHAPE), 2)(latent))
