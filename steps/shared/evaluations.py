"""The store of evaluations of an experiment: its folder, and the names of its outputs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from promptgen.config.build import identities
from promptgen.config.models import ModelSpec
from promptgen.config.params import Control
from promptgen.config.spec import EnergyBase, Spec
from promptgen.energies.base import Sample
from promptgen.engine.base import Recipe
from promptgen.errors import DataError
from promptgen.evaluations.config import FOLDER_NAME
from promptgen.evaluations.evaluator import Request
from promptgen.evaluations.store import Evaluations, EvaluationStore, Spending
from promptgen.files import fingerprint, read_json, write_json
from promptgen.flows.chained import base_of
from promptgen.generators.base import Generator
from steps.shared.common import Pass
from steps.shared.manifest import StepFolder

LIST_NAME = "evaluations.json"
VERSION = 1
DIGITS = 16
"""Hexadecimal digits of a checksum in the names of folders and outputs."""

logger = logging.getLogger("promptgen")


def open_store(
    run_pass: Pass,
    generator: Generator,
    outputs: Mapping[str, Callable[[Sample], Tensor]],
    *,
    step: str,
    batch: int | None,
    recipe: Recipe[Request, dict[str, Tensor]],
    spending: Spending | None = None,
) -> EvaluationStore:
    """Return the store of an experiment; generators with other weights or settings have folders of their own.

    Args:
        run_pass: the pass that evaluates.
        generator: the generator, or a chain on it.
        outputs: as of `promptgen.evaluations.store.EvaluationStore`.
        step: name of the step that evaluates.
        batch: images at a time; None for as many as fit.
        recipe: builds the same evaluator in a worker.
        spending: what the step has spent so far, to which the store adds; None means nothing.

    Raises:
        DataError: the folder holds evaluations of another generator.
    """
    project, identity = run_pass.project, generator_identity(run_pass)
    return EvaluationStore(
        base_of(generator),
        outputs,
        folder=project.artifacts / FOLDER_NAME / fingerprint(identity, {}, VERSION)[:DIGITS],
        identity=identity,
        user=f"pass-{run_pass.number}/{step}",
        seed=run_pass.params.seed,
        batch=batch,
        engine=project.engine,
        recipe=recipe,
        spending=spending or Spending(),
    )


def generator_identity(run_pass: Pass) -> dict[str, str]:
    """Return what the images of the generator depend on: its section, its files and the precision."""
    spec, precision = run_pass.params.generator, run_pass.params.precision
    return {
        "generator": json.dumps(spec.model_dump(mode="json"), sort_keys=True),
        **identities([spec], run_pass.project.models),
        # Left out for the default, so that stores of earlier versions remain valid.
        **({} if precision == "float32" else {"precision": precision}),
    }


def classifier_output(run_pass: Pass) -> str:
    """Return the name of the output with the classifier's logits, and with what was drawn if the target needs it."""
    name = _output(run_pass, "classifier", run_pass.params.debias.classifier)
    drawn = run_pass.project.drawn_in_target
    return f"{name}+{drawn.name}" if drawn else name


def energy_outputs(run_pass: Pass, control: Control) -> dict[str, str]:
    """Return the name of the output of each energy, without its weight, by the energy's name."""
    return {name: _output(run_pass, name, spec, control.box.names) for name, spec in control.energies.items()}


def features_output(run_pass: Pass, spec: ModelSpec) -> str:
    """Return the name of the output that holds the features of a network."""
    return _output(run_pass, "features", spec)


def _output(run_pass: Pass, name: str, spec: Spec, condition: Sequence[str] = ()) -> str:
    """Return a name that changes with everything that the output depends on."""
    exclude = {"weight"} if isinstance(spec, EnergyBase) and not spec.depends_on_weight else None
    params = {"spec": spec.model_dump(mode="json", exclude=exclude), "condition": list(condition)}
    return f"{name}@{fingerprint(params, identities([spec], run_pass.project.models), VERSION)[:DIGITS]}"


def list_evaluations(folder: StepFolder, evaluations: Sequence[Evaluations]) -> None:
    """Write the addresses of evaluations, in order, for later passes."""
    write_json(folder.path / LIST_NAME, [address for part in evaluations for address in part.addresses])


def listed_evaluations(run_pass: Pass, step: str, store: EvaluationStore, like: Tensor) -> list[Evaluations]:
    """Return the evaluations that a step of a pass listed; none if it listed none.

    Raises:
        DataError: an evaluation is missing, or the list is damaged.
    """
    path = run_pass.folder(step) / LIST_NAME
    if not path.is_file():
        return []
    addresses = read_json(path)
    if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
        raise DataError(f"{path} is not a list of evaluations; remove the folder and run the step again")
    return store.load(addresses, like)


def log_reuse(store: EvaluationStore) -> None:
    """Log how many evaluations were reused."""
    spending = store.spending
    if spending.cached:
        logger.info("%s of %s evaluations reused", f"{spending.cached:,}", f"{spending.asked:,}")
