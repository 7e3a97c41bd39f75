"""A flow that is confined to some directions: exact within them, and the identity outside."""

from __future__ import annotations

import pytest
import torch
from linear_gaussian import box

from promptgen.errors import CheckpointError, DataError
from promptgen.flows.chain_file import load_chain, save_chain
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.loading.own_files import load_tensors, save_tensors
from promptgen.seeding import stream

DIM, RANK = 7, 3
SMALL = FlowConfig(blocks=2, hidden=8)
SCALE = torch.linspace(0.5, 2.0, DIM, dtype=torch.float64)
BASIS = torch.linalg.qr(torch.randn(DIM, DIM, generator=stream(0, "basis"), dtype=torch.float64))[0]
INSIDE, OUTSIDE = BASIS[:, :RANK], BASIS[:, RANK:]


def normal(n=16, dim=DIM, name="eps"):
    return torch.randn(n, dim, generator=stream(0, name), dtype=torch.float64)


def confined(context_dim=0, dtype=torch.float64, directions=INSIDE):
    flow = Flow(DIM, SMALL, box(context_dim), scale=SCALE, dtype=dtype, directions=directions.to(dtype))
    rng = stream(0, "perturb")
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=rng, dtype=parameter.dtype)
    return flow


@pytest.mark.parametrize("context_dim", [0, 2])
def test_the_jacobian_is_known_and_the_inverse_exact(context_dim):
    flow, eps = confined(context_dim), normal(6)
    context = normal(6, 2, "context") if context_dim else None
    latent, log_det = flow(eps, context)
    back, log_det_back = flow.inverse(latent, context)
    torch.testing.assert_close(back, eps)
    torch.testing.assert_close(log_det_back, -log_det)
    for i in range(6):
        part = None if context is None else context[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(lambda x, part=part: flow(x[None], part)[0][0], eps[i])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[i])


@torch.no_grad()
def test_nothing_moves_outside_the_directions():
    flow, eps = confined(), normal(64)
    latent, _ = flow(eps)
    white = latent / SCALE
    torch.testing.assert_close(white @ OUTSIDE, eps @ OUTSIDE)
    assert float((white @ INSIDE - eps @ INSIDE).abs().amax(dim=0).min()) > 0.1
    pushed, _ = flow(eps + normal(64, DIM - RANK, "push") @ OUTSIDE.T)  # and nothing outside is looked at
    torch.testing.assert_close(pushed / SCALE @ INSIDE, white @ INSIDE)


@torch.no_grad()
def test_the_condition_moves_it_within_the_directions():
    flow, eps = confined(2), normal(32)
    first, second = (flow(eps, normal(32, 2, name))[0] / SCALE for name in "ab")
    assert float((first - second).abs().max()) > 0.01
    torch.testing.assert_close(first @ OUTSIDE, second @ OUTSIDE)


@torch.no_grad()
def test_a_new_one_is_the_identity_times_scale():
    eps = normal(64)
    latent, log_det = Flow(DIM, SMALL, scale=SCALE, dtype=torch.float64, directions=INSIDE)(eps)
    torch.testing.assert_close(latent, eps * SCALE)
    torch.testing.assert_close(log_det, SCALE.log().sum().expand(64))


def test_it_has_the_parameters_of_a_flow_of_so_many_directions():
    flow = Flow(DIM, SMALL, directions=INSIDE.float())
    assert SMALL.parameters(RANK) == sum(parameter.numel() for parameter in flow.parameters())
    assert torch.equal(flow.directions, INSIDE.float())
    assert Flow(DIM, SMALL).directions is None


@pytest.mark.parametrize("shape", [(DIM, 1), (DIM, DIM + 1), (DIM - 1, 3), (DIM,)])
def test_directions_of_another_shape_are_refused(shape):
    with pytest.raises(DataError, match="directions must be"):
        Flow(DIM, SMALL, directions=torch.ones(shape))


def test_directions_and_parts_exclude_each_other():
    with pytest.raises(DataError, match="parts"):
        Flow(DIM, FlowConfig(blocks=1, hidden=4, parts=(3, 4)), directions=INSIDE.float())


@torch.no_grad()
def test_a_chain_file_keeps_the_directions(tmp_path):
    flows = [confined(dtype=torch.float32), confined(2, dtype=torch.float32, directions=BASIS[:, 2:4])]
    save_chain(tmp_path / "chain.safetensors", flows, {"type": "linear"}, {})
    loaded = load_chain(tmp_path / "chain.safetensors").flows
    eps, context = normal(8).float(), normal(8, 2, "context").float()
    for flow, again in zip(flows, loaded, strict=True):
        given = context if flow.context_dim else None
        assert torch.equal(again.directions, flow.directions)
        assert torch.equal(again(eps, given)[0], flow(eps, given)[0])
        assert torch.equal(again.log_prob(eps, given), flow.log_prob(eps, given))
    save_chain(tmp_path / "again.safetensors", loaded, {"type": "linear"}, {})
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "chain.safetensors").read_bytes()


@pytest.mark.parametrize("rank", [0, 1, 2, 6, DIM + 1, 10**6, -3, "many", None])
def test_a_chain_file_with_another_rank_is_refused(tmp_path, rank):
    path = tmp_path / "chain.safetensors"
    save_chain(path, [confined(dtype=torch.float32)], {"type": "linear"}, {})
    tensors, config = load_tensors(path)
    config["flows"][0]["rank"] = rank
    save_tensors(path, tensors, config)
    with pytest.raises(CheckpointError) as error:
        load_chain(path)
    assert "\n" not in str(error.value)
