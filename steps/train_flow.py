"""Train the flow of a pass: towards the control's energies, or towards the target shares of an attribute."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("step", "train_flow")

import time
from typing import Any

from promptgen.evaluations.config import ReuseConfig
from promptgen.files import write_json
from promptgen.flows.chain_file import load_chain, save_chain
from promptgen.flows.latent_sampler import LATENTS_NAME
from promptgen.networks.distributed import is_first
from promptgen.tracking import Tracker
from steps.shared.common import Pass, Result
from steps.shared.manifest import StepFolder
from steps.training.diversity import fit_energies
from steps.training.on_policy import train_on_policy
from steps.training.plan import Plan, plan_of
from steps.training.reuse import train_on_evaluations

HISTORY_NAME = "history.json"


def run(run_pass: Pass, tracker: Tracker) -> Result:
    """Train the flow; write the chain of all flows so far and the history of the training.

    A killed run resumes from its last state and ends with the same numbers. Processes of torchrun train together
    and the first one writes.

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


def _train(run_pass: Pass, plan: Plan, folder: StepFolder, tracker: Tracker) -> Result:
    params = run_pass.params
    train = train_on_evaluations if isinstance(plan.training, ReuseConfig) else train_on_policy
    started = time.perf_counter()
    spending = fit_energies(run_pass, tracker)
    fitting = time.perf_counter() - started
    flow, history, result = train(run_pass, plan, folder, spending, tracker)
    result["seconds"] += fitting
    if not is_first():
        return result
    earlier = load_chain(run_pass.before.chain).flows if run_pass.number > 1 else []
    info: dict[str, Any] = {"experiment": params.experiment, "pass": run_pass.number, "kind": run_pass.kind}
    if form := params.generator.latent_form(run_pass.project.models):
        info[LATENTS_NAME] = form
    save_chain(folder.path / run_pass.chain.name, [*earlier, flow], params.generator.model_dump(), info)
    write_json(folder.path / HISTORY_NAME, history)
    return result
