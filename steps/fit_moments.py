"""Fit the multipliers that would bring an attribute to its target shares, on samples of the pass before."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("step", "fit_moments")

import torch

from promptgen.config.build import build_classifier, identities
from promptgen.errors import ConfigError
from promptgen.files import write_json
from promptgen.flows.sampling import generate
from promptgen.labels import classes, feature_names, features, target_shares
from promptgen.moments.multipliers import fit_moments
from promptgen.tracking import Tracker
from steps.shared.common import Pass, Result
from steps.shared.manifest import StepFolder

MOMENTS_NAME = "moments.json"


def run(run_pass: Pass, tracker: Tracker) -> Result:
    """Fit the multipliers and write them to moments.json, with the intervals and the cost of the tilt.

    Raises:
        ConfigError: the pass is no de-biasing one, or the target does not fit the classifier's labels.
        InfeasibleTargetError: no tilt of the samples reaches the target.
    """
    if run_pass.kind != "debias":
        raise ConfigError(
            f"pass {run_pass.number} is no de-biasing pass; these start at {run_pass.params.first_debias_pass}"
        )
    debias = run_pass.params.debias
    chosen = debias.model_dump(include={"attribute", "target", "features", "samples", "ess_floor", "bootstrap"})
    batch, confidence = run_pass.params.evaluation.batch, run_pass.params.evaluation.confidence
    params = {**chosen, "seed": run_pass.params.seed, "batch": batch, "confidence": confidence}
    inputs = run_pass.before.generator_inputs() | identities([debias.classifier], run_pass.project.models)
    return run_pass.step("fit_moments", params, inputs, lambda folder: _fit(run_pass, folder, tracker))


def _fit(run_pass: Pass, folder: StepFolder, tracker: Tracker) -> Result:
    debias, evaluation = run_pass.params.debias, run_pass.params.evaluation
    classifier = run_pass.project.placed(build_classifier(debias.classifier, run_pass.project.models))
    target = target_shares(classes(classifier.attributes, debias.attribute), debias.target)
    seen: list[torch.Tensor] = []
    samples = generate(
        run_pass.before.generator(), debias.samples, seed=run_pass.seed, stream="moments", batch=evaluation.batch
    )
    with torch.inference_mode():
        for _, image in samples:
            seen.append(features(classifier(image), [debias.attribute], debias.features).cpu())
            tracker.progress(sum(map(len, seen)), debias.samples, "moments")
    fit = fit_moments(
        torch.cat(seen).double().numpy(),
        target,
        names=feature_names(classifier.attributes, [debias.attribute]),
        ess_floor=debias.ess_floor,
        bootstrap=debias.bootstrap,
        confidence=evaluation.confidence,
        seed=run_pass.seed,
    )
    write_json(folder.path / MOMENTS_NAME, fit.as_dict())
    return {**fit.as_dict(), "generator_evaluations": {"forward": debias.samples, "backward": 0}}
