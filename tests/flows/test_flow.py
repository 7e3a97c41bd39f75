"""The flow is invertible, knows its density, starts as the identity, and listens to its condition."""

import copy

import pytest
import torch
from linear_gaussian import box
from pydantic import ValidationError

from promptgen.conditions import Condition
from promptgen.errors import DataError
from promptgen.flows.flow import Flow, FlowConfig, standard_log_prob
from promptgen.flows.transforms import BoundedCoupling
from promptgen.seeding import stream

SMALL = FlowConfig(blocks=3, hidden=16)


def normal(n, dim, name="eps", dtype=torch.float64):
    return torch.randn(n, dim, generator=stream(0, name), dtype=dtype)


def perturbed(flow, size=0.3, name="perturb"):
    """Move every parameter off its start, as training would."""
    rng = stream(0, name)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += size * torch.randn(parameter.shape, generator=rng, dtype=parameter.dtype)
    return flow


def small_flow(dim=5, context_dim=0, size=0.3, **kwargs):
    return perturbed(Flow(dim, SMALL, box(context_dim), dtype=torch.float64, **kwargs), size)


@pytest.mark.parametrize("context_dim", [0, 2])
def test_a_new_flow_is_the_identity_times_scale(context_dim):
    scale = torch.linspace(0.5, 2.0, 6)
    flow = Flow(6, SMALL, box(context_dim), scale=scale)
    eps = normal(64, 6, dtype=torch.float32)
    context = normal(64, 2, "context", torch.float32) if context_dim else None
    latent, log_det = flow(eps, context)
    torch.testing.assert_close(latent, eps * scale, atol=1e-5, rtol=0)
    torch.testing.assert_close(log_det, scale.log().sum().expand(64), atol=1e-6, rtol=0)


def test_a_new_flow_of_the_default_size_leaves_the_standard_normal_as_it_is():
    flow = Flow(64)
    eps = normal(16, 64, dtype=torch.float32)
    latent, log_det = flow(eps)
    torch.testing.assert_close(latent, eps, atol=1e-5, rtol=0)
    torch.testing.assert_close(flow.log_prob(eps), standard_log_prob(eps), atol=1e-3, rtol=0)
    assert torch.equal(log_det, torch.zeros(16))


@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("dim", [2, 5, 8])
def test_inverse_undoes_forward(dim, context_dim):
    flow = small_flow(dim, context_dim)
    eps = normal(32, dim)
    context = normal(32, 2, "context") if context_dim else None
    with torch.no_grad():
        latent, log_det = flow(eps, context)
        back, log_det_back = flow.inverse(latent, context)
    assert float((latent - eps).abs().max()) > 0.1
    torch.testing.assert_close(back, eps, atol=1e-10, rtol=0)
    torch.testing.assert_close(log_det_back, -log_det, atol=1e-10, rtol=0)


@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_log_det_is_that_of_the_autograd_jacobian(direction, context_dim):
    flow = small_flow(5, context_dim, scale=torch.linspace(0.5, 2.0, 5))
    points = normal(8, 5)
    context = normal(8, 2, "context") if context_dim else None
    function = getattr(flow, direction)
    _, log_det = function(points, context)
    for i in range(len(points)):
        condition = None if context is None else context[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(lambda x, c=condition: function(x[None], c)[0][0], points[i])
        expected = torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(log_det[i], expected, atol=1e-8, rtol=0)


def test_density_integrates_to_one():
    flow = small_flow(2, size=0.15)
    axis = torch.linspace(-25, 25, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        mass = flow.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1.0, abs=1e-3)


def test_log_scales_are_bounded():
    flow = perturbed(Flow(4, FlowConfig(blocks=1, hidden=4, log_scale_bound=0.5), dtype=torch.float64), size=100.0)
    with torch.no_grad():
        block = next(module for module in flow.modules() if isinstance(module, BoundedCoupling))
        log_scale, _ = block._log_scale_and_shift(block.transform_net(normal(100, 2)))
    assert float(log_scale.abs().max()) == pytest.approx(0.5, abs=1e-6)


def test_context_matters_in_every_block():
    flow = Flow(4, SMALL, box(2), dtype=torch.float64)
    eps, context = normal(16, 4), normal(16, 2, "context")
    blocks = [module for module in flow.modules() if isinstance(module, BoundedCoupling)]
    assert len(blocks) == SMALL.blocks
    for block in blocks:
        one = copy.deepcopy(flow)
        target = one.get_submodule(next(name for name, module in flow.named_modules() if module is block))
        perturbed(target)
        with torch.no_grad():
            assert float((one(eps, context)[0] - one(eps, -context)[0]).abs().max()) > 0.01


def test_the_same_seed_makes_the_same_flow_and_leaves_the_global_state_alone():
    before = torch.random.get_rng_state()
    one, same, other = (Flow(4, SMALL, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_every_parameter_gets_a_gradient():
    flow = small_flow(4, 2)
    latent, log_det = flow(normal(8, 4), normal(8, 2, "context"))
    (latent.sum() + log_det.sum()).backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in flow.parameters())


def test_null_context_is_zeros_of_the_right_shape():
    assert Flow(4, SMALL).null_context(3) is None
    assert torch.equal(Flow(4, SMALL, box(2)).null_context(3), torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("context_dim", "shape", "context_shape"),
    [
        (0, (3, 5), None),
        (0, (4,), None),
        (0, (3, 4), (3, 2)),
        (2, (3, 4), None),
        (2, (3, 4), (1, 2)),
        (2, (3, 4), (3, 1)),
    ],
)
def test_wrong_shapes_are_refused(context_dim, shape, context_shape):
    flow = Flow(4, SMALL, box(context_dim))
    context = None if context_shape is None else torch.zeros(context_shape)
    with pytest.raises(DataError, match=r"\(B, 4\)|conditions"):
        flow(torch.zeros(shape), context)
    with pytest.raises(DataError, match=r"\(B, 4\)|conditions"):
        flow.inverse(torch.zeros(shape), context)


def test_impossible_flows_are_refused():
    with pytest.raises(DataError, match="at least 2"):
        Flow(1)
    with pytest.raises(DataError, match="scale"):
        Flow(3, SMALL, scale=torch.ones(4))
    with pytest.raises(ValidationError):
        FlowConfig(blocks=0)
    with pytest.raises(ValidationError):
        FlowConfig(block=3)


# Flows for parts of the latent.

PARTS = FlowConfig(blocks=3, hidden=16, parts=(2, 3))


def parted_flow(context_dim=0):
    scale = torch.linspace(0.5, 2.0, 5)
    return perturbed(Flow(5, PARTS, box(context_dim), scale=scale, dtype=torch.float64))


def test_a_new_flow_of_parts_is_the_identity_times_scale():
    scale = torch.tensor([0.5, 0.5, 2.0, 2.0, 2.0], dtype=torch.float64)
    eps = normal(64, 5)
    latent, log_det = Flow(5, PARTS, scale=scale, dtype=torch.float64)(eps)
    torch.testing.assert_close(latent, eps * scale)
    torch.testing.assert_close(log_det, scale.log().sum().expand(64))


@pytest.mark.parametrize("context_dim", [0, 2])
def test_parts_undo_forward_and_know_their_jacobian(context_dim):
    flow, eps = parted_flow(context_dim), normal(8, 5)
    context = normal(8, 2, "context") if context_dim else None
    latent, log_det = flow(eps, context)
    back, log_det_back = flow.inverse(latent, context)
    torch.testing.assert_close(back, eps)
    torch.testing.assert_close(log_det_back, -log_det)
    for i in range(8):
        part = None if context is None else context[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(lambda x, part=part: flow(x[None], part)[0][0], eps[i])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[i])


def test_no_part_depends_on_another():
    flow, eps = parted_flow(), normal(1, 5)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x[None])[0][0], eps[0])
    assert bool((jacobian[:2, 2:] == 0).all())
    assert bool((jacobian[2:, :2] == 0).all())
    assert float(jacobian[:2, :2].abs().min()) > 0
    assert float(jacobian[2:, 2:].abs().min()) > 0


def test_every_part_listens_to_the_condition():
    flow, eps = parted_flow(2), normal(4, 5)
    first, second = flow(eps, normal(4, 2, "a"))[0], flow(eps, normal(4, 2, "b"))[0]
    moved = (first - second).detach().abs().amax(dim=0)
    assert float(moved[:2].max()) > 0
    assert float(moved[2:].max()) > 0


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"6 dimensions.*2 \+ 3 = 5"):
        Flow(6, PARTS)
    for bad in ((5,), (1, 4), ()):
        with pytest.raises(ValidationError):
            FlowConfig(parts=bad)


def test_conditions_are_taken_in_units_of_their_ranges():
    """A pose in radians moves a flow as a coordinate of order 1 would, and the same weights say so."""
    wide = perturbed(Flow(4, SMALL, Condition({"a": (-1.0, 1.0), "b": (-0.5, 2.0)}), dtype=torch.float64))
    narrow = perturbed(Flow(4, SMALL, Condition({"a": (-0.1, 0.05), "b": (-0.2, 0.0)}), dtype=torch.float64))
    eps, unit = normal(8, 4), normal(8, 2, "context")
    first = wide(eps, unit * torch.tensor([1.0, 2.0]))[0]
    torch.testing.assert_close(narrow(eps, unit * torch.tensor([0.1, 0.2]))[0], first)
    assert "context_scale" not in wide.state_dict()
