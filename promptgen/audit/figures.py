"""The bias of labelled images, whoever made them, attribute by attribute, with the numbers that the loop goes by.

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
from promptgen.audit.labelling import Indices, Labels
from promptgen.errors import DataError
from promptgen.labels import classes, target_shares
from promptgen.metrics.bias import DISTANCES, Bias, measure_bias, measure_soft_bias
from promptgen.metrics.comparison import compare_counts
from promptgen.metrics.correction import corrected_shares, impossible_classes
from promptgen.metrics.estimate import Difference, Estimate, Vector, by_label
from promptgen.metrics.shares import share_estimates


@dataclass(frozen=True)
class Sampling:
    """How intervals are made.

    Attributes:
        confidence: probability that an interval covers.
        resamples: simulations behind each interval of a distance, each correction and each test.
        seed: seed of all of them.
    """

    confidence: float = 0.95
    resamples: int = 1000
    seed: int = 0


SAMPLING = Sampling()


@dataclass(frozen=True)
class Comparison:
    """How the shares of one set of images differ from those of another one.

    Attributes:
        n: number of images of the other set.
        shares: its share of each class.
        differences: share here minus share there, of each class.
        p_value: of all shares being the same.
        distances: distance to the target here minus there, by name.
    """

    n: int
    shares: tuple[Estimate, ...]
    differences: tuple[Difference, ...]
    p_value: float
    distances: Mapping[str, Difference]

    def as_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return all numbers as plain dicts, classes by name."""
        return {
            "n": self.n,
            "shares": by_label(labels, self.shares),
            "differences": by_label(labels, self.differences),
            "p_value": self.p_value,
            "distances": {name: each.as_dict() for name, each in self.distances.items()},
        }


@dataclass(frozen=True)
class Audit:
    """What is known of one attribute, or product of attributes.

    Attributes:
        attribute: its name.
        labels: its classes.
        bias: shares and distances, each image counted as its most probable class.
        soft: the same from mean probabilities; None if only labels are known, or there is one image.
        judge: the same as `bias` by another classifier; None if none looked at this attribute.
        corrected: shares without the classifier's known errors; None if they are not known.
        impossible: the classes whose counts these errors cannot give, whatever the true shares; `corrected` is then not
            to be trusted.
        comparison: None if there is nothing to compare with.
        groups: None if the images are in no groups.
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
        """Tell whether the shares lie further from the target than chance explains, by their KL."""
        return self.bias.kl.low > 0

    @property
    def disputed(self) -> tuple[str, ...]:
        """The classes that classifier and judge see differently, beyond both intervals."""
        if self.judge is None:
            return ()
        pairs = zip(self.labels, self.bias.shares, self.judge.shares, strict=True)
        return tuple(label for label, one, other in pairs if one.high < other.low or other.high < one.low)

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers as plain dicts, classes by name."""
        found: dict[str, Any] = {
            **_bias_dict(self.labels, self.bias),
            "target": dict(zip(self.labels, self.bias.target, strict=True)),
            "noise_floors": self.bias.noise_floors,
            "off_target": self.off_target,
            "disputed": list(self.disputed),
        }
        for name, other in (("soft", self.soft), ("judge", self.judge)):
            found[name] = _bias_dict(self.labels, other) if other else None
        found["corrected"] = by_label(self.labels, self.corrected) if self.corrected else None
        found["impossible"] = list(self.impossible)
        found["comparison"] = self.comparison.as_dict(self.labels) if self.comparison else None
        found["groups"] = self.groups.as_dict(self.labels) if self.groups else None
        return found


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
        read: the labels.
        attribute: what to count: an attribute, or a product such as ``"hair x glasses"``.
        target: wanted share of each class; None wants all the same.
        judge: what another classifier reads off the same images; left out if it does not know the attribute.
        other: labels of other images to compare with, by the same classes.
        confusion: how the labels of this attribute go with the true ones.
        sampling: how intervals are made.

    Raises:
        ConfigError: the attribute is unknown, or the target is not one of its classes' shares.
        DataError: the attribute has one class, a wanted share is zero, `other` or `confusion` has other classes, or
            the confusion is no better than chance.
        TooFewSamplesError: there are no images, or there is one group.
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
    """Return the judge's figures, in the order of `labels`; None if it knows no such classes."""
    if judge is None or not judge.knows(attribute):
        return None
    known = classes(judge.attributes, attribute)
    if sorted(known) != sorted(labels):
        return None
    order = [known.index(label) for label in labels]
    return measure_bias(judge.counts(attribute)[order], target_shares(labels, target), **options)


def _corrected(
    counts: Indices, attribute: str, labels: Sequence[str], confusion: Confusion | None, options: Mapping[str, Any]
) -> tuple[tuple[Estimate, ...] | None, tuple[str, ...]]:
    """Return shares without the classifier's errors, None if these are not known; and the classes that have none."""
    if confusion is None:
        return None, ()
    table = confusion.ordered(labels)
    try:
        shares, outside = corrected_shares(counts, table, **options), impossible_classes(counts, table, **options)
    except DataError as error:
        raise DataError(f"the confusion table of {attribute} corrects nothing: {error}") from error
    return tuple(shares), tuple(labels[index] for index in outside)


def _compared(
    counts: Indices, other: Labels, attribute: str, labels: Sequence[str], mu: Vector, sampling: Sampling
) -> Comparison:
    known = classes(other.attributes, attribute)
    if tuple(known) != tuple(labels):
        raise DataError(f"{attribute} has the classes {', '.join(known)} there, and {', '.join(labels)} here")
    there = other.counts(attribute)
    changes = compare_counts(counts, there, mu, **vars(sampling))
    return Comparison(
        n=int(there.sum()),
        shares=tuple(share_estimates(there, sampling.confidence)),
        differences=changes.shares,
        p_value=changes.p_value,
        distances=changes.distances,
    )


def _bias_dict(labels: Sequence[str], bias: Bias) -> dict[str, Any]:
    distances = {name: getattr(bias, name).as_dict() for name in DISTANCES}
    return {"n": bias.n, "shares": by_label(labels, bias.shares), **distances}
