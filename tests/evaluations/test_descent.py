"""A flow that is trained on a known energy ends at the closed form."""

from __future__ import annotations

import pytest
import torch
from linear_gaussian import LinearGenerator, Quadratic, closed_form

from promptgen.energies.base import Sample
from promptgen.evaluations.descent import QUICK_STEPS, Descent, Pool
from promptgen.evaluations.proposal import Proposal
from promptgen.flows.fit import fit_statistics
from promptgen.flows.flow import Flow, FlowConfig


@pytest.fixture(scope="module")
def descended():
    generator, energy = LinearGenerator(), Quadratic()
    proposal = Proposal(generator, 1, Flow(4, FlowConfig(blocks=4, hidden=16), dtype=torch.float64))
    losses = []

    def predicted(draw):
        return energy(Sample(draw.base, generator(draw.base)))

    start = Proposal(generator, 1)
    descent = Descent(proposal, start, predicted, lambda loss, done, total: losses.append((loss, done, total)))
    before = descent.new_pool().gap
    descent.run("descent", fresh=True)
    return descent, losses, before, closed_form(generator, energy)


@torch.no_grad()
def test_the_flow_is_the_tilted_gaussian(descended):
    descent, _, before, (mean, covariance, log_z) = descended
    draw = descent.proposal.draw(8192, "fresh")
    fit = fit_statistics(draw.log_p - descent.energy(draw) - draw.log_q)
    assert fit.log_z == pytest.approx(log_z, abs=0.02 + 4 * fit.log_z_error)
    assert fit.kl_gap < 0.05 < before
    torch.testing.assert_close(draw.latent.mean(dim=0), mean, atol=0.06, rtol=0)
    torch.testing.assert_close(draw.latent.T.cov(), covariance, atol=0.08, rtol=0)


def test_every_step_is_reported(descended):
    _, losses, _, (_, _, log_z) = descended
    assert [row[1:] for row in losses] == [(step, QUICK_STEPS) for step in range(1, QUICK_STEPS + 1)]
    late = torch.tensor([row[0] for row in losses[-50:]])
    assert float(late.mean()) == pytest.approx(-log_z, abs=0.15)


@pytest.mark.parametrize(("effective", "moves"), [(512, True), (100, False)])
def test_a_flow_learns_what_it_lacks_from_enough_weighted_samples(effective, moves):
    generator = LinearGenerator()
    proposal = Proposal(generator, 1, Flow(4, FlowConfig(blocks=2, hidden=8), dtype=torch.float64))
    descent = Descent(proposal, Proposal(generator, 1), lambda draw: 0 * draw.log_p, lambda *_: None)
    lacked = torch.full((512, 4), 1.5, dtype=torch.float64)
    weights = (torch.arange(512) < effective).double() / effective
    descent.pool = Pool(lacked, None, weights, reverse=0.0, forward=0.0)
    with torch.no_grad():
        before = proposal.flow.log_prob(lacked[:1])
    descent.steps(40, 1e-2, "steps")
    with torch.no_grad():
        gained = float(proposal.flow.log_prob(lacked[:1]) - before)
    assert (gained > 0.5) == moves


@pytest.mark.parametrize("rate", [30.0, 1e30])
def test_a_descent_that_leads_away_is_undone(rate, monkeypatch):
    monkeypatch.setattr("promptgen.evaluations.descent.LEARNING_RATE", rate)
    generator, flow = LinearGenerator(), Flow(4, FlowConfig(blocks=2, hidden=8), dtype=torch.float64)
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    start = Proposal(generator, 1)
    descent = Descent(Proposal(generator, 1, flow), start, lambda draw: 0.3 * draw.base[:, 0], lambda *_: None)
    descent.run("away")
    assert all(torch.equal(before[name], value) for name, value in flow.state_dict().items())
