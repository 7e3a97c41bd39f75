import pytest
import torch

from promptgen.errors import CheckpointError
from promptgen.generators.base import HasTruth
from promptgen.generators.stylegan2.generator import StyleGAN2
from promptgen.generators.stylegan2.layers import GAIN, LEAK
from promptgen.seeding import stream
from promptgen.world.generator import FIXED_LAYERS, WorldGenerator, load_generator, save_generator, untrained
from promptgen.world.scene import COORDINATES, Scene, SceneConfig


@pytest.fixture(scope="module")
def scene():
    return Scene(SceneConfig())


@pytest.fixture(scope="module")
def generator(scene):
    generator = WorldGenerator(untrained(scene), scene)
    generator.freeze()
    return generator


@pytest.fixture(scope="module")
def latents():
    return torch.randn(500, 64, generator=stream(0, "test", "world generator"))


def test_the_first_layers_compute_the_code_of_the_scene_exactly(generator, scene, latents):
    code = generator.network.style[: 1 + FIXED_LAYERS](latents) / GAIN
    coordinates, steps = scene.coordinates(latents), scene.steps(latents)
    carried, ramps, pair = code.split([len(COORDINATES), 9, code.shape[1] - len(COORDINATES) - 9], dim=1)
    for i, name in enumerate(COORDINATES):
        torch.testing.assert_close(
            2 * (carried[:, i] - carried[:, i].mean()), coordinates[name] - coordinates[name].mean(), atol=1e-4, rtol=0
        )
    expected = torch.cat([steps[name] for name in ("hair", "glasses", "skin", "age")], dim=1)
    torch.testing.assert_close(ramps - 2, expected, atol=1e-4, rtol=0)
    makeup = 2 * (pair[:, 0] - pair[:, 1] - 2 * LEAK) / (2 - 2 * LEAK) - 1
    torch.testing.assert_close(makeup, steps["makeup"][:, 0], atol=2e-4, rtol=0)


def test_the_first_layers_are_not_trained(scene):
    trained = {name for name, value in untrained(scene).named_parameters() if value.requires_grad}
    assert not trained & {f"style.{layer}.{kind}" for layer in (1, 2) for kind in ("weight", "bias")}
    assert {"style.3.weight", "style.4.bias", "input.input"} <= trained


def test_its_truth_is_that_of_the_scene(generator, scene, latents):
    assert isinstance(generator, HasTruth)
    assert torch.equal(generator.truth(latents)["skin"], scene.truth(latents)["skin"])


def test_what_is_saved_comes_back(generator, latents, tmp_path):
    save_generator(tmp_path / "world.safetensors", generator)
    loaded = load_generator(tmp_path / "world.safetensors")
    assert torch.equal(loaded(latents[:2]), generator(latents[:2]))
    assert torch.equal(loaded.truth(latents)["makeup"], generator.truth(latents)["makeup"])
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_truncated_generator_knows_no_truth(generator, tmp_path):
    save_generator(tmp_path / "world.safetensors", generator)
    truncated = load_generator(tmp_path / "world.safetensors", truncation=0.7)
    assert isinstance(truncated, StyleGAN2)
    assert not isinstance(truncated, HasTruth)


def test_another_file_is_refused(tmp_path):
    from promptgen.loading.own_files import save_tensors

    save_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"kind": "chain"})
    with pytest.raises(CheckpointError, match=r"chain.*world-generator"):
        load_generator(tmp_path / "other.safetensors")
