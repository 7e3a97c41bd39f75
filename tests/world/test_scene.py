import pytest
import torch
from pydantic import ValidationError

from promptgen.seeding import stream
from promptgen.world.scene import ATTRIBUTES, Scene, SceneConfig, quantile

N = 40_000


@pytest.fixture(scope="module")
def scene():
    return Scene(SceneConfig())


@pytest.fixture(scope="module")
def latents():
    return torch.randn(N, 64, generator=stream(0, "test", "scene"))


@pytest.fixture(scope="module")
def truth(scene, latents):
    return scene.truth(latents)


def share(labels, value):
    return (labels == value).double().mean().item()


def assert_share(labels, value, expected):
    error = 4 * (expected * (1 - expected) / len(labels)) ** 0.5
    assert share(labels, value) == pytest.approx(expected, abs=error)


def test_shares_are_those_of_the_config(scene, truth):
    config = scene.config
    assert_share(truth["hair"], 1, config.long_hair)
    assert_share(truth["glasses"], 1, config.glasses)
    for k, expected in enumerate(config.skin):
        assert_share(truth["skin"], k, expected)
    for k, expected in enumerate(config.age):
        assert_share(truth["age"], k, expected)


@pytest.mark.parametrize(("index", "hair"), list(enumerate(ATTRIBUTES["hair"])))
def test_makeup_depends_on_hair_as_configured(scene, truth, index, hair):
    # Hair between short and long, on its ramp, has a threshold in between: hence the second tolerance.
    expected, labels = scene.config.makeup[hair], truth["makeup"][truth["hair"] == index]
    assert share(labels, 1) == pytest.approx(expected, abs=4 * (0.25 / len(labels)) ** 0.5 + 0.01)


def test_other_attributes_are_independent(truth):
    both = ((truth["glasses"] == 1) & (truth["hair"] == 1)).double().mean().item()
    assert both == pytest.approx(share(truth["glasses"], 1) * share(truth["hair"], 1), abs=4 * (0.25 / N) ** 0.5)


def test_only_the_direction_of_a_latent_matters(scene, latents, truth):
    scaled = scene.truth(latents[:500] * 3.7)
    assert all(torch.equal(scaled[name], truth[name][:500]) for name in ATTRIBUTES)


def test_coordinates_are_a_rotation(scene):
    identity = scene.rotation @ scene.rotation.T
    torch.testing.assert_close(identity, torch.eye(64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("p", [0.01, 0.26, 0.5, 0.9, 0.999])
def test_quantile_of_a_coordinate_is_exact(p, latents):
    direction = latents[:, 0] / latents.square().mean(dim=1).sqrt()
    below = (direction < quantile(p, 64)).double().mean().item()
    assert below == pytest.approx(p, abs=4 * (p * (1 - p) / N) ** 0.5)


def test_amounts_lie_on_the_side_of_their_class(scene, latents, truth):
    looks = scene.looks(latents)
    for name in ("hair", "glasses", "makeup"):
        assert (looks[name] >= 0).all()
        assert (looks[name] <= 1).all()
        wrong = (looks[name] > 0.5) != (truth[name] == 1)
        assert wrong.double().mean() < 0.01  # the slight variation within a class moves the middle of the ramp a little


def test_looks_are_continuous(scene, latents):
    near = {name: value - scene.looks(latents + 1e-4)[name] for name, value in scene.looks(latents).items()}
    assert max(difference.abs().max().item() for difference in near.values()) < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skin": (0.5, 0.5)}, "skin needs 6 positive shares"),
        ({"age": (0.5, 0.5, 0.5)}, "sum to 1"),
        ({"makeup": {"short": 0.5}}, "makeup needs a share for each"),
        ({"longhair": 0.4}, "Extra inputs"),
    ],
)
def test_bad_distributions_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        SceneConfig(**change)
