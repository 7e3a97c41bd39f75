"""Every loader takes its published tensors from safetensors too, and from within compiling, wrappers and trainings."""

import json

import pytest
import torch
from safetensors.torch import save_file

from promptgen.errors import ModelFileError
from promptgen.generators.biggan.generator import load_biggan
from promptgen.generators.dcgan import load_dcgan
from promptgen.generators.diffae.generator import load_diffae
from promptgen.generators.nvae.generator import load_nvae
from promptgen.generators.stylegan2.generator import StyleGAN2, StyleGAN2Config, load_stylegan2
from promptgen.generators.stylenerf.generator import load_stylenerf
from promptgen.networks.torchvision_ops import import_open_clip
from promptgen.perception.arcface import ArcFace, ArcFaceConfig, load_arcface
from promptgen.perception.beta import read_beta
from promptgen.perception.celeba import CelebaAttribute, load_celeba
from promptgen.perception.clip import load_open_clip, random_open_clip
from promptgen.perception.deca import DecaPose, load_deca
from promptgen.perception.fairface import FairFace, load_fairface
from promptgen.perception.inception import InceptionFeatures, load_inception
from tests.generators import (
    small,
    test_biggan_network,
    test_dcgan_network,
    test_diffae_network,
    test_nvae_network,
    test_stylenerf_file,
)

SMALL, TINY = "resnet18", "tiny-layouts"
GAN = {"latent_dim": 8, "mapping_layers": 1}
BETA = {"class_type2lambda.race": torch.tensor([0.5, -0.5]), "class_type2lambda.age": torch.ones(3)}
LIGHT = ("stylegan2", "biggan", "nvae", "diffae", "stylenerf", "dcgan", "beta", "clip")
HEAVY = ("fairface", "celeba", "arcface", "deca", "inception")
WRAPPERS = ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model.", "net.", "model._orig_mod."]


def tiny_clip(folder):
    """Make a small architecture known to open_clip; return the state dict of a model of it."""
    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
    words = {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    (folder / f"{TINY}.json").write_text(json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": words}))
    import_open_clip().add_model_config(folder / f"{TINY}.json")
    return random_open_clip(TINY).network.state_dict()


def diffae(path, folder):
    latent = folder / "latent.safetensors"
    save_file(test_diffae_network.published(small.diffae())[1], latent)
    return load_diffae(path, latent, **small.DIFFAE)


def biggan(path, folder):
    (folder / "config.json").write_text(json.dumps(small.BIGGAN))
    return load_biggan(path, config_path=folder / "config.json")


LOADERS = {
    "stylegan2": lambda path, _: load_stylegan2(path, 8, **GAN),
    "biggan": biggan,
    "nvae": lambda path, _: load_nvae(path),
    "diffae": diffae,
    "stylenerf": lambda path, _: load_stylenerf(path),
    "dcgan": lambda path, _: load_dcgan(path),
    "beta": lambda path, _: read_beta(path),
    "clip": lambda path, _: load_open_clip(path, TINY).network,
    "fairface": lambda path, _: load_fairface(path, architecture=SMALL),
    "celeba": lambda path, _: load_celeba(path, "glasses", architecture=SMALL, hidden=8),
    "arcface": lambda path, _: load_arcface(path, input_side=16, dim=8),
    "deca": lambda path, _: load_deca(path, SMALL, hidden=8),
    "inception": lambda path, _: load_inception(path),
}


def published(name, folder):
    """Return the entry of a family's state dict in its published file, the state dict, and texts for the metadata."""
    if name == "nvae":
        content = test_nvae_network.published(small.nvae())
        return "state_dict", content["state_dict"], {"args": json.dumps(vars(content["args"]))}
    if name == "stylenerf":
        tensors = test_stylenerf_file.published_tensors(small.stylenerf())
        return "G_ema", tensors, {"_init_kwargs": json.dumps(test_stylenerf_file.SETTINGS)}
    if name == "diffae":
        return "state_dict", test_diffae_network.published(small.diffae())[0]["state_dict"], {}
    states = {
        "dcgan": lambda: test_dcgan_network.published(),
        "stylegan2": lambda: StyleGAN2(StyleGAN2Config(size=8, **GAN)).state_dict(),
        "biggan": lambda: test_biggan_network.published(small.biggan()),
        "beta": lambda: BETA,
        "clip": lambda: tiny_clip(folder),
        "fairface": lambda: FairFace(architecture=SMALL).network.state_dict(),
        "celeba": lambda: CelebaAttribute("glasses", architecture=SMALL, hidden=8).state_dict(),
        "arcface": lambda: ArcFace(ArcFaceConfig(input_side=16, dim=8)).state_dict(),
        "deca": lambda: DecaPose(SMALL, hidden=8).state_dict(),
        "inception": lambda: InceptionFeatures().network.state_dict(),
    }
    entries = {"stylegan2": "g_ema", "dcgan": "netG_state_dict", "celeba": "model", "deca": "E_flame"}
    return entries.get(name, ""), states[name](), {}


def write(state, path, metadata=None):
    save_file({key: value.clone().contiguous() for key, value in state.items()}, path, metadata)
    return path


def with_prefix(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


def tensors_of(loaded):
    return loaded if isinstance(loaded, dict) else loaded.state_dict()


def assert_same(loaded, expected):
    assert tensors_of(loaded).keys() == tensors_of(expected).keys()
    for key, value in tensors_of(loaded).items():
        torch.testing.assert_close(value, tensors_of(expected)[key], rtol=1e-5, atol=1e-6)


@pytest.fixture
def path(tmp_path):
    """Where the file is; what is written there may be large, and is not left behind."""
    path = tmp_path / "weights"
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("name", LIGHT)
def test_every_wrapper_and_container_gives_the_same_network(name, path, tmp_path):
    entry, state, metadata = published(name, tmp_path)
    expected = LOADERS[name](write(state, path, metadata), tmp_path)
    if entry:
        assert_same(LOADERS[name](write(with_prefix(f"{entry}.", state), path, metadata), tmp_path), expected)
    for wrapper in WRAPPERS if name == "stylegan2" else WRAPPERS[-1:]:
        wrapped = with_prefix(wrapper, state)
        assert_same(LOADERS[name](write(wrapped, path, metadata), tmp_path), expected)
        assert_same(LOADERS[name](write(with_prefix("state_dict.", wrapped), path, metadata), tmp_path), expected)
        if name not in ("nvae", "stylenerf"):  # without their settings
            torch.save({"state_dict": wrapped, "epoch": 3, "pytorch-lightning_version": "2.5"}, path)
            assert_same(LOADERS[name](path, tmp_path), expected)
            torch.save({entry: wrapped} if entry else wrapped, path)
            assert_same(LOADERS[name](path, tmp_path), expected)


@pytest.mark.parametrize("name", HEAVY)
def test_large_networks_are_read_from_safetensors_and_trainings(name, path, tmp_path):
    entry, state, _ = published(name, tmp_path)
    expected = {"fairface": "network.", "inception": "network."}.get(name, "")
    for wrapped in (state, with_prefix(f"state_dict.model._orig_mod.{entry}".rstrip(".") + ".", state)):
        assert_same(LOADERS[name](write(wrapped, path), tmp_path), with_prefix(expected, state))


@pytest.mark.parametrize("name", LIGHT)
def test_what_is_left_over_is_refused(name, path, tmp_path):
    _, state, metadata = published(name, tmp_path)
    if name in ("beta", "diffae", "nvae"):  # which use a part of their files
        return
    with pytest.raises(ModelFileError, match=r"unexpected: odd\.weight"):
        LOADERS[name](write(state | {"odd.weight": torch.ones(2)}, path, metadata), tmp_path)


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8, torch.bool])
def test_weights_of_integers_are_refused_by_name(name, dtype, path, tmp_path):
    _, state, metadata = published(name, tmp_path)
    floats = [key for key, value in state.items() if value.is_floating_point() and value.ndim]
    used = [key for key in floats if not (name == "diffae" and not key.startswith("ema_model."))]
    key = next(key for key in used if not key.endswith(("weight_normalized", "_u", "_v")))
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(ModelFileError, match=f"{key.removeprefix('ema_model.').rpartition('.')[2]} is {kind}"):
        LOADERS[name](write(state | {key: state[key].to(dtype)}, path, metadata), tmp_path)


def test_the_statistics_of_codes_must_be_fractions(path, tmp_path):
    checkpoint, latent = test_diffae_network.published(small.diffae())
    torch.save(checkpoint, path)
    torch.save(latent | {"conds_std": torch.ones(1, small.DIFFAE_CODE, dtype=torch.int32)}, tmp_path / "latent.pt")
    with pytest.raises(ModelFileError, match="conds_std is int32"):
        load_diffae(path, tmp_path / "latent.pt", **small.DIFFAE)


def test_one_tensor_with_and_without_a_wrapper_is_refused(path):
    state = StyleGAN2(StyleGAN2Config(size=8, **GAN)).state_dict()
    twice = state | {f"_orig_mod.{next(iter(state))}": torch.zeros(1)}
    with pytest.raises(ModelFileError, match="occurs twice"):
        load_stylegan2(write(twice, path), 8, **GAN)


def test_compiled_parts_are_read(path):
    state = StyleGAN2(StyleGAN2Config(size=8, **GAN)).state_dict()
    part = {key.replace("conv1.", "conv1._orig_mod.", 1): value for key, value in state.items()}
    assert part.keys() != state.keys()
    assert_same(load_stylegan2(write(part, path), 8, **GAN), state)


def test_a_converted_stylegan2_without_noise_maps_gets_those_of_the_fixed_seed(path, caplog):
    model = StyleGAN2(StyleGAN2Config(size=8, **GAN), seed=5)
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("noises.")}
    torch.save({"g_ema": state}, path)
    first, again = load_stylegan2(path, 8, **GAN), load_stylegan2(path, 8, **GAN)
    assert_same(first, again)
    assert torch.equal(first.input.input, model.input.input)
    assert torch.equal(first.noises.noise_1, StyleGAN2(StyleGAN2Config(size=8, **GAN)).noises.noise_1)
    assert "noise maps" in caplog.text
    assert str(path) in caplog.text
    some = state | {"noises.noise_0": torch.zeros(1, 1, 4, 4)}
    with pytest.raises(ModelFileError, match=r"missing: noises\.noise_1"):
        load_stylegan2(write(some, path), 8, **GAN)


def test_a_stylegan2_of_another_shape_is_described_by_its_own(path):
    state = StyleGAN2(StyleGAN2Config(size=64, latent_dim=8, mapping_layers=3, channel_multiplier=1)).state_dict()
    for wrong in ({"latent_dim": 8}, {"latent_dim": 8, "mapping_layers": 3}, {"mapping_layers": 3}):
        with pytest.raises(ModelFileError) as caught:
            load_stylegan2(write(state, path), 64, **wrong)
        for fact in ("size 64", "mapping_layers 3", "latent_dim 8", "channel_multiplier 1"):
            assert fact in str(caught.value)


@pytest.mark.parametrize("numbers", [torch.tensor, int])
def test_openais_clip_has_three_more_numbers(numbers, path, tmp_path):
    state = tiny_clip(tmp_path)
    extra = {"input_resolution": numbers(16), "context_length": numbers(12), "vocab_size": numbers(49408)}
    torch.save({key: value.half() for key, value in state.items()} | extra, path)
    loaded = load_open_clip(path, TINY).network.state_dict()
    assert loaded.keys() == state.keys()
    torch.testing.assert_close(loaded["token_embedding.weight"], state["token_embedding.weight"], rtol=1e-2, atol=1e-3)
