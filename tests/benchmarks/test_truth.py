"""The quadrature agrees with closed forms and with Monte Carlo, and the exact answer measures as right."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.measures import FlowSampler, WeightedPrior, measure
from benchmarks.scene import Reader, Scale, image_of
from benchmarks.tasks import BYSTANDER, BYSTANDER_SHARE, SEVEN, TASKS, make_task
from benchmarks.truth import both_features, multipliers
from promptgen.energies.base import Sample
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.labels import features, probabilities
from promptgen.seeding import stream

SMALL = [name for name in TASKS if name.endswith("-64")]
N = 200_000


@pytest.fixture(scope="module")
def prior_latents():
    return torch.randn(N, 64, generator=stream(0, "monte carlo"))


@pytest.mark.parametrize("name", SMALL)
def test_quadrature_agrees_with_monte_carlo(name, prior_latents):
    task = make_task(name)
    image = task.generator(prior_latents)
    weights = (-task.wanted(Sample(prior_latents, image)).double()).exp()
    relative = weights / math.exp(task.truth.log_z)
    within = 4 * float(relative.std()) / math.sqrt(N)  # four standard errors
    assert float(relative.mean()) == pytest.approx(1, abs=within)

    logits = task.classifier(image)
    labels = features(logits, [task.attribute], "hard").double()
    bystander = features(logits, [BYSTANDER], "hard")[:, 1].double()
    truth = [*task.truth.shares, task.truth.bystander]
    indicators = torch.cat([labels, bystander[:, None]], dim=1)
    influence = relative[:, None] * (indicators - indicators.new_tensor(truth))
    assert bool((influence.mean(dim=0).abs() <= 4 * influence.std(dim=0) / math.sqrt(N)).all())
    assert labels.mean(dim=0).numpy() == pytest.approx(task.truth.prior_shares, abs=2.5 / math.sqrt(N))


def test_two_modes_have_their_closed_form():
    """Each mode times N(0, I) is a Gaussian integral in two dimensions."""
    centres, variance = (2.5, -2.2), 0.7**2
    masses = [variance / (1 + variance) * math.exp(-(c**2) / (2 * (1 + variance))) for c in centres]
    truth = make_task("modes-64").truth
    assert truth.log_z == pytest.approx(math.log(sum(masses)), abs=1e-4)
    spill = 0.5 * math.erfc(centres[0] / (1 + variance) / math.sqrt(2 * variance / (1 + variance)))  # across zero
    assert truth.shares[1] == pytest.approx(masses[0] / sum(masses), abs=2 * spill + 1e-3)


def test_classes_have_the_shares_they_were_made_with():
    task = make_task("seven-64")
    assert task.truth.prior_shares == pytest.approx(SEVEN, abs=0.01)  # the largest probability is not quite the cut
    assert task.target == pytest.approx(task.truth.shares, abs=1e-5)
    logits = task.classifier(torch.full((1, 3, 1, 2), 0.5))
    assert float(logits[BYSTANDER].argmax()) == 0
    assert BYSTANDER_SHARE < 0.5


def test_a_scale_gives_probabilities_and_finite_gradients_far_out():
    reader = Reader({"class": Scale(lambda u: u[:, 0], (-1.0, 0.0, 2.0))})
    u = torch.zeros(5, 6)
    u[:, 0] = torch.tensor([-30.0, -1.0, 0.5, 2.0, 30.0])
    u.requires_grad_()
    logits = reader(image_of(u))
    assert logits["class"].exp().sum(dim=1).tolist() == pytest.approx([1.0] * 5, abs=1e-4)
    probabilities(logits, "class")[:, 0].sum().backward()
    assert bool(u.grad.isfinite().all())


def test_multipliers_need_every_class():
    logits = {"class": torch.tensor([[1.0, 0.0], [2.0, 0.0]])}
    soft, hard = both_features(logits, "class")
    assert multipliers(soft, hard, make_task("two-64").target) is None


@pytest.mark.parametrize("name", SMALL)
def test_the_exact_answer_measures_as_right(name):
    task = make_task(name)
    measurement = measure(task, WeightedPrior(task, task.wanted), seed=1, n=50_000)
    effective = 50_000 * task.truth.prior_ess
    assert measurement.kl < 4 * len(task.target) / (2 * effective)
    assert measurement.ess == pytest.approx(task.truth.prior_ess, rel=0.25)
    assert measurement.bystander_low - 0.01 <= 0 <= measurement.bystander_high + 0.01


def test_the_gap_of_an_untrained_flow_is_the_kl_of_the_prior():
    task = make_task("two-64")
    measurement = measure(task, FlowSampler(Flow(64, FlowConfig(blocks=1, hidden=4))), seed=0, n=20_000)
    latents = torch.randn(20_000, 64, generator=stream(1, "another draw"))
    energy = task.wanted(Sample(latents, task.generator(latents)))
    assert measurement.gap == pytest.approx(task.truth.log_z + float(energy.mean()), abs=0.05)
    assert measurement.ess == pytest.approx(task.truth.prior_ess, abs=0.02)
