"""The trainings of the world: seeded, and a kill costs nothing."""

import pytest
import torch
from torch import nn

from promptgen.seeding import stream
from promptgen.world import training
from promptgen.world.config import Recipe
from promptgen.world.lessons import attribute_lesson, generator_lesson
from promptgen.world.networks import AttributeConfig, AttributeNet, load_network, save_network
from promptgen.world.renders import Renders
from promptgen.world.scene import ATTRIBUTES, Scene, SceneConfig
from promptgen.world.training import optimise, picture_loss, roughen


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def scene():
    return Scene(SceneConfig())


@pytest.fixture(scope="module")
def pictures(scene, tmp_path_factory):
    import promptgen.world.renders

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promptgen.world.renders, "BLOCK", 32)
        yield Renders(scene, "test", 60, tmp_path_factory.mktemp("renders"), seed=0).load()


def small_net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AttributeNet(AttributeConfig(attributes=ATTRIBUTES, width=8))


def run(net, lesson, state):
    return optimise(net, lesson, Recipe(steps=6, batch=8, learning_rate=1e-3), name="test", seed=1, state=state)


@pytest.mark.faults
def test_a_killed_training_ends_with_the_same_weights(scene, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 2)
    net = small_net()
    whole = run(net, attribute_lesson(net, scene, *pictures, 8), tmp_path / "whole.pt").state_dict()

    net = small_net()
    lesson, calls = attribute_lesson(net, scene, *pictures, 8), iter(range(10))

    def killed(rng):
        if next(calls) == 5:
            raise Interrupted
        return lesson(rng)

    with pytest.raises(Interrupted):
        run(net, killed, tmp_path / "killed.pt")
    net = small_net()
    again = run(net, attribute_lesson(net, scene, *pictures, 8), tmp_path / "killed.pt").state_dict()
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_renders_are_drawn_once_and_are_rounded_up_to_blocks(scene, pictures):
    latents, images = pictures
    assert latents.shape == (64, 64)
    assert images.shape == (64, 3, 64, 64)
    assert images.dtype == torch.uint8


def test_training_lowers_the_loss(scene, pictures, tmp_path):
    net = small_net()
    lesson = attribute_lesson(net, scene, *pictures, 32)
    before = lesson(stream(9, "probe")).item()
    trained = optimise(
        net, lesson, Recipe(steps=60, batch=32, learning_rate=3e-3), name="t", seed=0, state=tmp_path / "s"
    )
    net.load_state_dict(trained.state_dict())
    assert lesson(stream(9, "probe")).item() < 0.8 * before


def test_a_generator_that_shows_the_pictures_has_no_loss_mirrored_or_not(scene, pictures):
    """The lesson mirrors pictures and latents together: an oracle that draws the scene must be right on both."""
    from promptgen.world.renderer import render

    class Oracle(nn.Module):
        def forward(self, latent):
            return render(scene.looks(latent))

    loss = generator_lesson(Oracle(), scene, *pictures, 16)(stream(0, "probe"))
    assert loss < 2e-3


def test_picture_loss_prefers_a_blurred_eye_to_no_eye():
    target = torch.full((1, 3, 64, 64), 0.8)
    target[..., 28:32, 24:30] = 0.0
    blurred = nn.functional.avg_pool2d(target, 3, stride=1, padding=1, count_include_pad=False)
    assert picture_loss(blurred, target) < picture_loss(torch.full_like(target, 0.8), target)


def test_roughened_pictures_differ_a_little(pictures):
    image = pictures[1][:8].float() / 255
    rough = roughen(image, stream(0, "rough"))
    assert rough.shape == image.shape
    assert 0.005 < (rough - image).abs().mean() < 0.15
    assert torch.equal(rough, roughen(image, stream(0, "rough")))


def test_a_saved_network_comes_back_frozen(tmp_path):
    net = small_net()
    save_network(tmp_path / "classifier.safetensors", "classifier", net)
    loaded = load_network(tmp_path / "classifier.safetensors")
    image = torch.rand(2, 3, 64, 64, generator=stream(0, "image"))
    assert torch.equal(loaded(image)["hair"], net(image)["hair"])
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.train() is loaded
    assert not loaded.training
