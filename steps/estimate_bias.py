"""Estimate the bias that a pass introduced or left, and decide whether the loop continues."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("step", "estimate_bias")

from promptgen.config.params import Params
from promptgen.metrics.comparison import change_between
from promptgen.records import Count, Verdict
from promptgen.tracking import Tracker
from steps.measuring.counting import resampling
from steps.measuring.records import evaluation_fingerprint, measurement
from steps.shared.common import Pass, Result

REACHED = "interval contains the target"
EXHAUSTED = "maximum of passes reached"
MEASURED = "only measuring was asked for"
FITTED = "only fitting the multipliers was asked for"


def run(run_pass: Pass, tracker: Tracker) -> Result:
    """Compare a pass with the first one, the control's and the one before, and decide whether the loop continues.

    Unrequested changes between pass 0 and the control's pass are the bias that the control introduced.

    Returns:
        As of every step; its result is that of `promptgen.records.Verdict`.

    Raises:
        DataError: one of these passes has not been evaluated yet.
    """
    debias, evaluation = run_pass.params.debias, run_pass.params.evaluation
    params = {
        "seed": run_pass.params.seed,
        "control": run_pass.params.control is not None,
        "last": run_pass.params.last_pass,
        "only_fits": run_pass.params.only_fits,
        **debias.model_dump(include={"attribute", "target", "max_passes"}),
        **evaluation.model_dump(include={"confidence", "bootstrap"}),
    }
    inputs = {
        f"evaluate {number}": evaluation_fingerprint(Pass(run_pass.project, number)) for number in _compared(run_pass)
    }
    inputs["evaluate"] = evaluation_fingerprint(run_pass)
    return run_pass.step("estimate_bias", params, inputs, lambda _: _verdict(run_pass).as_dict())


def _compared(run_pass: Pass) -> list[int]:
    """Return the numbers of the passes that a pass is compared with: the first, the control's, and the one before."""
    control = 1 if run_pass.params.control else 0
    return sorted({number for number in (0, control, run_pass.number - 1) if 0 <= number < run_pass.number})


def _verdict(run_pass: Pass) -> Verdict:
    record = measurement(run_pass)
    # Comparisons are resampled with the experiment's seed, since they belong to two passes.
    options = resampling(run_pass, seed=run_pass.params.seed)
    return Verdict(
        changes=[
            change_between(measurement(Pass(run_pass.project, number)), record, **options)
            for number in _compared(run_pass)
        ],
        contains_target=record.contains_target,
        stop=decide(record, run_pass.params),
    )


def decide(count: Count, params: Params) -> str | None:
    """Return why the loop stops after a pass, or None if it continues.

    Args:
        count: the count of the pass.
        params: the experiment; its control, `debias.max_passes` and `debias.training` determine its passes.
    """
    if count.number == 0 and params.control:
        return None  # the control has not been trained yet
    if params.only_fits:
        return FITTED
    if params.debias.max_passes == 0:
        return MEASURED
    if count.contains_target:
        return REACHED
    return EXHAUSTED if count.number >= params.last_pass else None
