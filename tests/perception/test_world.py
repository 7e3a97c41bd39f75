"""The world's networks keep their contracts: logits by attribute, angles, unit vectors, small cost, saving."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from promptgen.errors import CheckpointError
from promptgen.seeding import stream
from promptgen.world.networks import (
    AttributeConfig,
    AttributeNet,
    EmbeddingConfig,
    IdentityNet,
    JudgeNet,
    PoseNet,
    load_network,
    save_network,
)

ATTRIBUTES = {"hair": ("short", "long"), "skin": ("1", "2", "3", "4", "5", "6")}
READERS = AttributeConfig(attributes=ATTRIBUTES)
NETWORKS = {
    "classifier": lambda: AttributeNet(READERS),
    "judge": lambda: JudgeNet(READERS),
    "pose": lambda: PoseNet(EmbeddingConfig(dim=2)),
    "identity": lambda: IdentityNet(EmbeddingConfig(dim=12)),
}
each_network = pytest.mark.parametrize("name", NETWORKS)


def images(n=3):
    return torch.rand(n, 3, 64, 64, generator=stream(0, "images"))


def tensors(output):
    return list(output.values()) if isinstance(output, dict) else [output]


@pytest.mark.parametrize("name", ["classifier", "judge"])
def test_classifiers_give_logits_for_every_label(name):
    network = NETWORKS[name]()
    logits = network(images())
    assert {attribute: value.shape for attribute, value in logits.items()} == {"hair": (3, 2), "skin": (3, 6)}
    assert network.attributes == ATTRIBUTES


def test_pose_and_identity():
    assert NETWORKS["pose"]()(images()).shape == (3, 2)
    embedding = NETWORKS["identity"]()(images())
    assert embedding.shape == (3, 12)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))


@each_network
def test_one_image_is_read_alone_and_frozen_as_in_training(name):
    network = NETWORKS[name]()
    trained = tensors(network(images()))
    network.freeze()
    for single, frozen, before in zip(tensors(network(images()[:1])), tensors(network(images())), trained, strict=True):
        torch.testing.assert_close(frozen, before)
        torch.testing.assert_close(single, before[:1])


@each_network
def test_gradient_reaches_the_image_and_no_weight_of_a_frozen_network(name):
    network = NETWORKS[name]()
    network.freeze()
    image = images().requires_grad_()
    tensors(network(image))[0][:, 0].sum().backward()
    assert (image.grad.abs().sum(dim=(1, 2, 3)) > 0).all()
    assert all(value.grad is None for value in network.parameters())


@each_network
def test_cheap_enough_for_every_step_of_a_training(name):
    with FlopCounterMode(display=False) as counter:
        NETWORKS[name]()(images(1))
    most = 12e6 if name == "classifier" else 20e6  # multiplications; the classifier is run in every step of a flow
    assert counter.get_total_flops() / 2 < most


def test_classifier_and_judge_share_no_design():
    shapes = [
        {tuple(value.shape) for value in NETWORKS[name]().trunk.parameters() if value.ndim == 4} for name in NETWORKS
    ]
    assert not shapes[0] & shapes[1]


@each_network
def test_saved_and_loaded(name, tmp_path):
    network = NETWORKS[name]()
    save_network(tmp_path / "net.safetensors", name, network)
    loaded = load_network(tmp_path / "net.safetensors")
    assert loaded.config == network.config
    assert not any(value.requires_grad for value in loaded.parameters())
    for after, before in zip(tensors(loaded(images())), tensors(network(images())), strict=True):
        torch.testing.assert_close(after, before)


def test_a_file_of_something_else_is_named(tmp_path):
    from promptgen.loading.own_files import save_module

    path = tmp_path / "other.safetensors"
    save_module(path, torch.nn.Linear(2, 2), {"kind": "chain"})
    with pytest.raises(CheckpointError, match=r"chain.*world-classifier"):
        load_network(path)


def test_copies_compute_the_same():
    network = NETWORKS["classifier"]()
    for after, before in zip(tensors(copy.deepcopy(network)(images())), tensors(network(images())), strict=True):
        assert torch.equal(after, before)
