"""Samples are asked for where the members of a surrogate disagree, in proportion to what that does to the density."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from linear_gaussian import LinearGenerator

from promptgen.evaluations import acquisition
from promptgen.evaluations.acquisition import acquire
from promptgen.evaluations.objective import Objective
from promptgen.evaluations.prediction import LARGEST_BONUS, OPTIMISM, Prediction
from promptgen.evaluations.proposal import Proposal
from promptgen.evaluations.surrogate import Ensemble, Surrogate
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.seeding import stream

SLOPE, SPREAD = 0.5, 0.4
"""Energy along the first coordinate, nats, and standard deviation of the members along the second."""


class Members(Ensemble):
    """Two members that predict SLOPE x0, one of them more and one less by an amount that grows with x1."""

    def __init__(self):
        super().__init__(4, 1, 2, stream(1, "members"))

    def forward(self, inputs):
        apart = SPREAD * inputs[..., 1:2].abs() * torch.tensor([1.0, -1.0]).view(2, 1, 1) / 2**0.5
        return SLOPE * inputs[..., :1] + apart


@pytest.fixture(scope="module")
def setting():
    generator = LinearGenerator()
    proposal = Proposal(generator, 1, Flow(4, FlowConfig(blocks=2, hidden=8), dtype=torch.float64))
    start = Proposal(generator, 1)
    one = torch.ones(4, dtype=torch.float64)
    surrogate = Surrogate("values", torch.empty(4, 0), False, one, one[:0], Members(), one[:1] * 0, one[:1], 0, 0.0)
    objective = Objective("energy", ("energy",), "values", lambda outputs: outputs["energy"], one[:1])
    return proposal, start, Prediction.of(surrogate, start, proposal), objective


@torch.no_grad()
def test_the_energy_to_train_on_is_below_the_mean_where_members_disagree(setting):
    proposal, _, prediction, objective = setting
    draw = proposal.draw(64, "some")
    deviation = SPREAD * draw.base[:, 1].abs()
    bonus = SLOPE * draw.base[:, 0] - prediction.energy(draw, objective)
    small = deviation < 0.1
    torch.testing.assert_close(bonus[small], OPTIMISM * deviation[small], atol=1e-3, rtol=0.01)
    assert bool((bonus[~small] < OPTIMISM * deviation[~small]).all())
    far = replace(draw, base=1e5 * draw.base)
    torch.testing.assert_close(prediction.energy(far, objective), SLOPE * far.base[:, 0] - LARGEST_BONUS)


@pytest.mark.parametrize("block", [2**22, 4 * 512])
def test_samples_have_the_density_that_is_uncertain(setting, block, monkeypatch):
    monkeypatch.setattr(acquisition, "BLOCK", block)
    n = 1024
    chosen = acquire(n, *setting, "round").base
    assert len(chosen.unique(dim=0)) == n

    axis = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    along = torch.exp(-(axis**2) / 2 - SLOPE * axis)
    across = torch.exp(-(axis**2) / 2) * torch.sinh(OPTIMISM * SPREAD * axis.abs())
    means = [float(along @ axis / along.sum()), float(across @ axis.abs() / across.sum())]
    error = 4 / n**0.5
    assert float(chosen[:, 0].mean()) == pytest.approx(means[0], abs=error)
    assert float(chosen[:, 1].abs().mean()) == pytest.approx(means[1], abs=error)
    assert means[1] > 1.5 * (2 / torch.pi) ** 0.5  # which is far from the prior's


def test_equal_names_choose_equal_samples(setting):
    first, again, other = (acquire(16, *setting, name).latent for name in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@torch.no_grad()
def test_samples_of_another_distribution_have_the_density_of_the_flow(setting):
    proposal, start, *_ = setting
    flow = Flow(4, FlowConfig(blocks=2, hidden=8), dtype=torch.float64)
    for parameter in flow.parameters():
        parameter.add_(0.05)
    draw = replace(proposal, flow=flow).mixed(start, 32, "both")
    assert len(draw) == 64
    torch.testing.assert_close(draw.log_q, flow.log_prob(draw.latent))
