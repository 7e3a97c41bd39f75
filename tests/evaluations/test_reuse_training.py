"""Trainings on evaluations, against what they should end with."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from linear_gaussian import LinearGenerator, Quadratic, box, closed_form

from promptgen.conditions import Condition
from promptgen.energies.base import Term, WeightedSum
from promptgen.energies.moment import MomentEnergy
from promptgen.evaluations.landing import Target
from promptgen.evaluations.objective import control_objective, moment_objective
from promptgen.evaluations.proposal import Proposal
from promptgen.evaluations.store import EvaluationStore
from promptgen.evaluations.training import Trainer
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.labels import features
from tests.evaluations.small import Coordinates, Interrupted, Reader

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fewer_steps")]

SMALL = FlowConfig(blocks=3, hidden=24)
DRAWN = 20_000


def trainer_of(generator, objective, outputs, *, folder=None, images=None, size=SMALL, **options):
    store = EvaluationStore(images or generator, outputs, folder=folder, batch=64)
    return Trainer(generator, store, objective, size, 1, **options)


def control(energy, *, differentiable=True):
    return control_objective(WeightedSum({"it": Term(energy)}), {"it": "it@1"}, differentiable=differentiable)


def moments(attribute="hair", *, hard=False):
    reader = Reader(hard=hard)
    return moment_objective(MomentEnergy(reader, attribute), "reader@1", differentiable=not hard)


@torch.no_grad()
def shares_of(generator, flow, attribute="hair", condition=None):
    """True shares under a flow, by many samples."""
    draw = Proposal(generator, 99, flow, condition or Condition()).draw(DRAWN, "count")
    images = draw.base[:, :3, None, None]
    return features(Reader()(images), [attribute], "hard").double().mean(dim=0).numpy()


@pytest.fixture(scope="module")
def trained(fewer_steps):
    """A quadratic energy of a linear generator: a Gaussian in closed form."""
    generator, energy = LinearGenerator().float(), Quadratic().float()
    trainer = trainer_of(generator, *control(energy))
    return generator, trainer.train(2048, fit_samples=512), trainer


def test_the_fit_is_that_of_the_closed_form(trained):
    _, training, _ = trained
    _, _, log_z = closed_form(LinearGenerator(), Quadratic())
    assert abs(training.fit.log_z - log_z) < 0.03 + 4 * training.fit.log_z_error
    assert training.fit.ess_fraction > 0.6
    assert training.fit.kl_gap < 0.3


@torch.no_grad()
def test_samples_have_its_moments(trained):
    generator, training, _ = trained
    mean, covariance, _ = closed_form(LinearGenerator(), Quadratic())
    latent = Proposal(generator, 99, training.flow).draw(DRAWN, "count").latent.double()
    torch.testing.assert_close(latent.mean(dim=0), mean, atol=0.2, rtol=0)
    torch.testing.assert_close(latent.T.cov(), covariance, atol=0.25, rtol=0)


def test_every_image_counts(trained):
    generator, training, trainer = trained
    spending = trainer.store.spending
    assert generator.images == spending.forward == sum(map(len, training.evaluations))
    assert spending.units == spending.forward + 2 * spending.backward <= 2048
    assert training.history[-1]["units"] == spending.units


def test_the_surrogate_says_how_good_it_is(trained):
    _, training, _ = trained
    assert 0 < training.surrogate_error < 0.5
    assert 0 < training.expected_ess <= 1
    assert [row["step"] for row in training.history] == sorted(row["step"] for row in training.history)
    assert {"validation/ess_fraction", "surrogate/error"} <= set(training.history[-1])


def test_an_energy_without_a_gradient_is_followed():
    generator = LinearGenerator().float()
    energy = Quadratic().float()
    objective, outputs = control(lambda sample: energy(sample).detach(), differentiable=False)
    trainer = trainer_of(generator, objective, outputs)
    training = trainer.train(3072, fit_samples=512)
    _, _, log_z = closed_form(LinearGenerator(), Quadratic())
    assert trainer.store.spending.backward == 0
    assert trainer.store.spending.units <= 3072
    assert abs(training.fit.log_z - log_z) < 0.05 + 4 * training.fit.log_z_error
    assert training.fit.ess_fraction > 0.4


@pytest.mark.parametrize(
    ("attribute", "hard", "target"),
    [
        ("hair", False, [0.2, 0.8]),
        ("hair", True, [0.5, 0.5]),
        ("hair x glasses", False, [0.25, 0.25, 0.25, 0.25]),
    ],
)
def test_target_shares_are_hit(attribute, hard, target):
    """The generator has 27 % of long hair; hard labels have no gradient, and are all that is seen of an image."""
    generator = Coordinates()
    trainer = trainer_of(generator, *moments(attribute, hard=hard), target=Target(np.array(target)))
    training = trainer.train(3072, fit_samples=512)
    np.testing.assert_allclose(shares_of(generator, training.flow, attribute), target, atol=0.025)
    assert generator.images == trainer.store.spending.forward
    assert trainer.store.spending.units <= 3072
    assert (trainer.store.spending.backward == 0) == hard
    assert f"share/{training.objective.labels[0]}" in training.history[-1]


def test_a_conditional_flow_follows_its_condition():
    """``(x - c)^2 / (2 s^2)`` puts the first coordinate around ``c / (1 + s^2)``, and log Z depends on c."""
    width, condition = 0.5, box(1, size=1.5)

    def near(sample):
        return (sample.image[:, 0, 0, 0] - sample.context[:, 0]).square() / (2 * width**2)

    generator = Coordinates()
    trainer = trainer_of(generator, *control(near), condition=condition)
    training = trainer.train(3072, fit_samples=512)
    with torch.no_grad():
        eps = torch.randn(5000, 6, generator=torch.Generator().manual_seed(0))
        for value in (-1.0, 0.0, 1.0):
            latent, _ = training.flow(eps, torch.full((5000, 1), value))
            assert float(latent[:, 0].mean()) == pytest.approx(value / (1 + width**2), abs=0.12)
            assert float(latent[:, 0].std()) == pytest.approx(width / (1 + width**2) ** 0.5, abs=0.1)
            assert float(latent[:, 1:].mean(dim=0).abs().max()) < 0.15
    assert training.fit.ess_fraction > 0.5


@cache
def control_chain():
    """A generator under a flow that shifts its first coordinate, so that 60 % have long hair."""
    generator = Coordinates()
    flow = Flow(6, FlowConfig(blocks=1, hidden=4))
    with torch.no_grad():
        shifts = dict(flow.named_parameters())
        next(value for name, value in shifts.items() if name.endswith("shift"))[0] = 0.85
    return generator, ChainedGenerator(generator, flow)


def test_a_flow_on_a_chain_uses_what_was_evaluated_under_it():
    generator, chain = control_chain()
    generator.images = 0
    assert shares_of(chain, None)[1] == pytest.approx(0.6, abs=0.02)
    objective, outputs = moments()
    earlier = EvaluationStore(generator, outputs).evaluate(Proposal(chain, 5).draw(512, "earlier").base)
    generator.images = 0
    trainer = trainer_of(
        chain, objective, outputs, images=generator, target=Target(np.array([0.5, 0.5])), earlier=[earlier]
    )
    training = trainer.train(2048, fit_samples=512)
    np.testing.assert_allclose(shares_of(chain, training.flow), [0.5, 0.5], atol=0.025)
    assert training.evaluations[0] is earlier
    assert generator.images == trainer.store.spending.forward == sum(map(len, training.evaluations)) - 512
    assert trainer.store.spending.units <= 2048
    with torch.no_grad():  # what is not asked for stays
        other = Proposal(chain, 99, training.flow).draw(DRAWN, "count").base
    np.testing.assert_allclose(other[:, 1:].mean(dim=0), np.zeros(5), atol=0.05)
    np.testing.assert_allclose(other[:, 1:].std(dim=0), np.ones(5), atol=0.05)


def flow_bytes(training):
    return b"".join(value.numpy().tobytes() for value in training.flow.state_dict().values())


def run(folder, *, fatal_call=0):
    generator = Coordinates(fatal_call=fatal_call)
    target = Target(np.array([0.5, 0.5]))
    trainer = trainer_of(generator, *moments(), folder=folder, target=target, size=FlowConfig(blocks=1, hidden=8))
    return trainer.train(1024, fit_samples=256), trainer


@pytest.mark.usefixtures("few_steps")
def test_a_killed_training_ends_with_the_same_flow(tmp_path):
    training, trainer = run(tmp_path / "whole")
    calls = sum(-(-len(part) // 64) for part in training.evaluations)
    for fatal in (2, calls // 2, 2):  # the last one finds what the one before has left
        with pytest.raises(Interrupted):
            run(tmp_path / "killed", fatal_call=fatal)
    killed, whole = (len(list((tmp_path / name).glob("*.safetensors"))) for name in ("killed", "whole"))
    assert 0 < killed < whole
    resumed, rest = run(tmp_path / "killed")
    assert flow_bytes(resumed) == flow_bytes(training)
    assert resumed.history == training.history
    assert resumed.fit == training.fit
    assert rest.store.spending.units == trainer.store.spending.units
    assert rest.generator.images < trainer.generator.images
