"""Networks with random weights: seeded, frozen for good, of a sensible range, and torch's own state untouched."""

import pytest
import torch

from promptgen.errors import ConfigError
from promptgen.perception.arcface import random_arcface
from promptgen.perception.celeba import random_celeba
from promptgen.perception.clip import random_open_clip
from promptgen.perception.deca import random_deca
from promptgen.perception.faceapi import random_age_gender, random_expression
from promptgen.perception.fairface import random_fairface

NETWORKS = {
    "fairface": (random_fairface, {"architecture": "resnet18"}),
    "celeba": (random_celeba, {"attribute": "glasses", "architecture": "resnet18", "hidden": 8}),
    "faceapi_expression": (random_expression, {}),
    "faceapi_age_gender": (random_age_gender, {"ages": [18, 50]}),
    "deca": (random_deca, {"architecture": "resnet18", "hidden": 8}),
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
    network = make(**arguments, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not network.training
    assert not any(module.training for module in network.modules())
    assert not any(value.requires_grad for value in network.parameters())
    first = seen(network)
    assert first.isfinite().all()
    assert first.abs().max() < 100
    assert torch.equal(seen(make(**arguments, seed=1)), first)
    assert not torch.equal(seen(make(**arguments, seed=2)), first)


def test_wrong_shapes_are_refused():
    with pytest.raises(ConfigError, match="'resnet7'"):
        random_fairface(architecture="resnet7")
    with pytest.raises(ConfigError, match=r"depht.*depth"):
        random_arcface(depht=50)
    with pytest.raises(ConfigError, match=r"needs? an architecture"):
        random_open_clip()
