"""Energies of diversity: fitted once to images of the generator, and then read from a file.

Their images are evaluated like all others: an engine makes them, the store keeps the features, and they count as spent
by the training. A killed run finds the features and fits the same energies again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from promptgen.config.build import build_energies, identities
from promptgen.config.params import Control
from promptgen.energies.base import Sample, WeightedSum
from promptgen.energies.diversity import DiversityEnergy
from promptgen.errors import DataError
from promptgen.evaluations.evaluator import Evaluator, Request
from promptgen.evaluations.proposal import Proposal
from promptgen.evaluations.store import Spending
from promptgen.loading.own_files import load_tensors, save_tensors
from promptgen.networks.distributed import from_first
from promptgen.networks.micro_batches import MicroBatches, given, memory_of
from promptgen.tracking import Tracker
from steps.shared.common import Pass
from steps.shared.evaluations import features_output, generator_identity, open_store
from steps.shared.recipes import PassRecipe

FITTED_NAME = "diversity.safetensors"


@dataclass(frozen=True)
class FeaturesRecipe(PassRecipe[Request, dict[str, Tensor]]):
    """Makes the evaluator of the images that the energies of a control are fitted to."""

    def build(self) -> Evaluator:
        """Return the generator and the networks whose features should vary more."""
        params, generator = self.run_pass.params, Pass(self.run_pass.project, 0).generator()
        batches = MicroBatches(_batch(self.run_pass), memory_of(generator.prior.scale.device))
        outputs = _outputs(self.run_pass, _energies_of(_unfitted(self.run_pass)))
        return Evaluator(generator, outputs, seed=params.seed, batches=batches)


def fit_energies(run_pass: Pass, tracker: Tracker) -> Spending:
    """Fit the energies of the control that need it, write them to a file, and return the cost of the images.

    Raises:
        ConfigError: a weight asks for more diversity than the images show.
        DataError: the images are all alike, or a network does not return features (B, F).
        NonFiniteEnergyError: a feature is NaN or infinite.
    """
    return from_first(lambda: _fit(run_pass, tracker)) if fitted_to(run_pass) else Spending()


def build_fitted(run_pass: Pass) -> WeightedSum:
    """Return the fitted energies of the control, on the device and in the precision of the experiment.

    Raises:
        CheckpointError: what was fitted cannot be read.
        ConfigError: there is no such card, or a label is unknown to its classifier.
        DataError: it has not been fitted yet, or to another generator or for other parameters.
        ModelFileError: a weight file is missing or damaged.
    """
    energy = _unfitted(run_pass)
    if not fitted_to(run_pass):
        return energy
    path = run_pass.folder("train_flow") / FITTED_NAME
    run_pass.sha256(path)  # raises if it is not there
    tensors, config = load_tensors(path)
    if config.get("made_from") != _made_from(run_pass):
        raise DataError(
            f"{path} was made from another generator or other energies than those of params.yaml: restore them, or "
            f"train the pass again with `promptgen step train_flow --pass {run_pass.number}`"
        )
    for number, part in enumerate(_energies_of(energy)):
        part.set_spectrum(tensors[f"{number}.axes"], tensors[f"{number}.logs"])
    return energy


def fitted_inputs(run_pass: Pass) -> dict[str, str]:
    """Return the sha256 of what was fitted, by its name; nothing if no energy of the pass is fitted.

    Raises:
        DataError: it has not been fitted yet.
    """
    folder = run_pass.folder("train_flow")
    return {FITTED_NAME: run_pass.sha256(folder / FITTED_NAME)} if fitted_to(run_pass) else {}


def fitted_to(run_pass: Pass) -> int:
    """Return the number of images of the generator that energies of a pass are fitted to."""
    control = run_pass.params.control
    return control.fitted_to if control and run_pass.kind == "control" else 0


def _fit(run_pass: Pass, tracker: Tracker) -> Spending:
    generator, n = run_pass.before.generator(), fitted_to(run_pass)
    parts, specs = _energies_of(_unfitted(run_pass)), _control(run_pass).diversity
    recipe = FeaturesRecipe(run_pass)
    store = open_store(
        run_pass, generator, _outputs(run_pass, parts), step="train_flow", batch=_batch(run_pass), recipe=recipe
    )
    with torch.no_grad():
        base = Proposal(generator, run_pass.seed).draw(n, "diversity").base
    evaluations = store.evaluate(base, progress=lambda done: tracker.progress(done, n, "images, diversity"))
    tensors: dict[str, Tensor] = {}
    for number, (part, spec) in enumerate(zip(parts, specs, strict=True)):
        part.fit(evaluations.outputs[features_output(run_pass, spec.features)][: spec.samples])
        tensors |= {f"{number}.{name}": value for name, value in part.named_buffers(recurse=False)}
    config = {"made_from": _made_from(run_pass), "seed": run_pass.seed, "precision": run_pass.params.precision}
    save_tensors(run_pass.folder("train_flow") / FITTED_NAME, tensors, config)
    return store.spending


def _made_from(run_pass: Pass) -> dict[str, Any]:
    """Return what identifies the fitted energies. Code is not part of it: it may change without changing them."""
    specs, project = _control(run_pass).diversity, run_pass.project
    files = generator_identity(run_pass) | identities(specs, project.models)
    return {
        "files": {name: value for name, value in files.items() if ":" not in name},
        "energies": [spec.model_dump(mode="json") for spec in specs],
    }


def _control(run_pass: Pass) -> Control:
    assert run_pass.params.control is not None
    return run_pass.params.control


def _batch(run_pass: Pass) -> int | None:
    return given(_control(run_pass).training.micro_batch)


def _unfitted(run_pass: Pass) -> WeightedSum:
    control, project = _control(run_pass), run_pass.project
    energy: WeightedSum = project.placed(build_energies(control.energies, project.models, control.box.names))
    return energy


def _energies_of(energy: nn.Module) -> list[DiversityEnergy]:
    """Return the energies of diversity in a sum, in the order of params.yaml."""
    return [part for part in energy.modules() if isinstance(part, DiversityEnergy)]


def _outputs(run_pass: Pass, parts: list[DiversityEnergy]) -> dict[str, Callable[[Sample], Tensor]]:
    """Return what reads the features of each network, by the name of the output."""

    def reader(part: DiversityEnergy) -> Callable[[Sample], Tensor]:
        return lambda sample: part.features(sample.image)

    specs = _control(run_pass).diversity
    return {features_output(run_pass, spec.features): reader(part) for part, spec in zip(parts, specs, strict=True)}
