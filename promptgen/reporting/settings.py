"""The parameters of a run that the report mentions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import yaml

from promptgen.config.debias import Debias
from promptgen.config.params import Params
from promptgen.words import listing


@dataclass(frozen=True)
class Settings:
    """The parameters that the report mentions.

    Args:
        asked: the request of the control, in words; empty without a control.
        classifier: name of the classifier that steered training.
        judge: name of the classifier whose counts decided.
        seed: seed of every random stream of the run.
        confidence: confidence level of every interval, in (0, 1).
        bootstrap: resamples for the intervals that have no closed form.
        fit_samples: fresh samples from which each fit was estimated.
        moment_bootstrap: resamples for the intervals of multipliers; 0 for none.
        debias: the task of de-biasing: train flows, fit multipliers only, or measure only.
        yaml: all parameters, with defaults filled in.
        condition: range of each coordinate of the control's condition, in the order of a sweep's columns.
        judge_steers: whether the judge took part in training, so that its counts are not independent.
    """

    asked: str
    classifier: str
    judge: str
    seed: int
    confidence: float
    bootstrap: int
    fit_samples: int
    moment_bootstrap: int
    debias: Literal["train", "fit", "measure"]
    yaml: str
    condition: Mapping[str, tuple[float, float]]
    judge_steers: bool

    @classmethod
    def of(cls, params: Params) -> Settings:
        """Return the settings of an experiment."""
        debias, evaluation = params.debias, params.evaluation
        energies = params.control.energies if params.control else {}
        content = params.model_dump(mode="json", exclude={"world"})
        return cls(
            asked=listing([spec.asks_for(name) for name, spec in energies.items()]),
            classifier=debias.classifier.describe(),
            judge=debias.judge.describe(),
            seed=params.seed,
            confidence=evaluation.confidence,
            bootstrap=evaluation.bootstrap,
            fit_samples=evaluation.fit_samples,
            moment_bootstrap=debias.bootstrap,
            debias=_purpose(debias),
            yaml=yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100),
            condition=dict(params.condition.ranges),
            judge_steers=_judge_steers(params),
        )


def _purpose(debias: Debias) -> Literal["train", "fit", "measure"]:
    if debias.max_passes == 0:
        return "measure"
    return "fit" if debias.training is None else "train"


def _judge_steers(params: Params) -> bool:
    """Return whether flows were trained with the judge, by the control or by de-biasing."""
    judge, debias = params.debias.judge, params.debias
    if _purpose(debias) == "train" and judge == debias.classifier:
        return True
    energies = params.control.energies.values() if params.control else ()
    return any(
        judge in energy.parts() or (judge.cards() and set(judge.cards()) <= set(energy.cards()))
        for composed in energies
        for energy in composed.simple()
    )
