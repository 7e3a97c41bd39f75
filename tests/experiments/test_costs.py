"""Costs: known numbers of multiply-accumulates and bytes, cards' figures, refusals, the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from promptgen.command_line import main
from promptgen.errors import ConfigError, DataError
from promptgen.experiments.costs import Subject, measure, multiply_accumulates, peak_in_fresh_process, subject, weights
from promptgen.model_files.cards import Cost, load_cards
from promptgen.model_files.store import fetch

SMALL = {"size": 16, "latent_dim": 8, "mapping_layers": 2, "channels": {4: 8, 8: 8, 16: 4}}


@pytest.fixture
def models(tmp_path):
    """A folder without any file, beside a card of a small StyleGAN2."""
    card = {
        "kind": "generator",
        "type": "stylegan2",
        "files": [{"file": "none.pt", "urls": ["https://example.org/none.pt"]}],
        "licence": "CC0",
    }
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump({"small": card | {"arguments": SMALL}}))
    return tmp_path / "models"


def counted(forward, given):
    network = forward if isinstance(forward, nn.Module) else nn.Identity()
    return multiply_accumulates(Subject(network, forward, given))


MAPS = torch.ones(2, 8, 10, 10)


@pytest.mark.parametrize(
    ("forward", "given", "expected"),
    [
        (nn.Conv2d(8, 16, 3, padding=1, groups=4), MAPS, 2 * 100 * 16 * 2 * 9),
        (nn.ConvTranspose2d(8, 12, 4, stride=2, padding=1, groups=4), MAPS, 2 * 100 * 8 * 3 * 16),
        (nn.Linear(10, 3), MAPS, 2 * 8 * 10 * 10 * 3),
        (lambda x: torch.einsum("bchw,bdhw->bcd", x, x), MAPS, 2 * 8 * 8 * 100),
        (lambda x: F.scaled_dot_product_attention(x, x, x), MAPS, 2 * 2 * 8 * 10 * 10 * 10),
        (nn.Sequential(nn.SiLU(), nn.BatchNorm2d(8).eval(), nn.Upsample(scale_factor=2)), MAPS, 0),
    ],
)
def test_multiply_accumulates_by_hand(forward, given, expected):
    assert counted(forward, given) == expected


def test_attention_of_transformers_is_counted_whole():
    attention = nn.MultiheadAttention(64, 4, batch_first=True).eval().requires_grad_(False)
    tokens = torch.ones(2, 50, 64)
    expected = 2 * 50 * 64 * 64 * 4 + 2 * 2 * 50 * 50 * 64
    assert counted(lambda x: attention(x, x, x, need_weights=False)[0], tokens) == expected


def test_multiply_accumulates_of_a_known_network(tmp_path):
    """A residual network of 34 layers has 3.67 thousand million, as its authors' successors count them."""
    assert multiply_accumulates(subject("fairface", tmp_path)) / 1e9 == pytest.approx(3.67, abs=0.01)


def test_weights_are_parameters_or_else_the_numbers_that_a_graph_holds():
    layer = nn.BatchNorm2d(8)
    assert weights(layer) == 16
    graph = nn.Module()
    graph.register_buffer("kernel", torch.ones(3, 4))
    graph.register_buffer("axes", torch.tensor([1, 2]))
    assert weights(graph) == 12


def test_every_card_of_a_network_has_its_cost():
    """Except StyleGAN3, whose measurement takes minutes each; plans name a model without a cost."""
    unmeasured = [card for card in load_cards().values() if card.cost is None]
    assert {card.type for card in unmeasured} == {"beta", "stylegan3"}


def test_a_network_with_classes_can_be_measured(models):
    file = models.parent / "cards.yaml"
    cards = yaml.safe_load(file.read_text())
    cards["classy"] = cards["small"] | {"arguments": SMALL | {"class_count": 3}}
    file.write_text(yaml.safe_dump(cards))
    subject("classy", models, batch=2).run(gradient=True)


def allocate(mebibytes):
    """Give work that holds two tensors of a size at a time, after more was held and freed."""
    torch.ones(4 * mebibytes, 2**18)

    def work():
        first = torch.ones(mebibytes, 2**18)
        first = first + 1
        del first
        return torch.ones(mebibytes, 2**18)

    return work


def test_memory_of_known_work():
    assert peak_in_fresh_process(allocate, 32) == pytest.approx(64, abs=4)


def test_networks_of_every_kind_can_be_measured(tmp_path):
    """The world's models have files alone, the others random weights alone; all take what they are given."""
    for name in ("world-classifier", "world-clip", "world-generator", "world-pose", "world-identity"):
        fetch(name, tmp_path)
        subject(name, tmp_path, batch=2).run(gradient=True)


def test_expected_memory_of_a_batch():
    cost = Cost(parameters=1, gmac=1, weights_mib=100, forward_mib=10, backward_mib=30)
    assert cost.memory_mib(4, gradient=False) == 140
    assert cost.memory_mib(4, gradient=True) == 220


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("smal", {}, ConfigError, "did you mean small"),
        ("beta-ffhq", {}, ConfigError, "holds multipliers, which cost nothing"),
        ("small", {"device": "gpu"}, ConfigError, "'gpu' is not a device; expected cpu, cuda"),
        ("small", {"device": "meta"}, ConfigError, "this torch has no device meta; expected cpu"),
        ("small", {"batch": 0}, DataError, "at least one image, got 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(models, name, options, error, message):
    with pytest.raises(error, match=message):
        measure(name, models, **options)


@pytest.mark.slow
def test_the_command_measures_a_generator_without_its_file(models, capsys):
    assert main(["cost", "small", "--models", str(models), "--batch", "4"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)["small"]
    cost, measured = Cost.model_validate(printed["cost"]), printed["measured"]
    assert cost.parameters == sum(value.numel() for value in subject("small", models).network.parameters())
    assert min(cost.gmac, cost.weights_mib, cost.forward_mib, cost.backward_mib) >= 0
    assert measured["batch"] == 4
    assert measured["backward_seconds"] > measured["forward_seconds"] > 0


def test_the_command_refuses_in_one_line(models, capsys):
    assert main(["cost", "smal", "--models", str(models)]) == 2
    assert capsys.readouterr().err.startswith("error: there is no model called 'smal'")


def test_figures_of_the_cards_are_of_their_networks():
    """Weights take four bytes each, gradients more than images; and a network that is quick to build has its number."""
    costs = {name: card.cost for name, card in load_cards().items() if card.cost is not None}
    for name, cost in costs.items():
        assert cost.weights_mib >= round(cost.parameters * 4 / 2**20, 1), name
        assert cost.backward_mib > cost.forward_mib > 0, name
        assert cost.gmac > 0, name
    network = subject("fairface", Path("models")).network
    assert costs["fairface"].parameters == sum(value.numel() for value in network.parameters())
