"""Networks with random weights: seeded, frozen for good, of a sensible range, and torch's own state untouched."""

import pytest
import torch

from promptgen.errors import ConfigError
from promptgen.perception.arcface import random_arcface
from promptgen.perception.celeba import CelebaAttribute
from promptgen.perception.clip import random_open_clip
from promptgen.perception.deca import DecaPose
from promptgen.perception.faceapi import FaceAPIAgeGender, FaceAPIExpression
from promptgen.perception.fairface import FairFace

NETWORKS = {
    "fairface": (FairFace, {"architecture": "resnet18"}),
    "celeba": (CelebaAttribute, {"attribute": "glasses", "architecture": "resnet18", "hidden": 8}),
    "faceapi_expression": (FaceAPIExpression, {}),
    "faceapi_age_gender": (FaceAPIAgeGender, {"ages": [18, 50]}),
    "deca": (DecaPose, {"architecture": "resnet18", "hidden": 8}),
    "arcface": (random_arcface, {"input_side": 16, "dim": 8}),
}


def seen(network):
    """What a network says of two images, as one matrix (2, N)."""
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = network(image)
    parts = found.values() if isinstance(found, dict) else [found]
    return torch.cat([part.flatten(1) for part in parts], dim=1)


@pytest.mark.parametrize("name", NETWORKS)
def test_random_networks(name):
    make, arguments = NETWORKS[name]
    state = torch.random.get_rng_state()
    network = make(**arguments, seed=1).frozen()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not network.training
    assert not any(module.training for module in network.modules())
    assert not any(value.requires_grad for value in network.parameters())
    first = seen(network)
    assert first.isfinite().all()
    assert first.abs().max() < 100
    assert torch.equal(seen(make(**arguments, seed=1).frozen()), first)
    assert not torch.equal(seen(make(**arguments, seed=2).frozen()), first)


def test_wrong_shapes_are_refused():
    with pytest.raises(ConfigError, match="'resnet7'"):
        FairFace(architecture="resnet7")
    with pytest.raises(ConfigError, match=r"depht.*depth"):
        random_arcface(depht=50)
    with pytest.raises(ConfigError, match=r"needs? an architecture"):
        random_open_clip()
