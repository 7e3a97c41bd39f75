"""Train the flow of a pass: towards the control's energies, or towards the target shares of an attribute."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("step", "train_flow")

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from promptgen.conditions import Condition
from promptgen.config.build import build_classifier, build_energies, identities
from promptgen.config.params import Control
from promptgen.energies.base import Energy, WeightedSum
from promptgen.energies.moment import MomentEnergy
from promptgen.errors import ConfigError
from promptgen.evaluations.budget import budget_units
from promptgen.evaluations.config import ReuseConfig
from promptgen.evaluations.landing import Target
from promptgen.evaluations.objective import (
    Objective,
    Reader,
    classifier_reader,
    control_objective,
    moment_objective,
    without_gradient,
)
from promptgen.evaluations.store import Evaluations, EvaluationStore
from promptgen.evaluations.training import Trainer
from promptgen.files import read_json, write_json
from promptgen.flows.chain_file import load_chain, save_chain
from promptgen.flows.flow import Flow
from promptgen.flows.training import TrainingConfig, train_flow
from promptgen.labels import classes, feature_names, target_shares
from promptgen.moments.ascent import MomentAscent
from promptgen.tracking import Tracker
from steps.fit_moments import MOMENTS_NAME
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

HISTORY_NAME = "history.json"


@dataclass(frozen=True)
class Plan:
    """What one kind of pass trains for.

    Attributes:
        training: how.
        params: the parameters that matter to this kind.
        inputs: sha256 of the files that matter to this kind.
        build: makes the energy, and what moves it during training.
        condition: what the flow is told besides its noise.
    """

    training: ReuseConfig | TrainingConfig
    params: dict[str, Any]
    inputs: dict[str, str]
    build: Callable[[], tuple[Energy, MomentAscent | None]]
    condition: Condition = field(default_factory=Condition)


def run(run_pass: Pass, tracker: Tracker) -> Result:
    """Train the flow; write the chain of all flows so far and the history of the training.

    A run that was killed goes on from its last state and ends with the same numbers.

    Raises:
        ConfigError: pass 0 is asked for, no flow is wanted, or a label is unknown to a classifier.
        NonFiniteEnergyError: an energy became NaN or infinite.
        DataError: an earlier step has not been run.
    """
    plan = plan_of(run_pass)
    params = {
        "seed": run_pass.seed,
        "generator": run_pass.params.generator.model_dump(),
        "flow": run_pass.params.flow.model_dump(),
        "training": plan.training.model_dump(),
        "fit_samples": run_pass.params.evaluation.fit_samples,
        **plan.params,
    }
    inputs = run_pass.before.generator_inputs() | plan.inputs
    return run_pass.step("train_flow", params, inputs, lambda folder: _train(run_pass, plan, folder, tracker))


def trained_energy(run_pass: Pass) -> Energy:
    """Return the energy, nats, that the flow of a pass was trained for; multipliers that moved are where they ended.

    It is that of the present params.yaml; `steps.drawing.purpose.check_purpose` tells whether the flow was trained for
    it.

    Raises:
        ConfigError: pass 0 is asked for, no flow is wanted, or a label is unknown to a classifier.
        ModelFileError: a weight file is missing or damaged.
        DataError: the flow has not been trained yet.
    """
    energy, _ = plan_of(run_pass).build()
    if isinstance(energy, MomentEnergy):
        moved = StepFolder(run_pass.folder("train_flow"), "").result().get("beta")
        if moved is not None:
            energy.set_beta([moved[name] for name in energy.names])
    return energy


def plan_of(run_pass: Pass) -> Plan:
    """Return what the flow of a pass is trained for by params.yaml, and how.

    Raises:
        ConfigError: pass 0 is asked for, no flow is wanted, or a model is unknown.
        DataError: an earlier step has not been run.
    """
    if run_pass.kind == "generator":
        raise ConfigError("pass 0 is the generator as it is, and trains nothing; the first flow is that of pass 1")
    control = run_pass.params.control
    return _control(run_pass, control) if run_pass.kind == "control" and control else _debias(run_pass)


def _control(run_pass: Pass, control: Control) -> Plan:
    return Plan(
        training=control.training,
        params={
            "energies": {name: spec.model_dump() for name, spec in control.energies.items()},
            "condition": dict(control.box.ranges),
        },
        inputs=identities(control.energies.values(), run_pass.project.models),
        build=lambda: (
            run_pass.project.placed(build_energies(control.energies, run_pass.project.models, control.box.names)),
            None,
        ),
        condition=control.box,
    )


def _debias(run_pass: Pass) -> Plan:
    debias, moments = run_pass.params.debias, run_pass.folder("fit_moments") / MOMENTS_NAME
    training = debias.training
    if training is None:
        raise ConfigError("debias.training is null: the multipliers are fitted and no flow is trained with them")

    def build() -> tuple[Energy, MomentAscent | None]:
        classifier = build_classifier(debias.classifier, run_pass.project.models)
        fitted = read_json(moments)["beta"]  # JSON sorts its keys, so they are looked up by name
        beta = [fitted[name] for name in feature_names(classifier.attributes, (debias.attribute,))]
        energy = run_pass.project.placed(
            MomentEnergy(classifier, debias.attribute, beta, debias.weight, debias.features)
        )
        if debias.dual is None:
            return energy, None
        target = target_shares(classes(classifier.attributes, debias.attribute), debias.target)
        return energy, MomentAscent(energy, target, steps=training.steps, config=debias.dual)

    return Plan(
        training=training,
        params=debias.model_dump(include={"attribute", "target", "classifier", "features", "dual", "weight"}),
        inputs=identities([debias.classifier], run_pass.project.models) | {MOMENTS_NAME: run_pass.sha256(moments)},
        build=build,
    )


def _train(run_pass: Pass, plan: Plan, folder: StepFolder, tracker: Tracker) -> Result:
    params = run_pass.params
    trained = _reuse if isinstance(plan.training, ReuseConfig) else _on_policy
    flow, history, result = trained(run_pass, plan, folder, tracker)
    earlier = load_chain(run_pass.before.chain).flows if run_pass.number > 1 else []
    info = {"experiment": params.experiment, "pass": run_pass.number, "kind": run_pass.kind}
    save_chain(folder.path / run_pass.chain.name, [*earlier, flow], params.generator.model_dump(), info)
    write_json(folder.path / HISTORY_NAME, history)
    return result


Trained = tuple[Flow, list[dict[str, float]], Result]
"""A flow, the history of its training, and what the step found out."""


def _on_policy(run_pass: Pass, plan: Plan, folder: StepFolder, tracker: Tracker) -> Trained:
    """Train on the flow's own samples, each of which is used once."""
    assert isinstance(plan.training, TrainingConfig)
    params, generator = run_pass.params, run_pass.before.generator()
    energy, multipliers = plan.build()
    flow = Flow(generator.prior.dim, params.flow, plan.condition, scale=generator.prior.scale, seed=run_pass.seed)
    training = train_flow(
        generator,
        energy,
        run_pass.project.placed(flow),
        plan.training,
        seed=run_pass.seed,
        state_dir=folder.state,
        tracker=tracker,
        multipliers=multipliers,
        fit_samples=params.evaluation.fit_samples,
    )
    result: Result = {"fit": training.fit.as_dict(params.evaluation.confidence), "best_step": training.best_step}
    if multipliers is not None:
        result["beta"] = dict(zip(multipliers.energy.names, multipliers.beta.tolist(), strict=True))
    result |= {"seconds": training.seconds, "generator_evaluations": training.evaluations}
    return training.flow, training.history, result


def _reuse(run_pass: Pass, plan: Plan, folder: StepFolder, tracker: Tracker) -> Trained:
    """Train on evaluations that are kept; a run that was killed finds those that it had made."""
    assert isinstance(plan.training, ReuseConfig)
    params, generator = run_pass.params, run_pass.before.generator()
    energy, _ = plan.build()
    objective, outputs = _objective(run_pass, energy)
    store = open_store(run_pass, generator, outputs, step="train_flow", batch=plan.training.micro_batch)
    like = generator.prior.scale
    trainer = Trainer(
        generator,
        store,
        objective,
        params.flow,
        run_pass.seed,
        condition=plan.condition,
        target=_target(run_pass, energy),
        earlier=_earlier(run_pass, store, like),
        tracker=tracker,
    )
    units = budget_units(plan.training.budget, store, trainer.start, folder.state)
    training = trainer.train(units, goal=plan.training.ess, fit_samples=params.evaluation.fit_samples)
    log_reuse(store)
    list_evaluations(folder, training.evaluations)
    spending = store.spending
    result: Result = {
        "fit": training.fit.as_dict(params.evaluation.confidence),
        "reuse": {
            "units": spending.units,
            "budget": units,
            "used": sum(map(len, training.evaluations)),
            "surrogate_error": training.surrogate_error,
            "expected_ess": training.expected_ess,
        },
        "seconds": training.seconds,
        "generator_evaluations": {"forward": spending.forward, "backward": spending.backward},
    }
    if isinstance(energy, MomentEnergy):
        beta = (-training.objective.coefficients / energy.weight).tolist()
        result["beta"] = dict(zip(energy.names, beta, strict=True))
    return training.flow, training.history, result


def _objective(run_pass: Pass, energy: Energy) -> tuple[Objective, dict[str, Reader]]:
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
        classifier = run_pass.project.placed(build_classifier(debias.classifier, run_pass.project.models))
        outputs = {**outputs, name: without_gradient(classifier_reader(classifier))}
    return objective, outputs


def _target(run_pass: Pass, energy: Energy) -> Target | None:
    """Return the target shares of a de-biasing pass."""
    if not isinstance(energy, MomentEnergy):
        return None
    debias = run_pass.params.debias
    labels = classes(energy.classifier.attributes, debias.attribute)
    return Target(target_shares(labels, debias.target), debias.features)


def _earlier(run_pass: Pass, store: EvaluationStore, like: Tensor) -> list[Evaluations]:
    """Return the evaluations of the passes before, and of the multipliers' fit."""
    if run_pass.kind != "debias":
        return []
    trained = listed_evaluations(run_pass.before, "train_flow", store, like) if run_pass.number > 1 else []
    known = {address for part in trained for address in part.addresses}
    fitted = listed_evaluations(run_pass, "fit_moments", store, like)
    return [*trained, *(part for part in fitted if not known & set(part.addresses))]
