"""Estimate the bias that a pass has brought or left, and decide whether the loop goes on."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("step", "estimate_bias")

from promptgen.files import write_json
from promptgen.metrics.bias import Bias
from promptgen.metrics.shares import share_difference
from promptgen.tracking import Tracker
from steps.measuring.counting import judged
from steps.sample import SAMPLES_NAME, load_samples
from steps.shared.common import Pass, Result
from steps.shared.manifest import StepFolder

BIAS_NAME = "bias.json"

REACHED = "interval contains the target"
EXHAUSTED = "maximum of passes reached"
MEASURED = "only measuring was asked for"
FITTED = "only fitting the multipliers was asked for"


def run(this: Pass, tracker: Tracker) -> Result:
    """Write bias.json: the judge's figures, how far the shares have moved since pass 0, and the verdict.

    What moved between pass 0 and the control's pass, though nobody asked for it, is the bias that the control brought.

    Raises:
        DataError: this pass or pass 0 has not been sampled yet.
    """
    debias, evaluation = this.params.debias, this.params.evaluation
    params = {
        "seed": this.seed,
        "kind": this.kind,
        "last": this.params.last_measured_pass,
        "only_fits": this.params.only_fits,
        **debias.model_dump(include={"attribute", "target"}),
        **evaluation.model_dump(include={"confidence", "bootstrap"}),
    }
    passes = {"first": Pass(this.project, 0), "this": this}
    inputs = {name: each.sha256(each.folder("sample") / SAMPLES_NAME) for name, each in passes.items()}
    return this.step("estimate_bias", params, inputs, lambda folder: _estimate(this, folder))


def _estimate(this: Pass, folder: StepFolder) -> Result:
    labels, now, first = list(this.params.debias.target), _judged(this), _judged(Pass(this.project, 0))
    moved = list(map(share_difference, now.shares, first.shares)) if this.number else []
    found = {
        "attribute": this.params.debias.attribute,
        "shares": {label: share.as_dict() for label, share in zip(labels, now.shares, strict=True)},
        "moved": {label: change.as_dict() for label, change in zip(labels, moved, strict=False)},
        "kl": now.kl.as_dict(),
        "total_variation": now.total_variation.as_dict(),
        "discrepancy": now.discrepancy.as_dict(),
        "noise_floor": now.noise_floor,
        "contains_target": now.contains_target,
        "stop": decide(this, now.contains_target),
    }
    write_json(folder.path / BIAS_NAME, found)
    return found


def decide(this: Pass, contains_target: bool) -> str | None:
    """Say why the loop stops after this pass, or None to go on.

    Args:
        this: the pass.
        contains_target: whether the judge's interval of every share contains its target.
    """
    if this.number == 0 and this.params.control:
        return None  # what is asked for has not been trained yet
    if this.params.only_fits:
        return FITTED
    if this.params.debias.max_passes == 0:
        return MEASURED
    if contains_target:
        return REACHED
    return EXHAUSTED if this.number >= this.params.last_pass else None


def _judged(this: Pass) -> Bias:
    """Return the judge's figures of a pass, labels in the order of the target."""
    return judged(this, *load_samples(this.folder("sample")))
