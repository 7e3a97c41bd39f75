"""True gradients instead of the surrogate, where an energy depends on all directions of the latent."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from promptgen.energies.base import Sample, Term, WeightedSum
from promptgen.evaluations import training
from promptgen.evaluations.objective import control_objective
from promptgen.evaluations.polish import BATCH, Polish
from promptgen.evaluations.proposal import Proposal
from promptgen.evaluations.store import EvaluationStore
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.generators.base import GaussianPrior
from promptgen.networks.frozen import FrozenModule
from promptgen.seeding import stream

DIM = 48


class Pixels(FrozenModule):
    """Shows a latent as it is."""

    image_shape = (1, 1, DIM)

    def __init__(self) -> None:
        super().__init__()
        self.prior = GaussianPrior.standard(DIM)
        self.freeze()

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        return latent[:, None, None, :]


class Everywhere(nn.Module):
    """A Gaussian likelihood around a point far from the origin in every direction, so log Z is known."""

    curvature = 0.4

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("point", 0.6 * torch.randn(DIM, generator=stream(3, "point")))

    def forward(self, sample: Sample) -> Tensor:
        return self.curvature / 2 * (sample.image.flatten(1) - self.point).square().sum(dim=1)

    @property
    def log_z(self) -> float:
        shift = self.curvature / (1 + self.curvature) / 2 * float(self.point.square().sum())
        return -DIM / 2 * math.log(1 + self.curvature) - shift


def objective_of(energy):
    return control_objective(WeightedSum({"it": Term(energy)}), {"it": "it@1"})


def polish_of(energy, folder=None):
    generator, (objective, outputs) = Pixels(), objective_of(energy)
    flow = Flow(DIM, FlowConfig(blocks=2, hidden=32), seed=1)
    store = EvaluationStore(generator, outputs, folder=folder, batch=BATCH)

    def evaluate(draw, name):
        return store.evaluate(draw.base.detach(), slope=objective.energy_slope(len(draw)))

    return Polish(Proposal(generator, 1, flow), objective, evaluate, lambda *_: None), store


def test_the_recorded_gradient_gives_the_gradient_of_the_image():
    polish, _ = polish_of(Everywhere())
    flow = polish.proposal.flow
    draw = polish.proposal.draw(BATCH, "compare", path=True)
    recorded = polish.linear_energy(draw.base, polish.evaluate(draw, "compare")).mean()
    direct = Everywhere()(Sample(draw.base, Pixels()(draw.base))).mean()
    for one, other in zip(
        torch.autograd.grad(recorded, list(flow.parameters()), retain_graph=True, allow_unused=True),
        torch.autograd.grad(direct, list(flow.parameters()), allow_unused=True),
        strict=True,
    ):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_flow_that_becomes_worse_is_put_back():
    polish, _ = polish_of(Everywhere())
    evaluate = polish.evaluate

    def misled(draw, name):
        evaluations = evaluate(draw, name)
        return replace(evaluations, gradient=-evaluations.gradient)

    polish.evaluate = misled
    before = {name: value.clone() for name, value in polish.proposal.flow.state_dict().items()}
    evaluations = polish.run(8 * BATCH)
    assert sum(map(len, evaluations)) == 8 * BATCH
    assert not polish.kept
    torch.testing.assert_close(dict(polish.proposal.flow.state_dict()), before, rtol=0, atol=0)


def test_too_few_images_for_a_step_change_nothing():
    polish, store = polish_of(Everywhere())
    assert polish.run(BATCH - 1) == []
    assert not polish.kept
    assert store.spending.units == 0


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("fewer_steps")
def test_an_energy_of_all_directions_is_followed_better_by_its_true_gradients(monkeypatch):
    polished, store = trained()
    assert polished.polished > 0
    assert store.spending.units <= 4096
    assert sum(map(len, polished.evaluations)) == store.spending.forward
    assert abs(polished.fit.log_z - Everywhere().log_z) < 0.05 + 4 * polished.fit.log_z_error
    monkeypatch.setattr(training, "SMOOTH", 0.0)
    other, _ = trained()
    assert other.polished == 0
    assert polished.fit.kl_gap < other.fit.kl_gap


def trained():
    generator, (objective, outputs) = Pixels(), objective_of(Everywhere())
    store = EvaluationStore(generator, outputs, batch=64)
    trainer = training.Trainer(generator, store, objective, FlowConfig(blocks=3, hidden=32), 1)
    return trainer.train(4096, fit_samples=512), store
