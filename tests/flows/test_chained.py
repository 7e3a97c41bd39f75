"""A flow on a generator is a generator, with truth where the base has it, and with the conditions of its flows."""

import copy

import pytest
import torch
from linear_gaussian import LinearGenerator, box

from promptgen.conditions import Condition
from promptgen.errors import DataError
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.generators.base import Conditional, HasTruth, condition_of, conditioned_images
from promptgen.seeding import stream

SMALL = FlowConfig(blocks=2, hidden=8)


class TruthfulGenerator(LinearGenerator):
    """Its one attribute is the sign of the first latent."""

    def truth(self, latent):
        return {"sign": (latent[:, 0] > 0).long()}


class NoisyGenerator(LinearGenerator):
    def forward(self, latent, *, noise=None):
        image = super().forward(latent)
        return image if noise is None else image + torch.randn(image.shape, generator=noise, dtype=image.dtype)


def make_flow(name="flow", context_dim=0):
    flow = Flow(4, SMALL, box(context_dim), dtype=torch.float64)
    rng = stream(0, name)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
    return flow


def normal(n=16, dim=4):
    return torch.randn(n, dim, generator=stream(0, "eps"), dtype=torch.float64)


def test_a_chain_has_a_standard_normal_prior():
    chain = ChainedGenerator(LinearGenerator(scale=torch.full((4,), 2.0).double()), make_flow())
    assert chain.image_shape == (3, 1, 1)
    assert torch.equal(chain.prior.scale, torch.ones(4).double())
    assert chain.prior.scale.dtype == torch.float64


def test_images_are_those_of_the_flow_s_latents():
    base, flow, eps = LinearGenerator(), make_flow(), normal()
    chain = ChainedGenerator(base, flow)
    assert torch.equal(chain.latent(eps), flow(eps)[0])
    assert torch.equal(chain(eps), base(flow(eps)[0]))


def test_chains_of_chains_compose():
    base, first, second, eps = TruthfulGenerator(), make_flow("first"), make_flow("second"), normal()
    chain = ChainedGenerator(ChainedGenerator(base, first), second)
    latent = first(second(eps)[0])[0]
    assert torch.equal(chain(eps), base(latent))
    assert torch.equal(chain.base(chain.latent(eps)), chain(eps))
    assert torch.equal(chain.truth(eps)["sign"], base.truth(latent)["sign"])


def test_a_chain_has_truth_if_and_only_if_its_base_has():
    with_truth, without = (
        ChainedGenerator(TruthfulGenerator(), make_flow()),
        ChainedGenerator(LinearGenerator(), make_flow()),
    )
    assert isinstance(with_truth, HasTruth)
    assert not isinstance(without, HasTruth)
    assert isinstance(ChainedGenerator(with_truth, make_flow()), HasTruth)
    assert not isinstance(ChainedGenerator(without, make_flow()), HasTruth)
    assert torch.equal(
        with_truth.truth(normal())["sign"], TruthfulGenerator().truth(with_truth.latent(normal()))["sign"]
    )


def test_copies_keep_their_kind():
    for base in (TruthfulGenerator(), LinearGenerator()):
        chain = ChainedGenerator(base, make_flow())
        twin = copy.deepcopy(chain)
        assert isinstance(twin, HasTruth) == isinstance(chain, HasTruth)
        assert torch.equal(twin(normal()), chain(normal()))


def test_a_chain_is_frozen_and_leaves_the_original_flow_free():
    flow = make_flow()
    chain = ChainedGenerator(LinearGenerator(), flow)
    before = chain(normal())
    assert not any(parameter.requires_grad for parameter in chain.parameters())
    assert all(parameter.requires_grad for parameter in flow.parameters())
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 1.0
    assert torch.equal(chain(normal()), before)
    assert not chain.train().training
    assert not chain.flow.training


def test_a_conditional_flow_stands_at_the_null_condition_unless_told():
    base, flow, eps = LinearGenerator(), make_flow(context_dim=2), normal()
    chain, context = ChainedGenerator(base, flow), normal(16, 2)
    assert torch.equal(chain(eps), base(flow(eps, torch.zeros(16, 2).double())[0]))
    assert torch.equal(chain(eps, context=context), base(flow(eps, context)[0]))


def test_noise_reaches_the_base():
    chain = ChainedGenerator(NoisyGenerator(), make_flow())
    still, one, same = chain(normal()), chain(normal(), noise=stream(0, "n")), chain(normal(), noise=stream(0, "n"))
    assert torch.equal(one, same)
    assert not torch.equal(one, still)


def test_dimensions_must_agree():
    with pytest.raises(DataError, match="5 dimensions"):
        ChainedGenerator(LinearGenerator(5), make_flow())


def test_conditions_reach_the_flow_that_takes_them_at_any_depth():
    base, eps, context = TruthfulGenerator(), normal(), normal(16, 2)
    first, second, third = make_flow("first", 2), make_flow("second"), make_flow("third")
    chain = ChainedGenerator(ChainedGenerator(ChainedGenerator(base, first), second), third)
    latent = first(second(third(eps)[0])[0], context)[0]
    assert isinstance(chain, Conditional)
    assert chain.condition == box(2)
    assert torch.equal(chain(eps, context=context), base(latent))
    assert torch.equal(chain.truth(eps, context)["sign"], base.truth(latent)["sign"])
    assert torch.equal(chain(eps), chain(eps, context=torch.zeros(16, 2).double()))
    assert not torch.equal(chain(eps), chain(eps, context=context))


def test_two_conditional_flows_take_their_own_columns():
    base, eps, context = LinearGenerator(), normal(), normal(16, 3)
    lower, upper = make_flow("lower", 2), Flow(4, SMALL, Condition({"light": (-1.0, 1.0)}), dtype=torch.float64)
    with torch.no_grad():
        for parameter in upper.parameters():
            parameter += 0.3
    chain = ChainedGenerator(ChainedGenerator(base, lower), upper)
    assert chain.condition.names == ("first", "second", "light")
    assert torch.equal(chain(eps, context=context), base(lower(upper(eps, context[:, 2:])[0], context[:, :2])[0]))
    with pytest.raises(DataError, match="two conditions"):
        ChainedGenerator(ChainedGenerator(base, lower), make_flow("other", 2))


def test_conditions_of_another_size_are_refused():
    conditional, plain = ChainedGenerator(LinearGenerator(), make_flow(context_dim=2)), LinearGenerator()
    for chain in (conditional, ChainedGenerator(plain, make_flow())):
        with pytest.raises(DataError, match=r"\(16, [02]\).*\(16, 3\)"):
            chain(normal(), context=normal(16, 3))
    with pytest.raises(DataError, match=r"\(16, 0\)"):
        conditioned_images(plain, normal(), normal(16, 2))
    assert condition_of(plain) == Condition()
