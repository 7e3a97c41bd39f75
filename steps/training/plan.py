"""What the flow of a pass is trained for: the energies of a control, or the target shares of an attribute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from promptgen.conditions import Condition
from promptgen.config.build import identities
from promptgen.config.params import Control
from promptgen.energies.base import Energy
from promptgen.energies.moment import MomentEnergy
from promptgen.errors import ConfigError
from promptgen.evaluations.config import ReuseConfig
from promptgen.files import read_json
from promptgen.flows.config import TrainingConfig
from promptgen.flows.flow import Flow
from promptgen.labels import classes, feature_names, target_shares
from promptgen.moments.ascent import MomentAscent
from steps.shared.common import MOMENTS_NAME, Pass, Result
from steps.shared.manifest import StepFolder
from steps.training.diversity import build_fitted

Trained = tuple[Flow, list[dict[str, float]], Result]
"""A flow, the history of its training, and the result of the step."""


@dataclass(frozen=True)
class Plan:
    """The goal and the method of training the flow of a pass.

    Attributes:
        training: the method and its parameters.
        params: parameters of the goal.
        inputs: sha256 of the files that the goal depends on.
        build: builds the energy, and what changes its multipliers during training (None if nothing does).
        condition: condition of the flow.
    """

    training: ReuseConfig | TrainingConfig
    params: dict[str, Any]
    inputs: dict[str, str]
    build: Callable[[], tuple[Energy, MomentAscent | None]]
    condition: Condition = field(default_factory=Condition)


def plan_of(run_pass: Pass) -> Plan:
    """Return the plan of the training of a pass, by params.yaml.

    Raises:
        ConfigError: pass 0 is asked for, no flow is wanted, or a model is unknown.
        DataError: an earlier step has not been run.
    """
    if run_pass.kind == "generator":
        raise ConfigError("pass 0 is the generator alone and trains no flow; the first flow belongs to pass 1")
    control = run_pass.params.control
    return _control(run_pass, control) if run_pass.kind == "control" and control else _debias(run_pass)


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


def _control(run_pass: Pass, control: Control) -> Plan:
    return Plan(
        training=control.training,
        params={
            "energies": {name: spec.model_dump() for name, spec in control.energies.items()},
            "condition": dict(control.box.ranges),
        },
        inputs=identities(control.energies.values(), run_pass.project.models),
        build=lambda: (build_fitted(run_pass), None),
        condition=control.box,
    )


def _debias(run_pass: Pass) -> Plan:
    debias, moments = run_pass.params.debias, run_pass.folder("fit_moments") / MOMENTS_NAME
    training = debias.training
    if training is None:
        raise ConfigError("debias.training is null: the multipliers are fitted and no flow is trained with them")

    def build() -> tuple[Energy, MomentAscent | None]:
        classifier = run_pass.project.classifier()
        fitted = read_json(moments)["beta"]  # JSON sorts its keys, so they are looked up by name
        beta = [fitted[name] for name in feature_names(classifier.attributes, (debias.attribute,))]
        energy = run_pass.project.placed(
            MomentEnergy(classifier, debias.attribute, beta, debias.weight, debias.features)
        )
        if debias.dual is None:
            return energy, None
        target = target_shares(classes(classifier.attributes, debias.attribute), debias.shares)
        return energy, MomentAscent(energy, target, steps=training.steps, config=debias.dual)

    return Plan(
        training=training,
        params=debias.model_dump(include={"attribute", "target", "classifier", "features", "dual", "weight"}),
        inputs=identities([debias.classifier], run_pass.project.models) | {MOMENTS_NAME: run_pass.sha256(moments)},
        build=build,
    )
