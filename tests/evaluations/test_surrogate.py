"""Predictions of known functions: what matters in the latent is found, with gradients and without."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from promptgen.evaluations.directions import active_directions
from promptgen.evaluations.surrogate import Records, fit_surrogate
from promptgen.seeding import stream

DIM = 24
FIRST, SECOND = torch.linalg.qr(torch.randn(DIM, 2, generator=stream(3, "directions")))[0].T


def normal(n, dim=DIM, name="latent"):
    return torch.randn(n, dim, generator=stream(0, name))


def wave(latent, scale=1.0):
    """A function of two directions, (N, 1)."""
    white = latent / scale
    return (torch.sin(1.5 * white @ FIRST) + (white @ SECOND).square())[:, None]


def labels(latent):
    """Probabilities of three classes, (N, 3), by two directions."""
    return torch.stack([3 * latent @ FIRST, 3 * latent @ SECOND, torch.zeros(len(latent))], dim=1).softmax(dim=1)


def records_of(function, n, *, gradient=True, context=None, scale=1.0):
    latent = (normal(n) * scale).requires_grad_()
    context = torch.zeros(n, 0) if context is None else context
    features = function(latent, context) if context.shape[1] else function(latent)
    direction = torch.randn(features.shape, generator=stream(0, "combination"))
    (slope,) = torch.autograd.grad((direction * features).sum(), latent)
    if not gradient:
        direction, slope = torch.zeros_like(direction), torch.zeros_like(slope)
    return Records(latent.detach(), context, features.detach(), direction, slope)


def inside(surrogate, direction):
    """Length of the part of a unit vector within the active directions."""
    return float((surrogate.directions.T @ direction).norm())


@pytest.mark.parametrize("sized", [False, True], ids=["unit", "scaled"])
def test_gradients_show_the_directions_that_matter(sized):
    scale = torch.linspace(0.2, 4.0, DIM) if sized else torch.ones(DIM)
    records = records_of(lambda latent: wave(latent, scale), 300, scale=scale)
    surrogate = fit_surrogate(records, "values", scale, seed=1, steps=400)
    assert surrogate.directions.shape == (DIM, 2)
    torch.testing.assert_close(surrogate.directions.T @ surrogate.directions, torch.eye(2), atol=1e-5, rtol=0)
    assert inside(surrogate, FIRST) > 0.99
    assert inside(surrogate, SECOND) > 0.99
    fresh = normal(2000, name="fresh") * scale
    error = surrogate(fresh) - wave(fresh, scale)
    assert float(error.square().mean().sqrt()) < 0.3 * float(wave(fresh, scale).std())
    assert surrogate.error < 0.4


def test_gradients_of_probabilities_show_them_too():
    surrogate = fit_surrogate(records_of(labels, 400), "probabilities", torch.ones(DIM), seed=1, steps=300)
    assert inside(surrogate, FIRST) > 0.99
    assert inside(surrogate, SECOND) > 0.99
    fresh = normal(2000, name="fresh")
    predicted = surrogate(fresh)
    torch.testing.assert_close(predicted.sum(dim=1), torch.ones(2000))
    assert float((predicted - labels(fresh)).abs().mean()) < 0.06
    wrong = float((predicted.argmax(dim=1) != labels(fresh).argmax(dim=1)).double().mean())
    assert wrong < 0.1
    assert abs(surrogate.error - wrong) < 0.1


def test_hard_labels_without_any_gradient_are_predicted():
    records = records_of(lambda latent: labels(latent), 1500, gradient=False)
    hard = torch.nn.functional.one_hot(records.features.argmax(dim=1), 3).float()
    records = Records(records.latent, records.context, hard, records.direction, records.gradient)
    surrogate = fit_surrogate(records, "probabilities", torch.ones(DIM), seed=1)
    assert inside(surrogate, FIRST) > 0.8
    assert inside(surrogate, SECOND) > 0.8
    fresh = normal(2000, name="fresh")
    wrong = surrogate(fresh).argmax(dim=1) != labels(fresh).argmax(dim=1)
    assert float(wrong.double().mean()) < 0.25  # by chance: 0.67


def test_a_condition_is_read():
    context = 4 * torch.rand(600, 1, generator=stream(0, "context")) - 2
    records = records_of(lambda latent, context: (latent @ FIRST)[:, None] * context, 600, context=context)
    surrogate = fit_surrogate(records, "values", torch.ones(DIM), seed=1)
    fresh = normal(1000, name="fresh")
    for value in (-1.5, 0.0, 1.5):
        expected = value * (fresh @ FIRST)[:, None]
        error = surrogate(fresh, torch.full((1000, 1), value)) - expected
        assert float(error.square().mean().sqrt()) < 0.4


def test_members_disagree_and_their_mean_predicts():
    surrogate = fit_surrogate(records_of(wave, 200), "values", torch.ones(DIM), seed=1, steps=50)
    fresh = normal(100, name="fresh")
    members = surrogate.members(fresh)
    torch.testing.assert_close(members.mean(dim=0), surrogate(fresh))
    assert float(members.std(dim=0).mean()) > 0


def test_equal_seeds_give_equal_surrogates():
    records, fresh = records_of(wave, 200), normal(50, name="fresh")
    first, again, other = (
        fit_surrogate(records, "values", torch.ones(DIM), seed=seed, steps=30)(fresh) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_steep_record_does_not_hide_the_rest():
    """The gradient of one record is 1,000 times longer, and along another direction."""
    third = torch.linalg.qr(torch.stack([FIRST, SECOND, torch.ones(DIM)], dim=1))[0][:, 2]
    gradient = torch.stack([FIRST, SECOND] * 50 + [1000 * third])
    directions, scales = active_directions(gradient, torch.ones(DIM))
    assert float((directions.T @ FIRST).norm()) == pytest.approx(1.0, abs=1e-3)
    assert float((directions.T @ SECOND).norm()) == pytest.approx(1.0, abs=1e-3)
    assert float(scales.max()) == pytest.approx(1.0)
    assert bool((scales > 0).all())


def test_a_flow_gets_two_directions_even_if_one_matters():
    directions, _ = active_directions(FIRST.expand(50, DIM), torch.ones(DIM))
    assert directions.shape == (DIM, 2)
    assert abs(float(directions[:, 0] @ FIRST)) == pytest.approx(1.0, abs=1e-4)
    assert math.isfinite(float(directions.sum()))


class Largest(TorchDispatchMode):
    """Keeps the number of elements of the largest tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_without_gradients_no_matrix_of_all_directions_is_made():
    n, dim, zeros = 40, 2048, torch.zeros
    latent = normal(n, dim)
    records = Records(latent, zeros(n, 0), latent[:, :2], zeros(n, 2), zeros(n, dim))
    with Largest() as largest:
        fit_surrogate(records, "values", torch.ones(dim), seed=1, steps=4)
    assert n * dim <= largest.elements < dim * dim / 2
