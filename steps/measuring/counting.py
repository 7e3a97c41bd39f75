"""Who counts the classes of a pass's samples, and what the counts say: shares, KL to the target, shares corrected."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from numpy.typing import NDArray

from promptgen.audit.confusion import card_confusions
from promptgen.config.models import ReaderSpec
from promptgen.errors import DataError
from promptgen.labels import PRODUCT, classes, target_shares
from promptgen.metrics.bias import DISTANCES, Bias, measure_bias
from promptgen.metrics.correction import corrected_shares, impossible_classes
from promptgen.metrics.shares import class_counts, joint_labels
from promptgen.model_files.cards import find_card
from steps.shared.common import Pass

logger = logging.getLogger("promptgen")

Arrays = Mapping[str, NDArray[Any]]
Attributes = Mapping[str, Sequence[str]]
Readers = Mapping[str, ReaderSpec]


COUNTERS = ("judge", "classifier", "truth")
"""Who counts, the one whose word is taken first."""


class Options(TypedDict):
    """How an interval is resampled."""

    resamples: int
    confidence: float
    seed: int


def options_of(this: Pass) -> Options:
    """Return how the intervals of a pass are resampled."""
    evaluation = this.params.evaluation
    return Options(resamples=evaluation.bootstrap, confidence=evaluation.confidence, seed=this.seed)


def readers_of(this: Pass) -> Readers:
    """Return the models that count; who knows the truth is none."""
    return {"classifier": this.params.debias.classifier, "judge": this.params.debias.judge}


def counting_params(this: Pass) -> dict[str, Any]:
    """Return all parameters that `count_target` depends on, and what it reads off cards."""
    cards = [name for spec in readers_of(this).values() for name in spec.cards()]
    return {
        "seed": this.seed,
        "quality": {name: find_card(name, this.project.models).quality for name in cards},
        **this.params.debias.model_dump(include={"attribute", "target"}),
        **this.params.evaluation.model_dump(include={"confidence", "bootstrap"}),
    }


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


def count_target(this: Pass, arrays: Arrays, labels: Mapping[str, Attributes]) -> dict[str, dict[str, Any]]:
    """Return what samples show of the attribute to de-bias, as plain dicts by who counted.

    Args:
        this: the pass that they are of.
        arrays: content of samples.npz.
        labels: labels of each attribute, by who knows it.

    Returns:
        `shares` by label, `kl` to the target, and the other `distances` by name; of those whose card has a confusion
        table, the `corrected` shares by label, and as `uncorrectable` the labels whose count no such table gives; and
        each distance that `chance` alone would show, by its name.
    """
    names = ("shares", "kl", "distances", "chance", "corrected", "uncorrectable")
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for reader, attributes in labels.items():
        if counts := count(arrays, reader, attributes, this.params.debias.attribute):
            bias = measured(this, counts, this.params.debias.target)
            figures = bias_dict(list(counts), bias)
            found["shares"][reader], found["kl"][reader] = figures.pop("shares"), figures.pop("kl")
            found["distances"][reader], found["chance"] = figures, bias.noise_floors  # alike for all who count
            for name, value in _corrected(this, counts, attributes, readers_of(this).get(reader)).items():
                found[name][reader] = value
    return found


def measured(this: Pass, counts: Mapping[str, int], target: Mapping[str, float] | None) -> Bias:
    """Return every bias figure of counts by label, against wanted shares or, for None, equal ones."""
    return measure_bias(list(counts.values()), target_shares(list(counts), target), **options_of(this))


def bias_dict(labels: Sequence[str], bias: Bias) -> dict[str, Any]:
    """Return the `shares` by label and each distance by its name, as plain dicts."""
    shares = {label: share.as_dict() for label, share in zip(labels, bias.shares, strict=True)}
    return {"shares": shares} | {name: getattr(bias, name).as_dict() for name in DISTANCES}


def judged(this: Pass, arrays: Arrays, labels: Mapping[str, Attributes]) -> Bias:
    """Return the judge's figures of samples, classes in the order of the target; arguments as of `count_target`."""
    target = this.params.debias.target
    counts = count(arrays, "judge", labels["judge"], this.params.debias.attribute)
    return measured(this, {label: counts[label] for label in target}, target)


def _corrected(
    this: Pass, counts: Mapping[str, int], attributes: Attributes, reader: ReaderSpec | None
) -> dict[str, Any]:
    """Return shares `corrected` by label, and what is `uncorrectable`, if a confusion table is on the reader's card."""
    if reader is None:
        return {}
    confusion = card_confusions(reader, attributes, this.project.models).get(this.params.debias.attribute)
    if confusion is None:
        return {}
    labels, values = list(counts), list(counts.values())
    try:
        table = confusion.ordered(labels)
        found = corrected_shares(values, table, **options_of(this))
        impossible = impossible_classes(values, table, **options_of(this))
    except DataError as error:  # such as a classifier that is no better than chance
        logger.warning("the shares of %s cannot be corrected: %s", confusion.attribute, error)
        return {}
    return {
        "corrected": {label: share.as_dict() for label, share in zip(labels, found, strict=True)},
        "uncorrectable": [labels[index] for index in impossible],
    }
