"""Counts of the classes of a pass's samples, by each reader, as a part of the pass's record."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from promptgen.audit.confusion import card_confusions
from promptgen.config.models import ReaderSpec
from promptgen.errors import DataError
from promptgen.labels import PRODUCT, classes, factors, knows, spelled_as, target_shares
from promptgen.metrics.bias import DISTANCES, Bias, measure_bias, measure_soft_bias
from promptgen.metrics.correction import corrected_shares, impossible_classes
from promptgen.metrics.estimate import Estimate
from promptgen.metrics.rows import Rows
from promptgen.metrics.shares import (
    class_counts,
    joint_labels,
    shares_within,
    simultaneous_differences,
    simultaneous_estimates,
)
from promptgen.model_files.cards import find_card
from promptgen.records import Bias as BiasRecord
from promptgen.records import Count, Interval, ReaderBias, Source
from steps.measuring.samples import Samples
from steps.shared.common import Pass

logger = logging.getLogger("promptgen")

Attributes = Mapping[str, Sequence[str]]
"""Labels of each attribute that a reader knows."""


class Resampling(TypedDict):
    """How intervals are resampled."""

    resamples: int
    confidence: float
    seed: int


def resampling(run_pass: Pass, seed: int | None = None) -> Resampling:
    """Return how the intervals of a pass are resampled; with its own seed, unless another one is given."""
    evaluation = run_pass.params.evaluation
    return Resampling(
        resamples=evaluation.bootstrap,
        confidence=evaluation.confidence,
        seed=run_pass.seed if seed is None else seed,
    )


def reader_specs(run_pass: Pass) -> dict[Source, ReaderSpec]:
    """Return the models that read labels; the truth needs none."""
    return {"classifier": run_pass.params.debias.classifier, "judge": run_pass.params.debias.judge}


def counting_params(run_pass: Pass) -> dict[str, Any]:
    """Return everything that `debias_count` depends on: parameters, and the quality on the cards of the readers."""
    cards = [name for spec in reader_specs(run_pass).values() for name in spec.cards()]
    return {
        "seed": run_pass.seed,
        "quality": {name: find_card(name, run_pass.project.models).quality for name in cards},
        **run_pass.params.debias.model_dump(include={"attribute", "target", "target_samples"}),
        **run_pass.params.evaluation.model_dump(include={"confidence", "bootstrap"}),
    }


def label_counts(samples: Samples, reader: str, attributes: Attributes, attribute: str) -> dict[str, int]:
    """Return how many samples of each class a reader saw; empty if it does not know `attribute`, or a factor of it."""
    if not knows(attributes, attribute):
        return {}
    names = factors(attributes, attribute)
    labels, sizes = classes(attributes, attribute), [len(attributes[name]) for name in names]
    counts = np.zeros(len(labels), dtype=np.int64)
    for parts in samples.chunks(*(f"{reader}.{name}" for name in names)):
        counts += class_counts(joint_labels(parts, sizes), len(labels))
    return dict(zip(labels, counts.tolist(), strict=True))


def debias_count(run_pass: Pass, samples: Samples, *, soft: bool = False) -> Count:
    """Return how the attribute to de-bias is distributed among samples, by every reader that knows it.

    Args:
        run_pass: the pass that the samples are of.
        samples: what was read of them.
        soft: whether to measure mean probabilities as well, of those readers that give probabilities.
    """
    attribute, options, readers = run_pass.params.debias.attribute, resampling(run_pass), samples.labels
    target = spelled_as(classes(readers["judge"], attribute), run_pass.params.debias.shares)
    chance: dict[str, float] = {}
    by: dict[Source, ReaderBias] = {}
    for reader, attributes in readers.items():
        if counts := label_counts(samples, reader, attributes, attribute):
            bias = bias_of_counts(counts, target, options)
            chance = bias.noise_floors  # the same by every reader
            more = _correction(run_pass, reader, counts, attributes)
            together = simultaneous_estimates(list(counts.values()), options["confidence"])
            more["simultaneous"] = by_label(list(counts), together)
            more["within"] = _within(run_pass, counts, attributes)
            if samples_of_target := run_pass.params.debias.target_samples:
                goals = [target[label] for label in counts]
                differences = simultaneous_differences(
                    list(counts.values()), goals, samples_of_target, options["confidence"]
                )
                more["from_target"] = by_label(list(counts), differences)
            if soft and (probabilities := f"probability.{reader}") in samples:
                more["soft"] = soft_record(samples[probabilities], list(counts), target, options)
            by[reader] = reader_record(counts, bias, **more)
    return Count(number=run_pass.number, n=len(samples["probability.judge"]), target=target, chance=chance, by=by)


def _within(run_pass: Pass, counts: Mapping[str, int], attributes: Attributes) -> dict[str, dict[str, Interval]] | None:
    """Return shares within each label of what the generator draws; None unless it is the first of several factors."""
    attribute, drawn = run_pass.params.debias.attribute, run_pass.project.drawn_in_target
    outer, *others = factors(attributes, attribute)
    if drawn is None or outer != drawn.name or not others:
        return None
    groups, labels = attributes[outer], classes(attributes, PRODUCT.join(others))
    shares = shares_within(list(counts.values()), len(groups), run_pass.params.evaluation.confidence)
    return {each: by_label(labels, row) for each, row in zip(groups, shares, strict=True) if row}


def bias_of_counts(counts: Mapping[str, int], target: Mapping[str, float] | None, options: Resampling) -> Bias:
    """Return every bias figure of counts by label, against wanted shares or, for None, equal ones."""
    return measure_bias(list(counts.values()), target_shares(list(counts), target), **options)


def reader_record(counts: Mapping[str, int], bias: Bias, **others: Any) -> ReaderBias:
    """Return the record of what a reader counted; `others` are further fields of it."""
    return ReaderBias(counts=dict(counts), **_figures(list(counts), bias), **others)


def soft_record(
    probabilities: Rows, labels: Sequence[str], target: Mapping[str, float], options: Resampling
) -> BiasRecord:
    """Return the record of mean probabilities, from the probability of each class, (N, K)."""
    bias = measure_soft_bias(probabilities, target_shares(labels, target), **options)
    return BiasRecord(**_figures(labels, bias))


def _figures(labels: Sequence[str], bias: Bias) -> dict[str, Any]:
    return {"shares": by_label(labels, bias.shares)} | {name: Interval.of(getattr(bias, name)) for name in DISTANCES}


def by_label(labels: Sequence[str], estimates: Sequence[Estimate]) -> dict[str, Interval]:
    """Return the estimates of classes, by label."""
    return {label: Interval.of(estimate) for label, estimate in zip(labels, estimates, strict=True)}


def _correction(run_pass: Pass, reader: Source, counts: Mapping[str, int], attributes: Attributes) -> dict[str, Any]:
    """Return shares corrected for a reader's errors, and uncorrectable classes, if its card has a confusion table."""
    spec = reader_specs(run_pass).get(reader)
    if spec is None:
        return {}
    confusion = card_confusions(spec, attributes, run_pass.project.models).get(run_pass.params.debias.attribute)
    if confusion is None:
        return {}
    labels, values, options = list(counts), list(counts.values()), resampling(run_pass)
    try:
        table = confusion.ordered(labels)
        shares = corrected_shares(values, table, **options)
        impossible = impossible_classes(values, table, **options)
    except DataError as error:  # such as a classifier that is no better than chance
        logger.warning("the shares of %s cannot be corrected: %s", confusion.attribute, error)
        return {}
    return {"corrected": by_label(labels, shares), "uncorrectable": [labels[index] for index in impossible]}
