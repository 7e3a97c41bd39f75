"""What of the parameters of a run the report talks about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from promptgen.reporting.text.formats import class_name, listing

ASKED = {"pose": "a given pose", "identity": "the same face whatever the condition"}
"""What the energies that have no words of their own ask for."""


@dataclass(frozen=True)
class Settings:
    """What of the parameters the report talks about.

    Args:
        asked: what the control asks for, in words; empty without a control.
        classifier: model that took part in training.
        judge: model that only counted; None when the classifier is all there is.
        seed: root of every random stream of the run.
        confidence: of every interval, in (0, 1).
        bootstrap: resamples behind the intervals that are not of a share.
        fit_samples: fresh samples from which each fit was estimated.
        moment_bootstrap: resamples behind the intervals of multipliers; 0 for none.
        debias: what was asked of de-biasing: to train flows, to fit multipliers alone, or nothing but to measure.
        yaml: all parameters, as they were resolved.
        condition: the range of each coordinate that the control's flow is told, in the order of a sweep's columns.
        judge_steers: whether the judge took part in training as well, so that it is none.
    """

    asked: str
    classifier: str
    judge: str | None
    seed: int
    confidence: float
    bootstrap: int
    fit_samples: int
    moment_bootstrap: int
    debias: Literal["train", "fit", "measure"]
    yaml: str
    condition: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    judge_steers: bool = False

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Settings:
        """Pick the settings from resolved parameters, given as plain mappings."""
        debias, evaluation = params["debias"], params["evaluation"]
        energies = params["control"]["energies"] if params["control"] else {}
        return cls(
            asked=listing([_asked(name, energy) for name, energy in energies.items()]),
            classifier=_model_name(debias["classifier"]),
            judge=_model_name(debias["judge"]) if debias.get("judge") else None,
            seed=params["seed"],
            confidence=evaluation["confidence"],
            bootstrap=evaluation["bootstrap"],
            fit_samples=evaluation["fit_samples"],
            moment_bootstrap=debias.get("bootstrap", 0),
            debias=_asked_of(debias),
            yaml=yaml.safe_dump(dict(params), sort_keys=False, allow_unicode=True, width=100),
            condition=dict(sorted(((params["control"] or {}).get("condition") or {}).items())),
            judge_steers=_steers(debias.get("judge"), debias, energies.values()),
        )


def _asked(name: str, energy: Mapping[str, Any]) -> str:
    """Return what an energy asks for: its text, its classes, a pose, or how it is called in the parameters."""
    if "text" in energy:
        return f"“{energy['text']}”"
    if energy.get("type") in ASKED:
        return ASKED[energy["type"]]
    return listing([class_name(*wanted) for wanted in energy.get("labels", {}).items()]) or name


def _asked_of(debias: Mapping[str, Any]) -> Literal["train", "fit", "measure"]:
    if debias.get("max_passes") == 0:
        return "measure"
    return "fit" if debias.get("training", {}) is None else "train"


def _steers(judge: Any, debias: Mapping[str, Any], energies: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether the judge is the classifier that flows are de-biased with, or a model of the control."""
    if judge is None:
        return False
    model = judge.get("model") if isinstance(judge, Mapping) else judge
    asked = any(judge == energy.get("classifier") or model in energy.get("models", {}) for energy in energies)
    return asked or (_asked_of(debias) == "train" and judge == debias["classifier"])


def _model_name(spec: str | Mapping[str, Any]) -> str:
    """Return how a model is called: the name of its card, or the factory of a user's own."""
    if isinstance(spec, str):
        return spec
    if "classifiers" in spec:
        return listing([_model_name(part) for part in spec["classifiers"]])
    return str(spec.get("model") or spec["factory"])
