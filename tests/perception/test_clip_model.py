"""CLIP models: resizing, small models and their vocabulary, saving, loading of open_clip's files, no network."""

import json
import socket

import pytest
import torch
from safetensors.torch import save_file

from promptgen.errors import CheckpointError, ConfigError, ModelFileError
from promptgen.loading.own_files import save_module
from promptgen.perception.clip import (
    ClipConfig,
    fit,
    load_open_clip,
    random_open_clip,
    save_clip,
    small_clip,
)

WORDS = ("a", "person", "with", "without", "makeup", "middle-aged")
SMALL = ClipConfig(
    image_size=16, patch_size=8, embed_dim=8, vision_width=16, text_width=16, context_length=8, words=WORDS
)
ARCHITECTURE = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def model():
    return small_clip(SMALL)


def images(size=16, n=3):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_features_are_unit_vectors_with_gradients_to_the_image(model):
    image = images(24).requires_grad_()
    features = model.image_features(image)
    texts = model.text_features(["a person", "a person without makeup"])
    assert features.shape == (3, 8)
    assert texts.shape == (2, 8)
    for vectors in (features, texts):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    (gradient,) = torch.autograd.grad(features[:, 0].sum(), image)
    assert gradient.abs().sum() > 0


def test_fit_keeps_the_middle_of_the_longer_side():
    ramp = torch.linspace(0, 1, 40).expand(1, 3, 20, 40)
    result = fit(ramp, 10)
    assert result.shape == (1, 3, 10, 10)
    torch.testing.assert_close(result.mean(), torch.tensor(0.5))
    torch.testing.assert_close(fit(ramp[..., :20], 20), ramp[..., :20], rtol=0, atol=0)


def test_the_vocabulary_is_the_given_words(model):
    assert model.network.token_embedding.num_embeddings == model.tokens.size < 16
    with pytest.raises(ConfigError, match=r"glasses.*: a, person"):
        model.text_features(["a person with glasses"])
    with pytest.raises(ConfigError, match=r"7 tokens.*\b6\b"):
        model.text_features(["a person " * 3 + "a"])


def test_a_restricted_vocabulary_renumbers_tokens_and_changes_nothing_else():
    full = small_clip(SMALL.model_copy(update={"words": ()}))
    few = small_clip(SMALL)
    few.network.load_state_dict(
        full.network.state_dict() | {"token_embedding.weight": full.network.token_embedding.weight[few.tokens.kept]}
    )
    texts = ["a middle-aged person", "a person"]
    torch.testing.assert_close(few.text_features(texts), full.text_features(texts))


def test_seed_decides_the_weights_and_the_global_state_stays(model):
    state = torch.get_rng_state()
    same, other = small_clip(SMALL, seed=0), small_clip(SMALL, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(same.image_features(images()), model.image_features(images()))
    assert not torch.allclose(other.image_features(images()), model.image_features(images()))


def test_it_learns_until_frozen():
    model = small_clip(SMALL)
    loss = (model.image_features(images()) @ model.text_features(["a person"]).T).sum() * model.log_scale
    loss.backward()
    assert model.network.token_embedding.weight.grad.any()
    model.freeze()
    assert not any(value.requires_grad for value in model.parameters())


def test_saved_and_loaded(model, tmp_path):
    path = tmp_path / "clip.safetensors"
    save_clip(path, model)
    loaded = load_open_clip(path)
    assert loaded.config == SMALL
    assert not any(value.requires_grad for value in loaded.parameters())
    torch.testing.assert_close(loaded.image_features(images()), model.image_features(images()))
    torch.testing.assert_close(loaded.text_features(["a person"]), model.text_features(["a person"]))


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    """Register a tiny architecture, as if open_clip had it built in."""
    import open_clip

    path = tmp_path_factory.mktemp("configs") / "tiny-test.json"
    path.write_text(json.dumps(ARCHITECTURE))
    open_clip.add_model_config(path)
    return "tiny-test"


def test_random_weights_follow_the_seed(architecture, caplog):
    state = torch.random.get_rng_state()
    first, same, other = (random_open_clip(architecture, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.image_features(images()), same.image_features(images()))
    assert not torch.allclose(first.image_features(images()), other.image_features(images()))
    assert not any(value.requires_grad for value in first.parameters())
    assert caplog.text == ""  # open_clip's warning of a network without weights


@pytest.mark.parametrize("kind", ["safetensors", "plain", "training"])
def test_files_of_open_clip(architecture, tmp_path, kind):
    import open_clip

    network = open_clip.create_model(architecture)
    state = network.state_dict()
    if kind == "safetensors":
        path = tmp_path / "model.safetensors"
        save_file(state, path)
    else:
        path = tmp_path / "model.pt"
        wrapped = {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}
        torch.save(state if kind == "plain" else wrapped, path)
    model = load_open_clip(path, architecture)
    inputs = images()
    normalised = (inputs - model.mean) / model.std
    with torch.no_grad():
        expected = network.eval().encode_image(normalised, normalize=True)
        text = network.encode_text(open_clip.tokenize(["a photo of a baby"], 12), normalize=True)
    torch.testing.assert_close(model.image_features(inputs), expected)
    torch.testing.assert_close(model.text_features(["a photo of a baby"]), text)


def test_wrong_files_and_architectures_are_named(architecture, model, tmp_path):
    path = tmp_path / "clip.safetensors"
    save_clip(path, model)
    with pytest.raises(ModelFileError, match=r"missing: .*unexpected: network"):
        load_open_clip(path, architecture)
    with pytest.raises(ConfigError, match="'ViT-B-33'"):
        load_open_clip(path, "ViT-B-33")
    with pytest.raises(ConfigError, match="tokeniser"):
        load_open_clip(path, "ViT-B-16-SigLIP")
    save_module(path, torch.nn.Linear(2, 2), {"kind": "chain"})
    with pytest.raises(CheckpointError, match=r"chain.*CLIP"):
        load_open_clip(path)
    path.write_bytes(b"damaged")
    with pytest.raises(ModelFileError, match="fetch it again"):
        load_open_clip(path, architecture)
    with pytest.raises(CheckpointError):
        load_open_clip(path)
    foreign = small_clip(SMALL)
    foreign.config = None
    with pytest.raises(ConfigError, match="only the project's own"):
        save_clip(path, foreign)


def test_a_list_is_no_model(architecture, tmp_path):
    torch.save([1, 2], tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match="found list"):
        load_open_clip(tmp_path / "model.pt", architecture)


@pytest.mark.parametrize("wrong", [{"patch_size": 7}, {"heads": 3}, {"layers": 2}])
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"divide|Extra inputs"):
        ClipConfig(**wrong)


def test_building_and_loading_touch_no_network(monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    save_clip(tmp_path / "clip.safetensors", small_clip(SMALL))
    load_open_clip(tmp_path / "clip.safetensors").text_features(["a person"])
