"""Check an experiment before any work: its models load, its labels exist, and its results can be written."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("check")

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from promptgen.config.build import build_classifier, build_embedder, build_energies, build_features
from promptgen.config.models import JointModel, ReaderSpec
from promptgen.config.params import Params
from promptgen.drawn import Drawn
from promptgen.engine.config import ProcessConfig, RayConfig
from promptgen.engine.ray_cluster import import_ray
from promptgen.errors import ConfigError
from promptgen.experiments.limits import require_memory
from promptgen.files import storage_error
from promptgen.flows.config import LARGEST_DENSE
from promptgen.flows.flow import Flow
from promptgen.generators.base import held_by
from promptgen.labels import agreed_classes, class_index, classes, factors, target_shares
from promptgen.networks.devices import find_device
from promptgen.networks.precision import require_precision
from promptgen.perception.informed import informed
from promptgen.records import TRUSTED
from promptgen.words import listing
from steps.list_models import unlisted, unused
from steps.shared.common import Project

logger = logging.getLogger("promptgen")

TOLERANCE = 1e-6
"""Largest difference of shares that counts as rounding."""


def run(project: Project) -> None:
    """Find mistakes that would otherwise show only after minutes of work.

    Raises:
        ConfigError: an attribute or label is unknown to the classifier or the judge, something cannot be built, or a
            size needs more memory than this machine has.
        EngineError: the engine's package is missing.
        DataError: the parts of the flow do not fit the generator's latent.
        ModelFileError: a weight file is missing or damaged.
        StorageError: artifacts/ or reports/ cannot be written.
    """
    _check_writable(project.artifacts)
    _check_writable(project.reports)
    params, models = project.params, project.models
    require_precision(params.precision, find_device(params.device))
    _check_engine(params)
    generator = params.generator.build(models)
    dim, held = generator.prior.dim, held_by(generator)
    drawn = params.generator.drawn(models)
    if drawn and (held != 1 or float(generator.prior.scale[-1]) != 1):
        raise ConfigError(
            f"{params.generator.name} should draw a {drawn.name} for each image by the shares in params.yaml, with the "
            "last coordinate of its latent, which is N(0, 1), and say so by an attribute `held` of 1; it has "
            f"{float(generator.prior.scale[-1]):g} as the scale and {held} as `held`"
        )
    require_memory(params, dim, prod(generator.image_shape), held)
    if params.moves_all_directions or dim - held <= LARGEST_DENSE:
        # The parts of the flow may not fit the latent.
        Flow(dim, params.flow, params.condition, held=held)
    specs = {name: getattr(params.debias, name) for name in TRUSTED if name != "truth"}
    readers = {name: informed(build_classifier(spec, models), drawn).attributes for name, spec in specs.items()}
    for reader, attributes in readers.items():
        target = target_shares(classes(attributes, params.debias.attribute), params.debias.shares)
        if drawn and params.stops_by_count:
            _check_drawn_shares(drawn, attributes, params.debias.attribute, target)
        for attribute, label in (params.control.measure if params.control else {}).items():
            if attribute in attributes or reader == "classifier":
                class_index(attributes, attribute, label)
    for attribute, target in params.evaluation.watch.items():
        labels = next(iter(agreed_classes(readers, attribute).values()))
        target_shares(labels, target)
    if params.evaluation.identity:
        build_embedder(params.evaluation.identity, models)
    if params.evaluation.features:
        build_features(params.evaluation.features, models)
    if params.control:
        build_energies(params.control.energies, models, params.condition.names)
        if params.condition and not params.control.condition_is_read:
            logger.warning(
                "no energy reads control.condition: the flow will not learn to depend on %s",
                ", ".join(params.condition.names),
            )
    for warning in filter(None, (_same_reader(params, models), unlisted(params), unused(params))):
        logger.warning("%s", warning)


def _check_drawn_shares(
    drawn: Drawn, attributes: Mapping[str, Sequence[str]], attribute: str, target: NDArray[np.float64]
) -> None:
    """Refuse a target, (K,), that gives what the generator draws other shares than those that it is drawn by."""
    names = factors(attributes, attribute)
    if drawn.name not in names:
        return
    table = target.reshape([len(attributes[name]) for name in names])
    place = names.index(drawn.name)
    for label, goal in zip(drawn.labels, np.moveaxis(table, place, 0).reshape(len(drawn.labels), -1), strict=True):
        if abs(goal.sum() - drawn.shares[label]) > TOLERANCE:
            raise ConfigError(
                f"debias.target: the shares with {label} sum to {goal.sum():.4g}, but the generator draws it with a "
                f"share of {drawn.shares[label]:.4g}, which no flow changes: let them sum to that"
            )


def _same_reader(params: Params, models: Path) -> str:
    """Return a warning if the judge reads the attribute with a network of the classifier; empty if it does not."""
    classifier, judge, attribute = params.debias.classifier, params.debias.judge, params.debias.attribute
    shared = [part for part in _networks(judge) if part in _networks(classifier)]
    reading = [part for part in shared if _reads(build_classifier(part, models).attributes, attribute)]
    if judge != classifier and not reading:
        return ""
    names = listing([part.describe() for part in reading])
    same = (
        "is debias.classifier" if judge == classifier else f"reads {attribute} with {names}, as debias.classifier does"
    )
    return (
        f"debias.judge {same}: it then counts the classifier's own errors as success; choose another model as the judge"
    )


def _networks(reader: ReaderSpec) -> list[ReaderSpec]:
    """Return the classifiers of a joint one; any other classifier alone."""
    return list(reader.classifiers) if isinstance(reader, JointModel) else [reader]


def _reads(attributes: Mapping[str, Sequence[str]], attribute: str) -> bool:
    """Return whether a classifier of some `attributes` reads a factor of one that may be a product."""
    return bool({*attributes} & {*factors(attributes, attribute)})


def _check_engine(params: Params) -> None:
    """Refuse an engine whose package is missing; warn of workers that wait for each other."""
    if isinstance(params.engine, RayConfig):
        import_ray()
    if isinstance(params.engine, ProcessConfig) and params.engine.workers > (cores := os.cpu_count() or 1):
        logger.warning("engine.workers: %d processes share %d cores and the memory", params.engine.workers, cores)


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise storage_error(folder, error) from error
