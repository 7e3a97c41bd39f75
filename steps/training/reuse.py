"""Training on evaluations that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from promptgen.energies.base import Energy, WeightedSum
from promptgen.energies.moment import MomentEnergy
from promptgen.evaluations.budget import budget_units
from promptgen.evaluations.config import ReuseConfig
from promptgen.evaluations.evaluator import Evaluator, Request
from promptgen.evaluations.landing import Target
from promptgen.evaluations.objective import (
    Objective,
    Reader,
    classifier_reader,
    control_objective,
    moment_objective,
    without_gradient,
)
from promptgen.evaluations.store import Evaluations, EvaluationStore, Spending
from promptgen.evaluations.training import Trainer
from promptgen.labels import classes, target_shares
from promptgen.networks.distributed import from_first, is_first
from promptgen.networks.micro_batches import MicroBatches, given, memory_of
from promptgen.tracking import Tracker
from steps.shared.common import Pass, Result
from steps.shared.evaluations import (
    classifier_output,
    energy_outputs,
    list_evaluations,
    listed_evaluations,
    log_reuse,
    open_store,
)
from steps.shared.manifest import StepFolder
from steps.shared.recipes import PassRecipe
from steps.training.diversity import fitted_inputs
from steps.training.plan import Plan, Trained, plan_of


@dataclass(frozen=True)
class TrainingRecipe(PassRecipe[Request, dict[str, Tensor]]):
    """Makes the evaluator that the flow of a pass is trained with."""

    def inputs(self) -> Mapping[str, str]:
        """Return the sha256 of the multipliers or of the fitted energies, if there are any."""
        return plan_of(self.run_pass).inputs | fitted_inputs(self.run_pass)

    def build(self) -> Evaluator:
        """Return the generator and what reads its images."""
        plan = plan_of(self.run_pass)
        energy, _ = plan.build()
        objective, outputs = training_objective(self.run_pass, energy)
        generator, features = Pass(self.run_pass.project, 0).generator(), {objective.name: objective.features}
        batches = MicroBatches(given(plan.training.micro_batch), memory_of(generator.prior.scale.device))
        return Evaluator(generator, outputs, features, self.run_pass.params.seed, batches)


def train_on_evaluations(
    run_pass: Pass, plan: Plan, folder: StepFolder, spending: Spending, tracker: Tracker
) -> Trained:
    """Train the flow of a pass; a killed run finds its evaluations in the store.

    Arguments as of `steps.training.on_policy.train_on_policy`.
    """
    assert isinstance(plan.training, ReuseConfig)
    params, generator = run_pass.params, run_pass.before.generator()
    energy, _ = plan.build()
    objective, outputs = training_objective(run_pass, energy)
    store = open_store(
        run_pass,
        generator,
        outputs,
        step="train_flow",
        batch=given(plan.training.micro_batch),
        recipe=TrainingRecipe(run_pass),
        spending=spending,
    )
    like = generator.prior.scale
    trainer = Trainer(
        generator,
        store,
        objective,
        params.flow,
        run_pass.seed,
        condition=plan.condition,
        target=_target(run_pass, energy),
        earlier=from_first(lambda: _earlier(run_pass, store, like)),
        tracker=tracker,
    )
    budget, before = plan.training.budget, spending.units
    units = from_first(lambda: budget_units(budget, store, trainer.start, folder.state))
    training = trainer.train(units, goal=plan.training.ess, fit_samples=params.evaluation.fit_samples)
    log_reuse(store)
    if is_first():
        list_evaluations(folder, training.evaluations)
    result: Result = {
        "fit": training.fit.as_dict(params.evaluation.confidence),
        "reuse": {
            "units": spending.units,
            "budget": before + units,
            "used": sum(map(len, training.evaluations)),
            "surrogate_error": training.surrogate_error,
            "expected_ess": training.expected_ess,
            "polished": training.polished,
            "rank": None if training.flow.directions is None else training.flow.directions.shape[1],
            "given_away": training.given_away.as_dict() if training.given_away else None,
        },
        "seconds": training.seconds,
        "generator_evaluations": {"forward": spending.forward, "backward": spending.backward},
    }
    if isinstance(energy, MomentEnergy):
        beta = (-training.objective.coefficients / energy.weight).tolist()
        result["beta"] = dict(zip(energy.names, beta, strict=True))
    return training.flow, training.history, result


def training_objective(run_pass: Pass, energy: Energy) -> tuple[Objective, dict[str, Reader]]:
    """Return what a flow is trained for, and what is read of each image for it and for later passes."""
    params, debias, name = run_pass.params, run_pass.params.debias, classifier_output(run_pass)
    if isinstance(energy, MomentEnergy):
        return moment_objective(energy, name, differentiable=debias.classifier.differentiable)
    assert params.control is not None
    assert isinstance(energy, WeightedSum)
    differentiable = all(spec.differentiable for spec in params.control.energies.values())
    objective, outputs = control_objective(
        energy, energy_outputs(run_pass, params.control), differentiable=differentiable
    )
    if params.stops_by_count and isinstance(debias.training, ReuseConfig):
        classifier = run_pass.project.classifier()
        outputs = {**outputs, name: without_gradient(classifier_reader(classifier))}
    return objective, outputs


def _target(run_pass: Pass, energy: Energy) -> Target | None:
    """Return the target shares of a de-biasing pass."""
    if not isinstance(energy, MomentEnergy):
        return None
    debias = run_pass.params.debias
    labels = classes(energy.classifier.attributes, debias.attribute)
    return Target(target_shares(labels, debias.shares), debias.features)


def _earlier(run_pass: Pass, store: EvaluationStore, like: Tensor) -> list[Evaluations]:
    """Return the evaluations of the passes before, and of the multipliers' fit."""
    if run_pass.kind != "debias":
        return []
    trained = listed_evaluations(run_pass.before, "train_flow", store, like) if run_pass.number > 1 else []
    kept = {address for part in trained for address in part.addresses}
    fitted = listed_evaluations(run_pass, "fit_moments", store, like)
    return [*trained, *(part for part in fitted if not kept & set(part.addresses))]
