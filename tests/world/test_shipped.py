"""The weights that are shipped: whole, small, and good enough for the embedded world, on pictures drawn here."""

from pathlib import Path

import pytest
import torch

import promptgen.world
from promptgen.config.params import load_params
from promptgen.files import sha256_of
from promptgen.model_files.cards import load_cards
from promptgen.seeding import stream
from promptgen.world.generator import load_generator
from promptgen.world.quality import measure
from promptgen.world.renderer import render
from promptgen.world.scene import Scene

WEIGHTS = Path(promptgen.world.__file__).parent / "weights"
CARDS = {name: card for name, card in load_cards().items() if name.startswith("world-")}
N = 512


@pytest.fixture(scope="module")
def world():
    return load_params(Path(__file__).parents[2] / "params.yaml").world


@pytest.fixture(scope="module")
def fresh(world):
    scene = Scene(world.scene)
    latents = torch.randn(N, world.scene.latent_dim, generator=stream(99, "test", "fresh"))
    looks = scene.looks(latents)
    parts = [render({name: value[i : i + 64] for name, value in looks.items()}) for i in range(0, N, 64)]
    return latents, (torch.cat(parts) * 255).round().to(torch.uint8)


@pytest.fixture(scope="module")
def quality(world, fresh):
    known = {}

    def of(name):
        if name not in known:
            known[name] = measure(name, WEIGHTS, world, *fresh)
        return known[name]

    return of


def test_every_model_has_a_card_and_is_whole():
    assert set(CARDS) == {f"world-{name}" for name in ("generator", "classifier", "judge", "clip", "pose", "identity")}
    for card in CARDS.values():
        (file,) = card.files
        assert sha256_of(WEIGHTS / file.file) == file.sha256
        assert (WEIGHTS / file.file).stat().st_size == file.size
        assert card.training["command"].startswith("python -m steps.build_world --only ")
        assert card.quality


def test_all_weights_together_are_small():
    assert sum(card.files[0].size for card in CARDS.values()) < 12e6


def test_the_generator_was_trained_on_the_scene_of_params_yaml(world):
    assert load_generator(WEIGHTS / "world-generator.safetensors").scene.config == world.scene


@pytest.mark.parametrize("reader", ["classifier", "judge"])
def test_what_is_read_off_the_generator_is_true(quality, reader):
    agreement = quality("generator")[reader]
    assert min(agreement[name] for name in ("hair", "glasses", "makeup")) >= 0.95
    assert min(agreement[name] for name in ("skin", "age")) >= 0.85


def test_the_generator_shows_what_the_renderer_draws(quality):
    assert quality("generator")["psnr_decibel"] > 28


@pytest.mark.parametrize("name", ["classifier", "judge"])
def test_classifiers_read_fresh_renders(quality, name):
    accuracy = {attribute: figures["accuracy"] for attribute, figures in quality(name).items()}
    assert min(accuracy[attribute] for attribute in ("hair", "glasses", "makeup")) >= 0.97
    assert min(accuracy[attribute] for attribute in ("skin", "age")) >= 0.90


def test_clip_tells_captions_apart(quality):
    assert quality("clip")["hair_picked"] >= 0.95
    assert quality("clip")["glasses_picked"] >= 0.95


def test_clip_has_the_reporters_bias(quality):
    figures = quality("clip")
    assert figures["long_hair_nearest_to_without_makeup"] - figures["long_hair_without_makeup"] >= 0.25


def test_pose_and_identity_are_read(quality):
    assert quality("pose")["yaw_error_degrees"] < 3
    assert quality("pose")["pitch_error_degrees"] < 3
    assert quality("identity")["cosine_correlation"] > 0.7


def test_cards_tell_what_is_measured(quality):
    """The card's figures are of other pictures than these, so they agree within sampling error only."""
    told, found = CARDS["world-judge"].quality, quality("judge")
    for attribute, figures in found.items():
        assert figures["accuracy"] == pytest.approx(told[attribute]["accuracy"], abs=0.02)
