"""NVAE: chosen groups, noise, temperature, kinds of cells, memory, published layout, damaged files."""

import argparse

import pytest
import torch
from hostile import Trap
from pydantic import ValidationError
from torch.autograd.graph import saved_tensors_hooks

from promptgen.generators.nvae import generator as nvae
from promptgen.generators.nvae.config import CELLS, OPTIONS, NVAEConfig
from promptgen.generators.nvae.generator import load_nvae
from promptgen.generators.nvae.layers import fold_weight_norm
from promptgen.generators.nvae.output import Mixture, mean_image
from tests.generators import small


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
    torch.save(published(small.nvae()), tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


def test_chosen_groups_take_their_noise_in_the_order_given():
    model = small.nvae(groups=(2, 0))
    latent = torch.arange(float(model.prior.dim))[None]
    top, _, last = model.noises(latent)
    torch.testing.assert_close(last.flatten(), latent[0, : small.NVAE_NUMBERS[2]])
    torch.testing.assert_close(top.flatten(), latent[0, small.NVAE_NUMBERS[2] :])


def test_temperature_scales_every_deviation_of_the_top_group():
    latent = small.latents(small.nvae())
    warm, cool = (model.decode(model.noises(latent)) for model in (small.nvae(), small.nvae(temperature=0.5)))
    torch.testing.assert_close(warm.deviations[0], torch.full_like(warm.deviations[0], 1.01))
    torch.testing.assert_close(cool.deviations[0], torch.full_like(cool.deviations[0], 0.505))
    assert (cool.means[0] == 0).all()


@pytest.mark.parametrize("architecture", CELLS)
def test_every_kind_of_cell_computes(architecture):
    model = small.nvae(architecture=architecture, squeeze=architecture == "res_elu", channels=8)
    assert model(small.latents(model)).isfinite().all()


@pytest.mark.parametrize("groups", [(0,), (2, 0), (2,)])
def test_recomputation_changes_memory_alone(monkeypatch, groups):
    model = small.nvae(groups=groups, cells_per_group=3)
    latent = small.latents(model).requires_grad_()
    little, gradient, image = small.saved_bytes(model, latent)
    monkeypatch.setattr(nvae, "recomputed", lambda function, *arguments: function(*arguments))
    much, expected, expected_image = small.saved_bytes(model, latent)
    torch.testing.assert_close(image, expected_image, rtol=0, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0)
    assert 2 * little < much


def test_memory_is_that_of_the_features_between_groups():
    model, deep, long = small.nvae(), small.nvae(cells_per_group=4), small.nvae(groups_per_scale=3)
    latent = small.latents(model).requires_grad_()
    kept, deep_kept, long_kept = (small.saved_bytes(each, latent)[0] for each in (model, deep, long))
    assert deep_kept == kept
    per_group = latent.element_size() * len(latent) * (8 + 3) * 4 * 4  # 8 maps of features and 3 of noise
    assert long_kept - kept == per_group


def test_nothing_is_kept_where_no_gradient_is_asked_for():
    model = small.nvae()
    latent = small.latents(model)
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
    assert small.nvae(mixtures=1)(torch.zeros(1, small.NVAE_NUMBERS[0])).shape == (1, 3, 8, 8)


def test_statistics_are_estimated_again():
    model, untouched = small.nvae(), small.nvae()
    first = model.post_process[0]._ops[0].conv[1].bn
    assert (first.running_mean == 0).all()
    model.estimate_statistics(2, batch=4)
    assert (first.running_mean != 0).any()
    assert not any(module.training for module in model.modules())
    again = small.nvae()
    again.estimate_statistics(2, batch=4)
    latent = small.latents(model)
    torch.testing.assert_close(again(latent), model(latent), rtol=0, atol=0)
    assert not torch.allclose(untouched(latent), model(latent))


def test_loading_restores_the_network(path):
    model = load_nvae(path)
    latent = small.latents(model)
    torch.testing.assert_close(model(latent), small.nvae()(latent), rtol=1e-3, atol=1e-4)


def test_half_precision_is_read_as_single_before_a_norm_is_computed(path):
    halves = published(small.nvae())
    halves["state_dict"] = {key: value.half() for key, value in halves["state_dict"].items()}
    torch.save(halves, path)
    singles = {key: value.float() for key, value in halves["state_dict"].items() if key.startswith("image_")}
    expected = fold_weight_norm(singles, path)["image_conditional.1.weight"]
    torch.testing.assert_close(load_nvae(path).image_conditional[1].weight, expected, rtol=0, atol=0)


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
        NVAEConfig(**small.NVAE | wrong)


def without(entry, key):
    return lambda content: content[entry].__delitem__(key)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content.pop("args"), "expected the entries 'args' and 'state_dict', found"),
        (lambda content: content.update(args=3), "expected the options under 'args', got int"),
        (lambda content: delattr(content["args"], "use_se"), "the options lack use_se"),
        (lambda content: setattr(content["args"], "arch_instance", "odd"), "architecture must be one of"),
        (lambda content: setattr(content["args"], "num_channels_dec", 1024), "prior_ftr0 has .* 4096 channels"),
        (lambda content: setattr(content["args"], "num_channels_dec", 10**9), "channels: should be less"),
        (lambda content: setattr(content["args"], "num_cell_per_cond_dec", 2), "missing: dec_tower"),
        (lambda content: setattr(content["args"], "num_mixture_dec", 3), "of another shape: image_conditional"),
        (lambda content: content.update(state_dict={"prior_ftr0": 1}), "a dict of tensors under 'state_dict'"),
        (without("state_dict", "prior_ftr0"), "expected maps under 'prior_ftr0'"),
        (without("state_dict", "dec_tower.0.conv.bias"), "missing: dec_tower.0.conv.bias"),
        (without("state_dict", "image_conditional.1.weight"), "does not belong to a convolution's weight"),
        (lambda content: content.update(optimizer=Trap()), "refused"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(tmp_path, refused, damage, message):
    content = published(small.nvae())
    damage(content)
    torch.save(content, tmp_path / "checkpoint.pt")
    with refused(f"checkpoint.pt: .*{message}"):
        load_nvae(tmp_path / "checkpoint.pt")
