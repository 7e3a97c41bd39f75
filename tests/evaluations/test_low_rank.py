"""Flows confined to few directions: what they give away, and what a wide latent costs."""

from __future__ import annotations

import ctypes
import gc
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from promptgen.energies.base import Term, WeightedSum
from promptgen.energies.moment import MomentEnergy
from promptgen.evaluations.directions import active_directions, enough_directions, given_away, outside, tempered
from promptgen.evaluations.landing import Target
from promptgen.evaluations.objective import control_objective, moment_objective
from promptgen.evaluations.proposal import Proposal
from promptgen.evaluations.span import Span, joint_directions
from promptgen.evaluations.store import EvaluationStore
from promptgen.evaluations.surrogate import Records, fit_surrogate
from promptgen.evaluations.training import Trainer
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.generators.base import GaussianPrior
from promptgen.seeding import stream
from tests.evaluations.small import Coordinates, Reader
from tests.memory import peak_memory

SMALL = FlowConfig(blocks=2, hidden=16)


def normal(n, dim, name="z", dtype=torch.float64):
    return torch.randn(n, dim, generator=stream(0, name), dtype=dtype)


CURVATURES = torch.tensor([6.0, 2.0, 0.5, 0.1, 0.02, 0.0, 0.0, 0.0], dtype=torch.float64)
BASIS = torch.linalg.qr(normal(8, 8, "basis"))[0]
EIGENVALUES = CURVATURES.square() / (1 + CURVATURES)


class Bowl:
    """The energy ``sum_i c_i (v_i . z)^2 / 2``: p* is Gaussian with variances 1 / (1 + c_i), and H has the v_i."""

    def __call__(self, z):
        return 0.5 * ((z @ BASIS).square() * CURVATURES).sum(dim=1)

    def gradient(self, z):
        return (z @ BASIS * CURVATURES) @ BASIS.T

    def samples(self, n):
        return normal(n, 8) / (1 + CURVATURES).sqrt() @ BASIS.T

    def kl(self, rank):
        """KL(p* || p*_U), nats: along what is left out, the prior stands for the Gaussian."""
        variances = 1 / (1 + CURVATURES[rank:])
        return float(0.5 * (variances - 1 - variances.log()).sum())


@pytest.mark.parametrize("rank", [1, 2, 3, 5])
def test_the_bound_is_half_the_sum_of_the_eigenvalues_that_are_left_out_and_holds(rank):
    bowl, z = Bowl(), Bowl().samples(20_000)
    bound = given_away(outside(bowl.gradient(z), BASIS[:, :rank]), torch.zeros(len(z)), confidence=0.999)
    exact = float(0.5 * EIGENVALUES[rank:].sum())
    assert bound.contains(exact) or bound.value == pytest.approx(exact, abs=1e-12)
    assert bowl.kl(rank) <= exact
    assert bowl.kl(rank) <= bound.high + 1e-12


def test_weights_carry_samples_of_the_prior_to_the_target():
    bowl, z = Bowl(), normal(200_000, 8)
    bound = given_away(outside(bowl.gradient(z), BASIS[:, :2]), -bowl(z), confidence=0.999)
    assert bound.contains(float(0.5 * EIGENVALUES[2:].sum()))
    assert bound.high - bound.low < 0.02


def test_records_that_have_chosen_the_directions_leave_nothing_over_and_others_tell_the_truth():
    rows = normal(20, 400, "rough")
    directions, _ = active_directions(rows, torch.ones(400, dtype=torch.float64), rank=20)
    assert float(outside(rows, directions).max()) < 1e-6
    assert float(outside(normal(20, 400, "fresh"), directions).min()) > 200


def test_more_directions_are_kept_where_the_usual_choice_gives_away_too_much():
    slopes = torch.cat([torch.full((2,), 20.0), torch.full((10,), 0.5), torch.zeros(28)]).double()
    gradient = normal(400, 40) * slopes  # the ten smaller ones are far below 2e-3 of the largest eigenvalue
    scale, log_weight = torch.ones(40, dtype=torch.float64), torch.zeros(400)
    assert active_directions(gradient, scale)[0].shape[1] == 2
    assert enough_directions(gradient, scale, log_weight) in range(11, 13)
    assert enough_directions(gradient / 10, scale, log_weight) is None


def test_a_single_steep_record_asks_for_no_directions():
    gradient = torch.cat([normal(400, 2), torch.zeros(400, 38, dtype=torch.float64)], dim=1)
    scale, log_weight = torch.ones(40, dtype=torch.float64), torch.zeros(400)
    gradient[7, 20] = 30.0  # in the mean, 2 nats are given away
    assert enough_directions(gradient, scale, log_weight) is None
    gradient[:, 20] = 30.0 * normal(400, 1, "steep")[:, 0]
    gradient[:, 21:30] = normal(400, 9, "others")
    assert enough_directions(gradient, scale, log_weight) in range(11, 13)


def test_weights_are_tempered_only_if_few_outweigh_the_others():
    even, steep = normal(500, 1)[:, 0], 40 * normal(500, 1)[:, 0]
    assert torch.equal(tempered(even), even)
    weights = tempered(steep).softmax(dim=0)
    assert 1 / float(weights.square().sum()) == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize(("n", "dim"), [(50, 8), (8, 50), (30, 5000)])
def test_directions_of_wide_and_tall_matrices_are_those_of_the_full_decomposition(n, dim):
    gradient, scale = normal(n, dim), torch.linspace(0.5, 2, dim, dtype=torch.float64)
    directions, scales = active_directions(gradient, scale, rank=4)
    white = gradient * scale
    length = white.norm(dim=1, keepdim=True)
    _, singular, expected = torch.linalg.svd(white / (length + length.median()), full_matrices=False)
    torch.testing.assert_close((directions.T @ expected[:4].T).abs(), torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(scales, singular[:4] / singular[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_records_without_a_gradient_change_no_direction(dtype):
    gradient, scale = normal(30, 50, dtype=dtype), torch.ones(50, dtype=dtype)
    among_others = torch.cat([torch.zeros(40, 50, dtype=dtype), gradient, torch.zeros(40, 50, dtype=dtype)])
    expected, got = (active_directions(rows, scale, rank=4) for rows in (gradient, among_others))
    assert [tensor.dtype for tensor in got] == [dtype, dtype]
    assert torch.equal(got[1], expected[1])
    assert torch.equal(got[0], expected[0])


class Classes:
    def __init__(self, n):
        self.attributes = {"kind": tuple(map(str, range(n)))}


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_random_signs_bound_the_gradient_of_the_energy(classes):
    energy = MomentEnergy(Classes(classes), "kind", np.linspace(-1, 2, classes) ** 2)
    objective, _ = moment_objective(energy, "reader")
    jacobian = normal(classes, 5, "jacobian")
    jacobian -= jacobian.mean(dim=0)  # the gradients of probabilities sum to zero
    signs = objective.slope(200_000, stream(1, "signs")).direction.double()
    recorded = float((signs @ jacobian).square().sum(dim=1).mean()) * objective.gradient_factor**2
    true = float((objective.coefficients.double() @ jacobian).square().sum())
    assert recorded > 0.98 * true
    assert classes > 2 or recorded == pytest.approx(true, rel=1e-6)


def moved(flow):
    rng = stream(0, "moved")
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return flow


def wide_records(dim, n):
    gradient, latent = torch.zeros(n, dim), normal(n, dim, "latent", torch.float32)
    gradient[:, :6] = normal(n, 6, "gradient", torch.float32)
    features = (latent[:, :6] * gradient[:, :6]).sum(dim=1, keepdim=True)
    return Records(latent, torch.zeros(n, 0), features, torch.ones(n, 1), gradient)


def test_in_its_span_everything_is_as_in_the_full_latent():
    """A chain of two confined flows, a surrogate that sees another direction, and a scale of the prior."""
    dim, scale = 1500, torch.linspace(0.5, 1.5, 1500)
    generator = Coordinates(dim)
    generator.prior = GaussianPrior(scale)
    first, second = (torch.linalg.qr(normal(dim, 3, name, torch.float32))[0] for name in "ab")
    chain = ChainedGenerator(generator, moved(Flow(dim, SMALL, scale=scale, directions=first)))
    flow = moved(Flow(dim, SMALL, directions=joint_directions([first, second])))
    surrogate = fit_surrogate(wide_records(dim, 60), "values", scale, seed=0, steps=3)
    proposal = Proposal(chain, 0, flow)
    span = Span.of(proposal, surrogate, scale)
    assert span is not None
    within, seen = span.proposal(proposal), span.surrogate(surrogate)
    draw = proposal.draw(40, "x")
    torch.testing.assert_close(seen(span.coordinates(draw).base), surrogate(draw.base), rtol=1e-3, atol=1e-4)
    eps = normal(40, dim, "eps", torch.float32)
    latent, log_det = flow(eps)
    short, short_log_det = within.flow(eps @ span.directions)
    torch.testing.assert_close(short, latent @ span.directions, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(short_log_det, log_det, rtol=1e-4, atol=1e-5)
    base = chain.latent(latent) / scale
    torch.testing.assert_close(within.generator.latent(short), base @ span.directions, rtol=1e-4, atol=1e-4)
    assert {id(p) for p in within.flow.parameters()} == {id(p) for p in flow.parameters()}


class Facing:
    """A wide generator whose images show four projections of the latent."""

    image_shape = (1, 2, 2)

    def __init__(self, dim):
        self.prior = GaussianPrior.standard(dim)
        self.matrix = torch.linalg.qr(normal(dim, 4, "facing", torch.float32))[0]

    def __call__(self, latent, *, noise=None):
        return (latent @ self.matrix).reshape(-1, 1, 2, 2)


def far(sample):
    """Three of the projections are wanted elsewhere."""
    seen = sample.image.flatten(1)
    return 2 * (seen[:, 0] - 1).square() + (seen[:, 1] * seen[:, 2] - 0.5).square()


def trained(dim, *, units=1536, **options):
    objective, outputs = control_objective(WeightedSum({"far": Term(far)}), {"far": "far"})
    store = EvaluationStore(Facing(dim), outputs, batch=256)
    trainer = Trainer(store.generator, store, objective, FlowConfig(blocks=2, hidden=24, **options), 1)
    return trainer.train(units, fit_samples=256)


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_steps")
def test_a_flow_of_16384_dimensions_is_trained_and_says_what_it_gives_away():
    training = trained(16_384)
    assert 2 <= training.flow.directions.shape[1] <= 6
    assert training.fit.ess_fraction > 0.5
    assert 0 <= training.given_away.value < 0.01


@pytest.mark.long
@pytest.mark.slow
def test_the_rank_can_be_chosen_and_what_it_costs_is_seen():
    few = trained(1200, rank=2)
    assert few.flow.directions.shape[1] == 2
    assert few.given_away.low > 0.05
    assert few.fit.kl_gap > trained(1200).fit.kl_gap


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_steps")
def test_shares_are_reached_in_a_wide_latent_under_a_chain():
    below = moved(Flow(1100, SMALL, directions=torch.eye(1100)[:, 5:8].contiguous()))
    generator = ChainedGenerator(Coordinates(1100), below)
    objective, outputs = moment_objective(MomentEnergy(Reader(), "hair"), "reader@1")
    store = EvaluationStore(generator.base, outputs, batch=256)
    target = Target(np.array([0.5, 0.5]))
    training = Trainer(generator, store, objective, SMALL, 1, target=target).train(2048, fit_samples=256)
    draw = Proposal(generator, 99, training.flow).draw(4000, "count")
    assert abs(float((draw.base[:, 0] > 0.6).double().mean()) - 0.5) < 0.04
    assert training.given_away.value < 0.01


def reset_peak():
    """Forget the largest memory that this process has held, and return what it holds, MiB."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier tests have freed would be used again unseen
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("the system does not tell a peak of memory")
    return peak_memory()


def test_a_wide_latent_takes_little_memory_and_time():
    """At 16,384 dimensions: directions from 512 gradients, a flow along 64 of them, and a step of its training."""
    dim, n = 16_384, 512
    gradient = normal(n, dim, "gradient", torch.float32)
    before = reset_peak()
    directions, _ = active_directions(gradient, torch.ones(dim), rank=64)
    flow = Flow(dim, FlowConfig(), directions=directions).along(directions)
    optimiser = torch.optim.Adam(flow.parameters())
    started = time.process_time()
    latent, log_det = flow(normal(256, 64, "eps", torch.float32))
    (latent.square().sum(dim=1) - log_det).mean().backward()
    optimiser.step()
    seconds, used = time.process_time() - started, peak_memory() - before
    print(f"a step of 256 samples: {seconds:.3f} s; memory: {used:.0f} MiB")
    assert seconds < 5
    assert 32 < used < 200
    assert directions.numel() * 4 < 5 * 2**20
