"""The loop: control the generator, measure the resulting bias and train against it until it is gone.

It is `promptgen run`, and the stage `debias` of dvc.yaml.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("run")

from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from pipelines.loop import Loop
from pipelines.tasks import confirm, estimate_bias, evaluate, fit_moments, sample, train_flow
from promptgen.records import Confirmation
from steps.shared.common import Project


def _run_name() -> str:
    parameters = flow_run.parameters
    return Project.load(parameters["params_path"], parameters["experiment"]).params.experiment


@flow(name="debias", flow_run_name=_run_name)
def debias(params_path: str = "params.yaml", experiment: str | None = None) -> dict[str, Any]:
    """Run the loop of an experiment, or the rest of it.

    For each pass: fit the moments, train a flow, sample, evaluate, estimate the bias and decide. If no flow is to be
    trained against the bias, the loop ends by fitting the moments of the next pass. If a count has ended the loop, the
    last pass is counted again on fresh samples; this confirming count decides nothing.

    Args:
        params_path: file of the experiment.
        experiment: name of a ready-made experiment, which replaces the file.

    Returns:
        `stopped` (why), `passes` (how many), `metrics` (the file with all figures).
    """
    with Loop(Project.load(params_path, experiment)) as loop:
        for run_pass in loop.passes():
            with loop.tracked(run_pass) as run:
                if run_pass.kind == "debias":
                    fit_moments(run_pass, run)
                if run_pass.kind != "generator":
                    train_flow(run_pass, run)
                sample(run_pass, run)
                evaluate(run_pass, run)
                stop = estimate_bias(run_pass, run)["result"]["stop"]
                if stop and run_pass.params.only_fits:
                    fit_moments(run_pass.after, run)
                if stop and run_pass.params.stops_by_count:
                    again = confirm(run_pass, run)["result"]["confirmation"]
                    run.confirmation = Confirmation.parse(again, "the confirming count")
            if stop:
                break
        return loop.finish(run_pass, stop)
