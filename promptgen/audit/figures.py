"""Bias figures of labelled images, by attribute. They are the figures that the de-biasing loop uses.

Example:
    >>> import numpy as np
    >>> labels = Labels({"hair": ("short", "long")}, {"hair": np.array([0, 0, 0, 1])})
    >>> audit(labels, "hair").bias.shares[0].value
    0.75
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptgen.audit.confusion import Confusion
from promptgen.audit.groups import Groups, grouped
from promptgen.audit.labels import Indices, Labels
from promptgen.errors import DataError
from promptgen.labels import classes, target_shares
from promptgen.metrics.bias import DISTANCES, Bias, measure_bias, measure_soft_bias
from promptgen.metrics.comparison import compare_counts
from promptgen.metrics.correction import corrected_shares, impossible_classes
from promptgen.metrics.estimate import Difference, Estimate, Vector, by_label
from promptgen.metrics.shares import share_estimates


@dataclass(frozen=True)
class Sampling:
    """Settings of intervals and tests.

    Attributes:
        confidence: coverage of an interval, in (0, 1).
        resamples: number of simulations for each interval of a distance, each correction and each test.
        seed: seed of the simulations.
    """

    confidence: float = 0.95
    resamples: int = 1000
    seed: int = 0


SAMPLING = Sampling()


@dataclass(frozen=True)
class Comparison:
    """Differences between the shares of two sets of images.

    Attributes:
        n: number of images of the other set.
        shares: share of each class in the other set.
        differences: share in the audited set minus share in the other set, of each class.
        p_value: p-value of the hypothesis that all shares are equal.
        distances: distance to the target of the audited set minus that of the other set, by name.
    """

    n: int
    shares: tuple[Estimate, ...]
    differences: tuple[Difference, ...]
    p_value: float
    distances: Mapping[str, Difference]

    def as_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return all figures as plain dicts, keyed by class."""
        return {
            "n": self.n,
            "shares": by_label(labels, self.shares),
            "differences": by_label(labels, self.differences),
            "p_value": self.p_value,
            "distances": {name: difference.as_dict() for name, difference in self.distances.items()},
        }


@dataclass(frozen=True)
class Audit:
    """Bias figures of one attribute or product of attributes.

    Attributes:
        attribute: its name.
        labels: its classes.
        bias: shares and distances; each image counts as its most probable class.
        soft: the same from mean probabilities; None without probabilities or with a single image.
        judge: the same as `bias`, by a second classifier; None if no judge has this attribute.
        corrected: shares corrected for the classifier's errors; None without a confusion table.
        impossible: classes whose counts the confusion table cannot produce for any true shares; if there are any,
            `corrected` is not reliable.
        comparison: comparison with another set of images; None without one.
        groups: figures by group; None if the images have no groups.
    """

    attribute: str
    labels: tuple[str, ...]
    bias: Bias
    soft: Bias | None = None
    judge: Bias | None = None
    corrected: tuple[Estimate, ...] | None = None
    impossible: tuple[str, ...] = ()
    comparison: Comparison | None = None
    groups: Groups | None = None

    @property
    def off_target(self) -> bool:
        """Whether the shares are further from the target than chance explains: the interval of the KL excludes 0."""
        return self.bias.kl.low > 0

    @property
    def disputed(self) -> tuple[str, ...]:
        """Classes for which the intervals of classifier and judge do not overlap."""
        if self.judge is None:
            return ()
        pairs = zip(self.labels, self.bias.shares, self.judge.shares, strict=True)
        return tuple(label for label, one, other in pairs if one.high < other.low or other.high < one.low)

    def as_dict(self) -> dict[str, Any]:
        """Return all figures as plain dicts, keyed by class."""
        figures: dict[str, Any] = {
            **_bias_dict(self.labels, self.bias),
            "target": dict(zip(self.labels, self.bias.target, strict=True)),
            "noise_floors": self.bias.noise_floors,
            "off_target": self.off_target,
            "disputed": list(self.disputed),
        }
        for name, other in (("soft", self.soft), ("judge", self.judge)):
            figures[name] = _bias_dict(self.labels, other) if other else None
        figures["corrected"] = by_label(self.labels, self.corrected) if self.corrected else None
        figures["impossible"] = list(self.impossible)
        figures["comparison"] = self.comparison.as_dict(self.labels) if self.comparison else None
        figures["groups"] = self.groups.as_dict(self.labels) if self.groups else None
        return figures


def audit(
    read: Labels,
    attribute: str,
    *,
    target: Mapping[str, float] | None = None,
    judge: Labels | None = None,
    other: Labels | None = None,
    confusion: Confusion | None = None,
    sampling: Sampling = SAMPLING,
) -> Audit:
    """Return the bias of one attribute of labelled images.

    Args:
        read: labels of the images.
        attribute: an attribute, or a product such as ``"hair x glasses"``.
        target: target share of each class; None means a uniform target.
        judge: labels of the same images by another classifier; ignored if it lacks the attribute.
        other: labels of other images to compare with, of the same classes.
        confusion: confusion table of the attribute.
        sampling: settings of intervals and tests.

    Raises:
        ConfigError: the attribute is unknown, or `target` does not give a valid share to each of its classes.
        DataError: the attribute has one class, a target share is zero, `other` or `confusion` has other classes, or
            the confusion table is no better than chance.
        TooFewSamplesError: there are no images, or only one group.
    """
    labels = classes(read.attributes, attribute)
    if len(labels) < 2:
        raise DataError(f"{attribute} is always {labels[0]}; name all its classes in a target, {labels[0]}=0.5, ...")
    mu, options = target_shares(labels, target), vars(sampling)
    counts, soft = read.counts(attribute), read.soft(attribute)
    corrected, impossible = _corrected(counts, attribute, labels, confusion, options)
    return Audit(
        attribute,
        labels,
        bias=measure_bias(counts, mu, **options),
        soft=None if soft is None or len(soft) < 2 else measure_soft_bias(soft, mu, **options),
        judge=_judged(judge, attribute, labels, target, options),
        corrected=corrected,
        impossible=impossible,
        comparison=None if other is None else _compared(counts, other, attribute, labels, mu, sampling),
        groups=grouped(read, other, attribute, mu, sampling.confidence) if read.groups else None,
    )


def _judged(
    judge: Labels | None,
    attribute: str,
    labels: Sequence[str],
    target: Mapping[str, float] | None,
    options: Mapping[str, Any],
) -> Bias | None:
    """Return the judge's figures in the order of `labels`; None if it lacks the attribute or has other classes."""
    if judge is None or not judge.knows(attribute):
        return None
    judge_labels = classes(judge.attributes, attribute)
    if sorted(judge_labels) != sorted(labels):
        return None
    order = [judge_labels.index(label) for label in labels]
    return measure_bias(judge.counts(attribute)[order], target_shares(labels, target), **options)


def _corrected(
    counts: Indices, attribute: str, labels: Sequence[str], confusion: Confusion | None, options: Mapping[str, Any]
) -> tuple[tuple[Estimate, ...] | None, tuple[str, ...]]:
    """Return the corrected shares, None without a confusion table, and the classes whose counts it cannot produce."""
    if confusion is None:
        return None, ()
    table = confusion.ordered(labels)
    try:
        shares, outside = corrected_shares(counts, table, **options), impossible_classes(counts, table, **options)
    except DataError as error:
        raise DataError(f"the confusion table of {attribute} cannot be used: {error}") from error
    return tuple(shares), tuple(labels[index] for index in outside)


def _compared(
    counts: Indices, other: Labels, attribute: str, labels: Sequence[str], mu: Vector, sampling: Sampling
) -> Comparison:
    other_labels = classes(other.attributes, attribute)
    if tuple(other_labels) != tuple(labels):
        own, others = ", ".join(labels), ", ".join(other_labels)
        raise DataError(f"{attribute} has the classes {others} in the other set, expected {own}; compare equal classes")
    other_counts = other.counts(attribute)
    changes = compare_counts(counts, other_counts, mu, **vars(sampling))
    return Comparison(
        n=int(other_counts.sum()),
        shares=tuple(share_estimates(other_counts, sampling.confidence)),
        differences=changes.shares,
        p_value=changes.p_value,
        distances=changes.distances,
    )


def _bias_dict(labels: Sequence[str], bias: Bias) -> dict[str, Any]:
    distances = {name: getattr(bias, name).as_dict() for name in DISTANCES}
    return {"n": bias.n, "shares": by_label(labels, bias.shares), **distances}
