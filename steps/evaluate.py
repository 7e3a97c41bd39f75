"""Turn the samples of a pass into figures: shares, distances to the target, what the control asked for, diversity."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from promptgen.build import cards_of
from promptgen.cards import find_card
from promptgen.errors import DataError
from promptgen.files import write_json
from promptgen.labelling import card_confusions
from promptgen.manifest import StepFolder
from promptgen.metrics.correction import corrected_shares
from promptgen.metrics.distances import distance_interval
from promptgen.metrics.diversity import pairwise_distance
from promptgen.metrics.identity import PAIRS, identity_between, identity_within
from promptgen.metrics.pose import pose_error, pose_slopes
from promptgen.metrics.shares import class_counts, joint_labels, share_estimates, wilson
from promptgen.perception.labels import PRODUCT, class_index, classes, target_shares
from promptgen.specs import ModelSpec, ReaderSpec
from promptgen.tracking import Tracker
from steps.common import Pass, Result, pass_command
from steps.sample import SAMPLES_NAME, load_samples

logger = logging.getLogger("promptgen")

RECORD_NAME = "record.json"

Arrays = Mapping[str, NDArray[Any]]
Attributes = Mapping[str, Sequence[str]]
Readers = Mapping[str, ModelSpec | ReaderSpec]


class Options(TypedDict):
    """How an interval is resampled."""

    resamples: int
    confidence: float
    seed: int


def run(this: Pass, tracker: Tracker) -> Result:
    """Write record.json: shares and KL by classifier, judge and truth, the share of what the control asks for.

    Raises:
        DataError: the pass has not been sampled yet.
        ConfigError: the target or the control names a label that a reader does not know.
    """
    debias, evaluation, control = this.params.debias, this.params.evaluation, this.params.control
    readers: Readers = {"classifier": debias.classifier, "judge": debias.judge}
    cards = [name for spec in readers.values() for name in cards_of(spec)]
    params = {
        "seed": this.seed,
        "quality": {name: find_card(name, this.project.models).quality for name in cards},
        "measure": control.measure if control else {},
        "condition": dict(this.params.condition.ranges),
        **debias.model_dump(include={"attribute", "target"}),
        **evaluation.model_dump(include={"confidence", "bootstrap"}),
    }
    inputs = {SAMPLES_NAME: this.sha256(this.folder("sample") / SAMPLES_NAME)}
    return this.step("evaluate", params, inputs, lambda folder: _evaluate(this, readers, folder))


def _evaluate(this: Pass, specs: Readers, folder: StepFolder) -> Result:
    arrays, readers = load_samples(this.folder("sample"))
    shares, kl, corrected = {}, {}, {}
    for reader, attributes in readers.items():
        if counts := count(arrays, reader, attributes, this.params.debias.attribute):
            shares[reader], kl[reader] = _bias(this, counts)
            if found := _corrected(this, counts, attributes, specs.get(reader)):
                corrected[reader] = found
    record = {
        "pass": this.number,
        "kind": this.kind,
        "n": len(arrays["probability"]),
        "shares": shares,
        "kl": kl,
        "corrected": corrected,
        "control": _control(this, arrays, readers) | _diversity(this, arrays) | _condition(this, arrays),
    }
    write_json(folder.path / RECORD_NAME, record)
    return record


def count(arrays: Arrays, reader: str, attributes: Attributes, attribute: str) -> dict[str, int]:
    """Return how often each label of `attribute`, which may be a product, was read; empty if `reader` does not know it.

    Args:
        arrays: content of samples.npz.
        reader: who counts.
        attributes: labels of each attribute the reader knows.
        attribute: what is counted.
    """
    factors = attribute.split(PRODUCT)
    if not all(factor in attributes for factor in factors):
        return {}
    labels = classes(attributes, attribute)
    joint = joint_labels([arrays[f"{reader}.{name}"] for name in factors], [len(attributes[name]) for name in factors])
    return dict(zip(labels, class_counts(joint, len(labels)).tolist(), strict=True))


def _bias(this: Pass, counts: Mapping[str, int]) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the shares by label, and the KL to the target, as plain dicts."""
    evaluation, values = this.params.evaluation, np.array(list(counts.values()))
    target = target_shares(list(counts), this.params.debias.target)
    kl = distance_interval(values, target, **_options(this))
    shares = share_estimates(values, evaluation.confidence)
    return {label: share.as_dict() for label, share in zip(counts, shares, strict=True)}, kl.as_dict()


def _corrected(
    this: Pass, counts: Mapping[str, int], attributes: Attributes, reader: ModelSpec | ReaderSpec | None
) -> dict[str, dict[str, float]]:
    """Return the shares without the reader's errors by label, if its card has a confusion table that tells anything."""
    if reader is None:
        return {}
    confusion = card_confusions(reader, attributes, this.project.models).get(this.params.debias.attribute)
    if confusion is None:
        return {}
    values = list(counts.values())
    try:
        found = corrected_shares(values, confusion.ordered(list(counts)), **_options(this))
    except DataError as error:  # such as a classifier that is no better than chance
        logger.warning("the shares of %s cannot be corrected: %s", this.params.debias.attribute, error)
        return {}
    return {label: share.as_dict() for label, share in zip(counts, found, strict=True)}


def _control(this: Pass, arrays: Arrays, readers: Mapping[str, Attributes]) -> dict[str, dict[str, float]]:
    """Return the share of each label that the control asks for, by `ATTRIBUTE.LABEL.READER`."""
    found: dict[str, dict[str, float]] = {}
    measure = this.params.control.measure if this.params.control else {}
    for attribute, label in measure.items():
        for reader, attributes in readers.items():
            if counts := count(arrays, reader, attributes, attribute):
                class_index(attributes, attribute, label)
                share = wilson(counts[label], sum(counts.values()), this.params.evaluation.confidence)
                found[f"{attribute}.{label}.{reader}"] = share.as_dict()
    return found


def _diversity(this: Pass, arrays: Arrays) -> dict[str, dict[str, float]]:
    """Return how far the identities of two samples lie apart on average, if they were told apart."""
    if "identity" not in arrays:
        return {}
    return {"identity.diversity": pairwise_distance(arrays["identity"], **_options(this)).as_dict()}


def _condition(this: Pass, arrays: Arrays) -> dict[str, dict[str, float]]:
    """Return how well the condition is followed, and whether it leaves identities alone, as far as it was looked at."""
    if "condition" not in arrays:
        return {}
    names, options = this.params.condition.names, _options(this)
    found = {}
    if "pose" in arrays:
        found["pose.error"] = pose_error(arrays["pose"], arrays["condition"], names, **options)
        slopes = pose_slopes(arrays["pose"], arrays["condition"], names, **options)
        found |= {f"pose.{name}.slope": slope for name, slope in slopes.items()}
    if "identity" in arrays:
        views = [arrays[name][:PAIRS] for name in ("identity", "identity_again") if name in arrays]
        found["identity.between"] = identity_between(*views, **options)
        if len(views) == 2:
            found["identity.within"] = identity_within(*views, **options)
    return {name: estimate.as_dict() for name, estimate in found.items()}


def _options(this: Pass) -> Options:
    evaluation = this.params.evaluation
    return Options(resamples=evaluation.bootstrap, confidence=evaluation.confidence, seed=this.seed)


if __name__ == "__main__":
    pass_command(__doc__, run)
