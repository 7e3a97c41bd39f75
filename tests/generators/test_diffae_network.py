"""Diffusion autoencoder: kinds of latent, noise, steps, memory of a backward pass, published layout, damaged files."""

from collections import OrderedDict

import pytest
import torch
from hostile import Trap
from pydantic import ValidationError

from promptgen.errors import ConfigError, DataError, ModelFileError
from promptgen.generators.diffae.config import DiffAEConfig, NoiseSchedule
from promptgen.generators.diffae.generator import load_diffae
from promptgen.generators.diffae.sampler import denoise
from promptgen.seeding import stream
from tests.generators import small

CODE, SIZE = small.DIFFAE_CODE, small.DIFFAE_SIZE


def published(model):
    """Both published files of the model: weights before averaging, previews, codes of the data and all."""
    weights = model.network.state_dict()
    before = {f"model.{key}": torch.zeros_like(value) for key, value in weights.items()}
    wrong = {
        "x_T": torch.zeros(2, 3, SIZE, SIZE),
        "conds_mean": torch.ones(1, CODE),
        "conds_std": torch.ones(1, CODE),
    }
    state = OrderedDict(wrong | before | {f"ema_model.{key}": value for key, value in weights.items()})
    state._metadata = {"": {"version": 1}}  # as torch adds it
    latent = {
        "conds": torch.zeros(4, CODE),
        "conds_mean": torch.arange(CODE) / CODE,
        "conds_std": torch.full((CODE,), 0.5),
    }
    return {"state_dict": state, "global_step": 7, "epoch": 1, "optimizer_states": [{"state": {}}]}, latent


def write(folder, checkpoint, latent):
    paths = folder / "autoencoder.ckpt", folder / "latent.pkl"
    torch.save(checkpoint, paths[0])
    torch.save(latent, paths[1])
    return paths


def test_the_noise_of_the_image_follows_that_of_the_code_in_the_latent():
    model, both = small.diffae(), small.diffae(latent="code_and_noise")
    latent = small.latents(model, 1)
    together = torch.cat([latent, model.fixed_noise.flatten(1)], dim=1)
    torch.testing.assert_close(both(together), model(latent), rtol=0, atol=0)
    torch.testing.assert_close(both(together, noise=stream(3, "noise")), both(together), rtol=0, atol=0)


def test_the_code_decides_the_image_with_its_noise():
    model = small.diffae()
    latent = small.latents(model)
    image = model.decode(model.code(latent), model.fixed_noise.expand(3, -1, -1, -1))
    torch.testing.assert_close(image, model(latent), rtol=0, atol=0)
    code = model.encode(image)
    assert code.shape == (3, CODE)
    assert not torch.allclose(model.decode(code, model.fixed_noise.expand(3, -1, -1, -1)), image)


@pytest.mark.parametrize("steps", [{"latent_steps": 10}, {"image_steps": 10}])
def test_steps_of_each_sampler_are_options(steps):
    latent = small.latents(small.diffae())
    assert not torch.allclose(small.diffae(**steps)(latent), small.diffae()(latent))


def test_steps_are_evenly_spaced_in_the_schedule():
    schedule = NoiseSchedule()
    assert schedule.spaced(5) == [0, 200, 400, 600, 800]
    assert schedule.spaced(6) == [0, 167, 334, 501, 668, 835]
    assert schedule.spaced(1000) == list(range(1000))
    with pytest.raises(ValueError, match=r"300 steps.*1000.*\[250, 334\]"):
        schedule.spaced(300)


def test_share_retained_by_a_schedule():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    torch.testing.assert_close(
        torch.tensor(NoiseSchedule().retained).double(), (1 - betas).cumprod(0), rtol=1e-6, atol=0
    )
    constant = NoiseSchedule(first=0.5, last=0.5, length=3)
    assert constant.retained == [0.5, 0.25, 0.125]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [2, 5])
def test_the_sampler_finds_the_only_point_there_is(clip, steps):
    point, schedule = torch.tensor([[-0.5, 3.0]], dtype=torch.float64), NoiseSchedule(first=0.008, last=0.008)

    def predict(x, step, points):
        left = schedule.retained[step]
        return (x - left**0.5 * points) / (1 - left) ** 0.5

    noise = torch.randn(4, 2, dtype=torch.float64, generator=stream(0, "noise"))
    found = denoise(predict, noise, schedule, steps, point, clip=clip, checkpointing=False)
    expected = point.clamp(-1, 1) if clip else point
    torch.testing.assert_close(found, expected.expand(4, 2))


@pytest.mark.parametrize("kind", ["code", "code_and_noise"])
def test_checkpointing_changes_memory_alone(kind):
    latent = small.latents(small.diffae(latent=kind)).requires_grad_()
    much, expected, expected_image = small.saved_bytes(small.diffae(latent=kind, checkpointing=False), latent)
    little, gradient, image = small.saved_bytes(small.diffae(latent=kind), latent)
    torch.testing.assert_close(image, expected_image, rtol=0, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0)
    assert 20 * little < much
    twice, *_ = small.saved_bytes(small.diffae(latent=kind, image_steps=10), latent)
    per_step = latent.element_size() * len(latent) * (CODE + 3 * SIZE**2)  # a noisy image and its code
    assert twice - little == 5 * per_step


def test_both_samplers_work_where_gradients_are_off():
    model = small.diffae()
    expected = model(small.latents(model))
    with torch.inference_mode():
        torch.testing.assert_close(model(small.latents(model)), expected)


def test_the_seed_decides_the_noise_of_the_image():
    assert torch.equal(small.diffae(1).fixed_noise, small.diffae(1).fixed_noise)
    assert not torch.equal(small.diffae(1).fixed_noise, small.diffae(2).fixed_noise)


def test_published_sizes():
    assert DiffAEConfig().image_size == 256
    assert DiffAEConfig().channels == [128, 128, 256, 256, 512, 512]
    smaller = DiffAEConfig(image_size=128)
    assert smaller.channels == [128, 128, 256, 384, 512]
    assert smaller.encoder_channels == [128, 128, 256, 384, 512, 512]
    assert (smaller.latent_network.layers, smaller.latent_network.width) == (10, 2048)
    assert smaller.latent_network.skips == {1, 2, 3, 4, 5, 6, 7, 8, 9}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"multipliers": None}, "128 and 256"),
        ({"image_size": 10}, "image_size.*multiple of 4.*10"),
        ({"base_channels": 40}, "40 channels.*multiple of 32"),
        ({"base_channels": 7}, "multiple of 2"),
        ({"multipliers": []}, "at least 1"),
        ({"image_steps": 300}, "300 steps"),
        ({"latent_steps": 1}, r"\b1 steps"),
        ({"latent": "noise"}, "'code' or 'code_and_noise'"),
        ({"latent_network": {"layers": 1}}, "greater than or equal to 2"),
        ({"latent_network": {"layers": 3, "skip_layers": [3]}}, "skip_layers must be less than 3"),
        ({"image_schedule": {"first": 0.0}}, "greater than 0"),
        ({"steps": 5}, "steps"),
    ],
)
def test_impossible_shapes_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        DiffAEConfig(**small.DIFFAE | wrong)
    with pytest.raises(ConfigError):
        small.diffae(**wrong)


@pytest.mark.parametrize("other", [{"skip_layers": [1]}, {"condition_bias": 0.0}, {"layer_norm": False}])
def test_other_latent_networks_compute(other):
    model = small.diffae(latent_network=small.DIFFAE["latent_network"] | other)
    latent = small.latents(model)
    assert model.code(latent).isfinite().all()
    assert not torch.allclose(model.code(latent), small.diffae().code(latent))


def test_images_of_a_wrong_shape_are_refused():
    with pytest.raises(DataError, match=r"\(B, 3, 8, 8\).*\(3, 3, 8, 9\)"):
        small.diffae().encode(torch.zeros(3, 3, 8, 9))


def test_loading_restores_the_network(tmp_path):
    model = small.diffae()
    loaded = load_diffae(*write(tmp_path, *published(model)), **small.DIFFAE)
    latent = small.latents(model)
    torch.testing.assert_close(loaded.normalised_code(latent), model.normalised_code(latent), rtol=0, atol=0)
    expected = model.normalised_code(latent) / 2 + torch.arange(CODE) / CODE  # the latent file's constants win
    torch.testing.assert_close(loaded.code(latent), expected)
    assert not any(value.requires_grad for value in loaded.parameters())


def test_objects_of_the_training_are_ignored(tmp_path, capsys):
    checkpoint, latent = published(small.diffae())
    checkpoint |= {"callbacks": {Trap: Trap()}, "hyper_parameters": Trap()}
    load_diffae(*write(tmp_path, checkpoint, latent), **small.DIFFAE)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content, _: content.pop("state_dict"), "ckpt: expected the entry 'state_dict', found"),
        (lambda content, _: content.update(state_dict=Trap()), "ckpt: expected a dict of tensors"),
        (lambda content, _: content["state_dict"].pop("ema_model.out.0.bias"), "ckpt: missing: out.0.bias"),
        (lambda content, _: content["state_dict"].update({"ema_model.odd": torch.ones(1)}), "ckpt: unexpected: odd"),
        (
            lambda content, _: content["state_dict"].update({"ema_model.out.0.bias": torch.ones(9)}),
            r"out.0.bias is \(9,\)",
        ),
        (lambda _, latent: latent.pop("conds_std"), "pkl: expected 6 numbers under 'conds_std', found NoneType"),
        (lambda _, latent: latent.update(conds_mean=torch.ones(7)), r"pkl: expected 6 numbers .* found \(7,\)"),
        (
            lambda _, latent: latent.update(conds_std=torch.full((CODE,), torch.nan)),
            "pkl: 'conds_std' is not finite",
        ),
        (lambda _, latent: latent.update(conds=Trap()), "pkl: .*"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(tmp_path, refused, damage, message):
    content = published(small.diffae())
    damage(*content)
    with refused(message):
        load_diffae(*write(tmp_path, *content), **small.DIFFAE)


def test_files_that_are_none_are_named(tmp_path):
    checkpoint, latent = write(tmp_path, *published(small.diffae()))
    with pytest.raises(ModelFileError, match=r"missing\.ckpt: no such file"):
        load_diffae(tmp_path / "missing.ckpt", latent, **small.DIFFAE)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match=r"autoencoder\.ckpt: "):
        load_diffae(checkpoint, latent, **small.DIFFAE)
