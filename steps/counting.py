"""Who counts the classes of a pass's samples, and what the counts say: shares, KL to the target, shares corrected."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from numpy.typing import NDArray

from promptgen.build import cards_of
from promptgen.cards import find_card
from promptgen.errors import DataError
from promptgen.labelling import card_confusions
from promptgen.metrics.bias import DISTANCES, Bias, measure_bias
from promptgen.metrics.correction import corrected_shares
from promptgen.metrics.shares import class_counts, joint_labels
from promptgen.perception.labels import PRODUCT, classes, target_shares
from promptgen.specs import ModelSpec, ReaderSpec
from steps.common import Pass

logger = logging.getLogger("promptgen")

Arrays = Mapping[str, NDArray[Any]]
Attributes = Mapping[str, Sequence[str]]
Readers = Mapping[str, ModelSpec | ReaderSpec]


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
    cards = [name for spec in readers_of(this).values() for name in cards_of(spec)]
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
        `shares` by label, `kl` to the target, the other `distances` by name, and the `corrected` shares by label of
        those whose card has a confusion table; and each distance that `chance` alone would show, by its name.
    """
    found: dict[str, dict[str, Any]] = {"shares": {}, "kl": {}, "distances": {}, "corrected": {}, "chance": {}}
    for reader, attributes in labels.items():
        if counts := count(arrays, reader, attributes, this.params.debias.attribute):
            bias = measured(this, counts, this.params.debias.target)
            figures = bias_dict(list(counts), bias)
            found["shares"][reader], found["kl"][reader] = figures.pop("shares"), figures.pop("kl")
            found["distances"][reader], found["chance"] = figures, bias.noise_floors  # alike for all who count
            if corrected := _corrected(this, counts, attributes, readers_of(this).get(reader)):
                found["corrected"][reader] = corrected
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
        found = corrected_shares(values, confusion.ordered(list(counts)), **options_of(this))
    except DataError as error:  # such as a classifier that is no better than chance
        logger.warning("the shares of %s cannot be corrected: %s", this.params.debias.attribute, error)
        return {}
    return {label: share.as_dict() for label, share in zip(counts, found, strict=True)}
