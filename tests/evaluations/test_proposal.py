"""Samples of a flow on a generator: the same whatever else is drawn, with their densities and base latents."""

from __future__ import annotations

import pytest
import torch
from linear_gaussian import LinearGenerator, box

from promptgen.evaluations.proposal import Proposal
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.objective import path_log_prob
from promptgen.seeding import stream

SCALE = torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=torch.float64)


def moved(name, context_dim=0, scale=None):
    flow = Flow(4, FlowConfig(blocks=2, hidden=8), box(context_dim), scale=scale, dtype=torch.float64)
    rng = stream(0, name)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
    return flow


def proposals():
    generator = LinearGenerator(scale=SCALE)
    below = moved("below", context_dim=2, scale=SCALE)
    chain = ChainedGenerator(generator, below)
    return {
        "generator": Proposal(generator, 1),
        "flow": Proposal(generator, 1, moved("flow", scale=SCALE)),
        "conditional": Proposal(generator, 1, moved("flow", 2, scale=SCALE), box(2)),
        "chain": Proposal(chain, 1, moved("top")),
    }


NAMES = ["generator", "flow", "conditional", "chain"]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_first_samples_do_not_depend_on_their_number(name):
    proposal = proposals()[name]
    whole = proposal.draw(700, "a", 1)
    few = proposal.draw(512, "a", 1)
    for column in ("latent", "base", "context", "log_p", "log_q"):
        first, second = getattr(few, column), getattr(whole, column)
        assert (first is None) == (second is None)
        if first is not None:
            assert torch.equal(first, second[:512]), column
    other = proposal.draw(512, "b", 1)
    assert not torch.equal(other.latent, few.latent)
    assert len(whole) == 700


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_densities_are_those_of_the_samples(name):
    proposal = proposals()[name]
    draw = proposal.draw(300, "a")
    torch.testing.assert_close(draw.log_p, proposal.generator.prior.log_prob(draw.latent))
    if proposal.flow is None:
        torch.testing.assert_close(draw.log_q, draw.log_p)
    else:
        own = draw.context if proposal.condition else None
        torch.testing.assert_close(draw.log_q, proposal.flow.log_prob(draw.latent, own))


@torch.no_grad()
def test_base_latents_are_those_of_the_generator_under_the_chain():
    proposal = proposals()["chain"]
    draw = proposal.draw(40, "a")
    chain = proposal.generator
    torch.testing.assert_close(draw.base, chain.latent(draw.latent, draw.context))
    assert not torch.allclose(draw.base, draw.latent)
    assert draw.context.shape == (40, 2)
    torch.testing.assert_close(chain.base(draw.base), chain(draw.latent, context=draw.context))
    alone = proposals()["flow"].draw(40, "a")
    assert torch.equal(alone.base, alone.latent)


def test_conditions_lie_in_their_ranges_and_reach_the_flow():
    proposal = proposals()["conditional"]
    draw = proposal.draw(500, "a")
    assert draw.context.abs().max() <= 2
    assert (draw.context.amax(dim=0) > 1.8).all()
    still, _ = proposal.flow.inverse(draw.latent, torch.zeros_like(draw.context))
    assert not torch.allclose(still, proposal.flow.inverse(draw.latent, draw.context)[0])


def test_the_gradient_of_the_path_goes_through_the_latent_alone():
    proposal = proposals()["flow"]
    draw = proposal.draw(50, "a", path=True)
    torch.testing.assert_close(draw.log_q, path_log_prob(proposal.flow, draw.latent, None))
    parameters = list(proposal.flow.parameters())
    path = torch.autograd.grad(draw.log_q.mean(), parameters, allow_unused=True)
    total = torch.autograd.grad(proposal.draw(50, "a").log_q.mean(), parameters, allow_unused=True)
    assert any(a is not None and b is not None and not torch.allclose(a, b) for a, b in zip(path, total, strict=True))
