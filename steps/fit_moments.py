"""Fit the multipliers that would bring an attribute to its target shares, on samples of the pass before."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("step", "fit_moments")

from dataclasses import dataclass

import torch

from promptgen.config.build import identities
from promptgen.errors import ConfigError
from promptgen.evaluations.evaluator import Evaluator, Request
from promptgen.evaluations.objective import classifier_reader, split_logits
from promptgen.evaluations.proposal import Proposal
from promptgen.files import write_json
from promptgen.flows.sampling import generate
from promptgen.labels import classes, feature_names, features, target_shares
from promptgen.moments.multipliers import fit_moments
from promptgen.networks.micro_batches import MicroBatches
from promptgen.perception.base import Classifier
from promptgen.perception.reading import read_logits
from promptgen.tracking import Tracker
from steps.shared.common import MOMENTS_NAME, Pass, Result
from steps.shared.evaluations import classifier_output, list_evaluations, log_reuse, open_store
from steps.shared.manifest import StepFolder
from steps.shared.recipes import PassRecipe


def run(run_pass: Pass, tracker: Tracker) -> Result:
    """Fit the multipliers and write them to moments.json, with the intervals and the cost of the tilt.

    Raises:
        ConfigError: the pass is no de-biasing one, or the target does not fit the classifier's labels.
        DataError: the classifier's logits are not finite; the message names the attribute.
        InfeasibleTargetError: no tilt of the samples reaches the target.
    """
    if run_pass.kind != "debias":
        raise ConfigError(
            f"pass {run_pass.number} is not a de-biasing pass; these start at pass {run_pass.params.first_debias_pass}"
        )
    debias = run_pass.params.debias
    chosen = debias.model_dump(include={"attribute", "target", "features", "samples", "ess_floor", "bootstrap"})
    batch, confidence = run_pass.params.evaluation.batch, run_pass.params.evaluation.confidence
    params = {**chosen, "seed": run_pass.params.seed, "batch": batch, "confidence": confidence}
    params["reuses"] = [run_pass.params.reuses(number) for number in (run_pass.before.number, run_pass.number)]
    inputs = run_pass.before.generator_inputs() | identities([debias.classifier], run_pass.project.models)
    return run_pass.step("fit_moments", params, inputs, lambda folder: _fit(run_pass, folder, tracker))


@dataclass(frozen=True)
class FitRecipe(PassRecipe[Request, dict[str, torch.Tensor]]):
    """Makes the evaluator of the samples that the multipliers are fitted on."""

    def build(self) -> Evaluator:
        """Return the generator and the classifier."""
        params, project = self.run_pass.params, self.run_pass.project
        classifier = project.classifier()
        outputs = {classifier_output(self.run_pass): classifier_reader(classifier)}
        generator = Pass(project, 0).generator()
        return Evaluator(generator, outputs, seed=params.seed, batches=MicroBatches(params.evaluation.batch))


def _fit(run_pass: Pass, folder: StepFolder, tracker: Tracker) -> Result:
    debias, evaluation = run_pass.params.debias, run_pass.params.evaluation
    classifier = run_pass.project.classifier()
    target = target_shares(classes(classifier.attributes, debias.attribute), debias.shares)
    read = _stored if run_pass.params.reuses(run_pass.number) else _fresh
    gamma, made = read(run_pass, folder, classifier, tracker)
    fit = fit_moments(
        gamma.double().cpu().numpy(),
        target,
        names=feature_names(classifier.attributes, [debias.attribute]),
        ess_floor=debias.ess_floor,
        bootstrap=debias.bootstrap,
        confidence=evaluation.confidence,
        seed=run_pass.seed,
    )
    write_json(folder.path / MOMENTS_NAME, fit.as_dict())
    return {**fit.as_dict(), "generator_evaluations": {"forward": made, "backward": 0}}


def _fresh(run_pass: Pass, folder: StepFolder, classifier: Classifier, tracker: Tracker) -> tuple[torch.Tensor, int]:
    """Return the features of samples that nothing else uses, (N, K), and how many images were made."""
    debias = run_pass.params.debias
    generator, batch = run_pass.before.generator(), run_pass.params.evaluation.batch
    parts: list[torch.Tensor] = []
    with torch.inference_mode():
        for latent, image in generate(generator, debias.samples, seed=run_pass.seed, stream="moments", batch=batch):
            logits = read_logits(classifier, image, latent, "the classifier", sum(map(len, parts)))
            parts.append(features(logits, [debias.attribute], debias.features).cpu())
            tracker.progress(sum(map(len, parts)), debias.samples, "moments")
    return torch.cat(parts), debias.samples


@torch.no_grad()
def _stored(run_pass: Pass, folder: StepFolder, classifier: Classifier, tracker: Tracker) -> tuple[torch.Tensor, int]:
    """Return the features of samples that are kept, (N, K), and how many images were made.

    The final fit of the flow before has made them already, if that flow was trained on evaluations.
    """
    debias, before = run_pass.params.debias, run_pass.before
    generator, output = before.generator(), classifier_output(run_pass)
    shared = run_pass.params.reuses(before.number)
    proposal = Proposal(generator, before.seed if shared else run_pass.seed)
    draw = proposal.draw(debias.samples, "fit" if shared else "moments")
    outputs = {output: classifier_reader(classifier)}
    batch = run_pass.params.evaluation.batch
    recipe = FitRecipe(run_pass)
    store = open_store(run_pass, generator, outputs, step="fit_moments", batch=batch, recipe=recipe)
    evaluations = store.evaluate(
        draw.base, draw.context, progress=lambda done: tracker.progress(done, debias.samples, "moments")
    )
    log_reuse(store)
    list_evaluations(folder, [evaluations])
    logits = split_logits(classifier, evaluations.outputs[output])
    return features(logits, [debias.attribute], debias.features), store.spending.forward
