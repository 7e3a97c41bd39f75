"""NVIDIA's pickles that are not what they should be, and files of every shape: one clear line, or the right network."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from promptgen.errors import ConfigError
from promptgen.generators.r3gan.generator import load_r3gan
from promptgen.generators.stylegan2.generator import load_stylegan2
from promptgen.generators.stylegan3.config import StyleGAN3Config
from promptgen.generators.stylegan3.generator import load_stylegan3
from promptgen.loading.inspection.report import inspect_file
from tests.generators import small
from tests.parity.nvidia_files import (
    r3gan_file,
    stylegan2_file,
    stylegan2_tree,
    stylegan3_file,
    stylegan3_tree,
    walk,
    write_pickle,
)
from tests.parity.persistent import Persistent

SETTINGS = {"z_dim": 6, "w_dim": 5, "c_dim": 0, "img_resolution": 16, "img_channels": 3}
LOADERS = {"StyleGAN2-ADA": load_stylegan2, "StyleGAN3": load_stylegan3, "R3GAN": load_r3gan}
CONFIG3 = StyleGAN3Config(**small.STYLEGAN3)


def stylegan2_tensors(size=16, classes=0, z=6, w=5, layers=3, width=7, embedded=4):
    """Return the tensors of a StyleGAN2 of an uncommon shape, in the published layout."""
    rng = torch.Generator().manual_seed(0)
    channels = {4: 12, 8: 10, 16: 8, 32: 6}

    def numbers(*shape):
        return torch.randn(shape, generator=rng)

    tensors = {"mapping.w_avg": 0.1 * numbers(w), "synthesis.b4.const": numbers(12, 4, 4)}
    if classes:
        tensors |= {"mapping.embed.weight": numbers(embedded, classes), "mapping.embed.bias": numbers(embedded)}
    widths = [z + (embedded if classes else 0), *[width] * (layers - 1), w]
    for index in range(layers):
        tensors[f"mapping.fc{index}.weight"] = 100 * numbers(widths[index + 1], widths[index])
        tensors[f"mapping.fc{index}.bias"] = 100 * numbers(widths[index + 1])
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    taps = torch.outer(taps, taps) / 64
    below = 12
    for r in (r for r in channels if r <= size):
        own = channels[r]
        layers_of = {"conv1": (own, own, 3)} if r == 4 else {"conv0": (below, own, 3), "conv1": (own, own, 3)}
        for name, (fan_in, fan_out, kernel) in (layers_of | {"torgb": (own, 3, 1)}).items():
            prefix = f"synthesis.b{r}.{name}"
            tensors[f"{prefix}.weight"] = numbers(fan_out, fan_in, kernel, kernel)
            tensors[f"{prefix}.bias"] = 0.1 * numbers(fan_out)
            tensors[f"{prefix}.affine.weight"] = numbers(fan_in, w)
            tensors[f"{prefix}.affine.bias"] = 1 + 0.1 * numbers(fan_in)
            if name != "torgb":
                tensors[f"{prefix}.noise_const"] = numbers(r, r)
                tensors[f"{prefix}.noise_strength"] = numbers()
                tensors[f"{prefix}.resample_filter"] = taps
        tensors[f"synthesis.b{r}.resample_filter"] = taps
        below = own
    return tensors


def settings2(tensors, clamp=None):
    size = max(int(match[1]) for key in tensors if (match := re.match(r"synthesis\.b(\d+)", key)))
    embed = tensors.get("mapping.embed.weight")
    own = {"img_resolution": size, "c_dim": 0 if embed is None else embed.shape[1]}
    return SETTINGS | own | {"synthesis_kwargs": {"conv_clamp": clamp}}


def described3(config=CONFIG3):
    """Return attributes of the layers and of the input, by the names of a fixture's manifest."""
    first, layers = config.geometry
    sizes = [first.size]
    for layer in layers:
        sizes.append(layer.size_after(sizes[-1])[0])
    attributes = [
        layer.model_dump() | {"in_size": before, "out_size": after, "padding": list(layer.padding)}
        for layer, before, after in zip(layers, sizes, sizes[1:], strict=False)
    ]
    return attributes, first.model_dump()


def write(family, path):
    if family == "StyleGAN2-ADA":
        return stylegan2_file(path, stylegan2_tensors(), settings2(stylegan2_tensors()))
    if family == "StyleGAN3":
        tensors = small.stylegan3(variant="r").state_dict()
        layers, first = described3(StyleGAN3Config(**small.STYLEGAN3, variant="r"))
        return stylegan3_file(path, tensors, SETTINGS, layers, first)
    return r3gan_file(path, small.r3gan().state_dict(), {"z_dim": 6, "c_dim": 0, "img_resolution": 16})


@pytest.mark.parametrize("family", LOADERS)
def test_a_file_is_read_by_its_own_loader_and_told_apart_by_the_others(family, tmp_path, refused):
    path = write(family, tmp_path / "network.pkl")
    assert LOADERS[family](path).image_shape == (3, 16, 16)
    assert inspect_file(path, {}).network == f"{family} pickle of 16 pixels"
    for other in LOADERS.keys() - {family}:
        with refused(f"expected a {other} under 'G_ema', found a {family}"):
            LOADERS[other](path)


@pytest.mark.parametrize("family", LOADERS)
def test_a_truncated_file_is_refused(family, tmp_path, refused):
    path = write(family, tmp_path / "network.pkl")
    content = path.read_bytes()
    for cut in (3, len(content) // 2, len(content) - 2):
        path.write_bytes(content[:cut])
        with refused("network.pkl: "):
            LOADERS[family](path)


@pytest.mark.parametrize("family", LOADERS)
def test_objects_of_other_classes_are_refused_by_name(family, tmp_path, refused):
    other = Persistent("Discriminator", {"_parameters": {}, "_buffers": {}, "_modules": {}})
    with refused("found an object of the class Discriminator"):
        LOADERS[family](write_pickle(tmp_path / "network.pkl", other))
    with refused("found no 'G_ema' among"):
        LOADERS[family](write_pickle(tmp_path / "network.pkl", None))


@pytest.mark.parametrize("family", ["StyleGAN3", "R3GAN"])
def test_a_converted_checkpoint_is_named(family, tmp_path, refused):
    torch.save({"g_ema": small.stylegan2().state_dict()}, tmp_path / "ffhq.pt")
    with refused("found: .*StyleGAN2 of 16 pixels"):
        LOADERS[family](tmp_path / "ffhq.pt")


@pytest.mark.parametrize(("size", "classes", "clamp"), [(8, 0, None), (16, 3, 2.0), (32, 0, 256)])
def test_a_stylegan2_of_any_shape_follows_from_its_file(size, classes, clamp, tmp_path):
    tensors = stylegan2_tensors(size, classes)
    path = stylegan2_file(tmp_path / "network.pkl", tensors, settings2(tensors, clamp), protocol=4)
    model = load_stylegan2(path, truncation=0.5, classes=1 if classes else None)
    config = model.config
    assert (config.size, config.class_count, config.clamp) == (size, classes, clamp)
    assert (config.latent_dim, config.w_dim, config.mapping_layers, config.mapping_width) == (6, 5, 3, 7)
    torch.testing.assert_close(model.mean_w, tensors["mapping.w_avg"], rtol=0, atol=0)
    image = model(small.latents(model))
    assert image.shape[1:] == (3, size, size)
    assert image.isfinite().all()


def test_the_bound_of_activations_acts(tmp_path):
    tensors = stylegan2_tensors()
    loose, tight = (
        load_stylegan2(stylegan2_file(tmp_path / f"{clamp}.pkl", tensors, settings2(tensors, clamp)))
        for clamp in (None, 0.5)
    )
    latent = small.latents(loose)
    *_, image = tight.skip_images(tight.mapping(latent))
    assert image.abs().max() < 3 * 0.5 < 2 * loose(latent).sub(0.5).abs().max()


def test_the_same_tensors_as_safetensors(tmp_path):
    tensors = stylegan2_tensors(16, 3)
    pickled = load_stylegan2(stylegan2_file(tmp_path / "a.pkl", tensors, settings2(tensors, 2.0)), classes=0)
    path = tmp_path / "a.safetensors"
    save_file(
        {key: value.contiguous().clone() for key, value in tensors.items()},
        path,
        {"_init_kwargs": json.dumps(settings2(tensors, 2.0))},
    )
    again = load_stylegan2(path, classes=0)
    torch.testing.assert_close(again(small.latents(again)), pickled(small.latents(again)), rtol=0, atol=0)


def test_stylegan3_and_r3gan_as_safetensors(tmp_path):
    made = small.stylegan3(variant="t")
    settings = SETTINGS | {"channel_base": 64, "channel_max": 8}
    save_file(dict(made.state_dict()), tmp_path / "a.safetensors", {"_init_kwargs": json.dumps(settings)})
    again = load_stylegan3(tmp_path / "a.safetensors")
    torch.testing.assert_close(again(small.latents(again)), made(small.latents(again)), rtol=0, atol=0)
    made = small.r3gan()
    save_file({key: value.contiguous().clone() for key, value in made.state_dict().items()}, tmp_path / "b.safetensors")
    again = load_r3gan(tmp_path / "b.safetensors")
    torch.testing.assert_close(again(small.latents(again)), made(small.latents(again)), rtol=0, atol=0)


def test_a_network_without_noise(tmp_path):
    tensors = {key: value for key, value in stylegan2_tensors().items() if ".noise_" not in key}
    model = load_stylegan2(stylegan2_file(tmp_path / "network.pkl", tensors, settings2(tensors)))
    latent = small.latents(model)
    fresh = model(latent, noise=torch.Generator().manual_seed(1))
    torch.testing.assert_close(fresh, model(latent), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "attribute", "value", "match"),
    [
        ("synthesis.b8", "architecture", "resnet", "architecture = 'resnet'; only 'skip' is supported"),
        ("synthesis.b8.conv1", "activation", "swish", "activation = 'swish'"),
        ("synthesis.b8.conv1", "conv_clamp", 3, "2 different bounds conv_clamp"),
        ("synthesis.b8.conv1", "act_gain", np.float64(1.0), "act_gain = 1, expected 1.41421"),
        ("", "img_resolution", 32, "up to the image's 32, found 4, 8, 16"),
        ("", "img_resolution", "16", "img_resolution = '16', expected an integer"),
        ("", "img_channels", 1, "img_channels = 1; only 3 is supported"),
    ],
)
def test_what_would_compute_something_else_is_refused(name, attribute, value, match, tmp_path, refused):
    tree = stylegan2_tree(stylegan2_tensors(), settings2(stylegan2_tensors()))
    dict(walk(tree))[name].state[attribute] = value
    with refused(match):
        load_stylegan2(write_pickle(tmp_path / "network.pkl", tree))


@pytest.mark.parametrize(
    ("name", "attribute", "value", "match"),
    [
        ("synthesis", "layer_names", ["L0_36_8", "L99_1_1"], "synthesis has no L99_1_1"),
        ("synthesis", "layer_names", None, "no list layer_names"),
        ("synthesis.L3_36_8", "padding", [9, 8, 9], "padding = list, expected 4 integers"),
        ("synthesis.L3_36_8", "padding", [9, 8, 9, 12], "pixels, expected a square"),
        ("synthesis.L3_36_8", "up_factor", 1 << 40, "less than or equal to 16"),
        ("synthesis.input", "size", np.array([36, 40]), "36 x 40 pixels, expected a square"),
        ("synthesis.input", "size", np.array([1 << 30] * 2), "less than or equal to"),
        ("", "img_resolution", 64, "expected 3 of 64"),
    ],
)
def test_impossible_layers_are_refused(name, attribute, value, match, tmp_path, refused):
    tree = stylegan3_tree(small.stylegan3().state_dict(), SETTINGS, *described3())
    dict(walk(tree))[name].state[attribute] = value
    with refused(match):
        load_stylegan3(write_pickle(tmp_path / "network.pkl", tree))


def test_a_missing_or_odd_tensor_is_named(tmp_path, refused):
    tensors = stylegan2_tensors()
    some = {key: value for key, value in tensors.items() if key != "synthesis.b8.conv0.affine.bias"}
    with refused(r"missing: convs\.0\.conv\.modulation\.bias"):
        load_stylegan2(stylegan2_file(tmp_path / "network.pkl", some, settings2(tensors)))
    state = small.r3gan().state_dict()
    state.pop("Model.MainLayers.1.Layers.2.NonLinearity1.Bias")
    with refused(r"missing: Model\.MainLayers\.1\.Layers\.2\.NonLinearity1\.Bias"):
        load_r3gan(r3gan_file(tmp_path / "network.pkl", state, {"img_resolution": 16}))
    with refused("its z_dim|z_dim = 7; only 6"):
        load_r3gan(r3gan_file(tmp_path / "network.pkl", small.r3gan().state_dict(), {"z_dim": 7}))


def test_a_card_that_does_not_fit_the_file_is_corrected(tmp_path, refused):
    path = write("StyleGAN2-ADA", tmp_path / "network.pkl")
    with refused("its size is 16, expected 64; correct the arguments on its card"):
        load_stylegan2(path, 64)
    with refused("its variant is r, expected t"):
        load_stylegan3(write("StyleGAN3", tmp_path / "network.pkl"), variant="t")
    with refused(r"its widths is \(12, 12, 8\), expected \(12, 12\)"):
        load_r3gan(write("R3GAN", tmp_path / "network.pkl"), widths=(12, 12))


def test_a_file_with_classes_says_what_to_write(tmp_path):
    tensors = stylegan2_tensors(16, 3)
    path = stylegan2_file(tmp_path / "network.pkl", tensors, settings2(tensors))
    with pytest.raises(
        ConfigError, match=r"network\.pkl has the classes 0 to 2, and none was named: write `classes: 0`"
    ):
        load_stylegan2(path)
    with pytest.raises(ConfigError, match=r"network\.pkl has the classes 0 to 2, got the class 3"):
        load_stylegan2(path, classes=3)
    with pytest.raises(ConfigError, match="has no classes: leave classes out"):
        load_r3gan(write("R3GAN", tmp_path / "network.pkl"), classes=0)
