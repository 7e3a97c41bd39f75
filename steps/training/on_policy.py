"""Training on the flow's own samples, each of which is used once."""

from __future__ import annotations

from promptgen.evaluations.store import Spending
from promptgen.flows.config import TrainingConfig
from promptgen.flows.flow import Flow
from promptgen.flows.training import train_flow
from promptgen.generators.base import held_by
from promptgen.tracking import Tracker
from steps.shared.common import Pass, Result
from steps.shared.manifest import StepFolder
from steps.training.plan import Plan, Trained


def train_on_policy(run_pass: Pass, plan: Plan, folder: StepFolder, spending: Spending, tracker: Tracker) -> Trained:
    """Train the flow of a pass; a killed run resumes from its last state.

    Args:
        run_pass: the pass.
        plan: the goal and the method.
        folder: contains the state of the training.
        spending: cost of the images to which its energies were fitted.
        tracker: receives the progress.
    """
    assert isinstance(plan.training, TrainingConfig)
    params, generator = run_pass.params, run_pass.before.generator()
    energy, multipliers = plan.build()
    scale, held = generator.prior.scale, held_by(generator)
    flow = Flow(len(scale), params.flow, plan.condition, scale=scale, seed=run_pass.seed, held=held)
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
    fitting = {"forward": spending.forward, "backward": spending.backward}
    evaluations = {direction: fitting[direction] + count for direction, count in training.evaluations.items()}
    result |= {"seconds": training.seconds, "generator_evaluations": evaluations}
    return training.flow, training.history, result
