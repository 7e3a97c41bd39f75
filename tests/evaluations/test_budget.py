"""Budgets: in images, in minutes, and how they are divided."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from promptgen.energies.base import Term, WeightedSum
from promptgen.evaluations.budget import TIMED, budget_units
from promptgen.evaluations.config import LEAST_BUDGET, ROUNDS, Allotment, Budget, Stage
from promptgen.evaluations.objective import control_objective
from promptgen.evaluations.proposal import Proposal
from promptgen.evaluations.store import EvaluationStore
from promptgen.evaluations.training import Trainer
from promptgen.flows.flow import FlowConfig
from tests.evaluations.small import Coordinates


def units_of(budget, state, generator=None):
    generator = generator or Coordinates()
    store = EvaluationStore(generator, {"sum@1": lambda sample: sample.image.flatten(1)})
    return budget_units(budget, store, Proposal(generator, 1), state), generator.images


def test_images_are_taken_as_they_are(tmp_path):
    assert units_of(Budget(images=777), tmp_path) == (777, 0)
    assert list(tmp_path.iterdir()) == []


def test_minutes_are_converted_once(tmp_path):
    """A run that was killed goes on with what it measured, however fast the machine is now."""
    first, timed = units_of(Budget(minutes=1.0), tmp_path / "state")
    assert first > LEAST_BUDGET
    assert timed > 0
    again, images = units_of(Budget(minutes=1.0), tmp_path / "state", Coordinates(fatal_call=1))
    assert (again, images) == (first, 0)


def test_timed_images_count_as_spent_even_after_a_kill(tmp_path):
    for generator in (Coordinates(), Coordinates(fatal_call=1)):
        store = EvaluationStore(generator, {"sum@1": lambda sample: sample.image.flatten(1)})
        budget_units(Budget(minutes=1.0), store, Proposal(generator, 1), tmp_path)
        assert store.spending.forward == TIMED


def test_more_minutes_allow_more_images(tmp_path):
    short, _ = units_of(Budget(minutes=0.1), tmp_path / "short")
    long, _ = units_of(Budget(minutes=100.0), tmp_path / "long")
    assert long > 10 * short


def test_the_least_budget_holds_for_minutes_too(tmp_path):
    assert units_of(Budget(minutes=1e-9), tmp_path) == (LEAST_BUDGET, units_of(Budget(minutes=1.0), tmp_path / "b")[1])


@pytest.mark.parametrize("bad", [{}, {"images": 1000, "minutes": 1}, {"images": 1}, {"minutes": 0}, {"image": 1000}])
def test_other_budgets_are_refused(bad):
    with pytest.raises(ValidationError):
        Budget(**bad)


@pytest.mark.parametrize("units", [LEAST_BUDGET, 1000, 4096, 100_001])
@pytest.mark.parametrize("differentiable", [True, False])
@pytest.mark.parametrize("lands", [True, False])
@pytest.mark.parametrize("fit", [30, 1024, 100_000])
def test_the_parts_cost_no_more_than_the_whole(units, differentiable, lands, fit):
    parts = Allotment.of(units, fit, differentiable=differentiable, lands=lands)
    spent = parts.explore.units + ROUNDS * parts.refine.units + parts.land + parts.fit
    assert units - 4 <= spent <= units
    assert min(len(parts.explore), len(parts.refine), parts.fit) > 0
    assert (parts.explore.gradients > 0) == (parts.refine.gradients > 0) == differentiable
    assert (parts.land > 0) == lands
    assert parts.fit == min(fit, units // 2)


def test_a_stage_costs_its_units():
    for stage in (Stage.of(1001, 0.5), Stage.of(1001, 0.0)):
        assert (stage.units, len(stage)) == (1001, stage.gradients + stage.values)
    assert Stage.of(1001, 0.5).dense() == Stage(333, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("directions", [1, 8])
def test_gradients_are_for_energies_that_depend_on_everything(directions):
    generator = Coordinates(8)

    def energy(sample):
        return sample.latent[:, :directions].square().sum(dim=1)

    objective, outputs = control_objective(WeightedSum({"it": Term(energy)}), {"it": "it@1"})
    store = EvaluationStore(generator, outputs)
    Trainer(generator, store, objective, FlowConfig(blocks=2, hidden=8), 1).train(1024, goal=0.999, fit_samples=256)
    spending = store.spending
    assert 1020 <= spending.units <= 1024
    if directions == 8:
        assert spending.forward == spending.backward + 256
    else:
        assert spending.backward == 64 + 2 * 16
