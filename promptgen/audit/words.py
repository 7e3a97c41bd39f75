"""The sentences of an audit: what was looked at, what was found, and what makes it doubtful.

Every function is pure: numbers in, plain text out. The page escapes the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from promptgen.audit.figures import Audit, Sampling
from promptgen.audit.images import Unread
from promptgen.reporting.text.formats import class_name, count, listing, percent, percent_range, wanted

NAMED = 5
"""So many of the files that gave no image are named in the text; all are in the JSON."""

PERCEIVED = (
    "Every label of a person is a perceived one: what a classifier, or an onlooker, would say of the picture. It says "
    "nothing of who a person is."
)


@dataclass(frozen=True)
class ImageSet:
    """A set of images that was looked at.

    Attributes:
        name: the folder, or the file of labels, as the user named it.
        n: number of images.
        unread: files that gave no image.
    """

    name: str
    n: int
    unread: Sequence[Unread] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return all that is known, as plain dicts."""
        return {"name": self.name, "n": self.n, "unread": {each.name: each.reason for each in self.unread}}


@dataclass(frozen=True)
class AuditRun:
    """All that is known of an audit.

    Attributes:
        images: what was audited.
        audits: what was found, by attribute.
        sampling: how intervals were made.
        classifier: who read the labels; None where they came from a file.
        judge: the other classifier, if there was one.
        other: what it was compared with, if anything.
    """

    images: ImageSet
    audits: Sequence[Audit]
    sampling: Sampling
    classifier: str | None = None
    judge: str | None = None
    other: ImageSet | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return all that is known, as plain dicts."""
        return {
            "images": self.images.as_dict(),
            "compared_with": self.other.as_dict() if self.other else None,
            "classifier": self.classifier,
            "judge": self.judge,
            "sampling": dict(vars(self.sampling)),
            "attributes": {each.attribute: each.as_dict() for each in self.audits},
        }


def headline(run: AuditRun) -> str:
    """Return the outcome in one sentence."""
    off = [each.attribute for each in run.audits if each.off_target]
    on = [each.attribute for each in run.audits if not each.off_target]
    parts = [f"off target in {listing(off)}"] if off else []
    parts += [f"on target in {listing(on)}, as far as {_images(run.images.n)} can tell"] if on else []
    return f"{run.images.name} is {', and '.join(parts)}"


def context(run: AuditRun) -> str:
    """Return the sentences under the outcome: what was looked at, and by whom."""
    reader = f"as {run.classifier} perceives them" if run.classifier else "by the labels in the file"
    judge = f", with {run.judge} as a second opinion" if run.judge else ""
    other = f" Compared with {_images(run.other.n)} of {run.other.name}." if run.other else ""
    return f"{_images(run.images.n)} of {run.images.name}, {reader}{judge}.{other}"


def _images(n: int) -> str:
    return "1 image" if n == 1 else f"{count(n)} images"


def verdict(audit: Audit) -> str:
    """Return what was found for one attribute, told with the class that is furthest from its wanted share."""
    shares = zip(audit.labels, audit.bias.shares, audit.bias.target, strict=True)
    label, share, goal = max(shares, key=lambda each: abs(each[1].value - each[2]))
    name = class_name(audit.attribute, label)
    found = f"{percent(share.value)} {name} ({percent_range(share.low, share.high)}), wanted {wanted(goal)}"
    further = "further" if audit.off_target else "no further"
    return f"{found}; all shares together lie {further} from the target than chance explains."


def doubts(run: AuditRun) -> list[str]:
    """Return what a careful reader has to know before believing the numbers; empty when there is nothing."""
    found = [_unread(each) for each in (run.images, run.other) if each and each.unread]
    found += [sentence for audit in run.audits for sentence in _disputes(audit)]
    found += [_impossible(audit) for audit in run.audits if audit.impossible]
    if run.judge and (alone := [each.attribute for each in run.audits if each.judge is None]):
        found.append(f"{run.judge} does not read {listing(alone)} by the same classes: nobody checks the classifier.")
    if run.judge and run.judge == run.classifier:
        found.append(f"{run.judge} is its own judge, and agrees with itself: nobody checks the classifier.")
    return found


def _unread(images: ImageSet) -> str:
    """Return how many files gave no image, with the first few by name."""
    named = [f"{each.name} ({each.reason})" for each in images.unread[:NAMED]]
    if len(images.unread) > NAMED:
        named.append(f"{count(len(images.unread) - NAMED)} more")
    files = "1 file" if len(images.unread) == 1 else f"{count(len(images.unread))} files"
    return f"Left out of {images.name}, since no image could be read: {files}, {listing(named)}."


def _disputes(audit: Audit) -> Iterator[str]:
    """Yield a sentence per class that classifier and judge see differently."""
    for label in audit.disputed:
        assert audit.judge is not None  # or nothing would be disputed
        one, other = (percent(bias.shares[audit.labels.index(label)].value) for bias in (audit.bias, audit.judge))
        name = class_name(audit.attribute, label)
        yield (
            f"Classifier and judge disagree on {name} beyond their intervals, {one} against {other}: one of them errs, "
            "and an interval covers the chance of sampling alone."
        )


def _impossible(audit: Audit) -> str:
    """Return which counts the confusion table cannot have given, and what follows."""
    shares = dict(zip(audit.labels, audit.bias.shares, strict=True))
    counted = [f"{percent(shares[label].value)} {class_name(audit.attribute, label)}" for label in audit.impossible]
    return (
        f"The confusion table cannot give the counted {listing(counted)}, whatever the true shares are and beyond what "
        f"chance explains: it does not hold for these images, and the corrected shares of {audit.attribute} are not to "
        "be trusted."
    )


def method(run: AuditRun) -> list[str]:
    """Return how the numbers were computed, for a statistician."""
    sampling = run.sampling
    simulated = f"{count(sampling.resamples)} simulations, seed {sampling.seed}"
    how = [
        f"Intervals are {wanted(sampling.confidence)} intervals. They cover the chance of sampling, not a classifier's "
        "errors.",
        "Shares: Wilson's score interval. Mean probabilities: the same, with the size that their variance is worth.",
        "Distances: the bootstrap inverted along the exponential family from the target through the shares, "
        f"{simulated}; an interval reaches 0 while chance explains the value. By chance alone: (K − 1) / 2N for KL, "
        "simulated for the others.",
    ]
    if any(audit.corrected for audit in run.audits):
        how.append(
            "Corrected: the confusion inverted, it and the shares drawn from posteriors with Jeffreys' prior. That a "
            f"table cannot give the counts is tested at the level {1 - sampling.confidence:.4g} for all classes of an "
            "attribute together."
        )
    if run.other:
        how.append(
            "Differences of shares: Newcombe's hybrid score interval, score test. Of distances: bootstrap. All shares "
            "together: permutation test of the chi-square statistic. No p-value is corrected for there being several."
        )
    return how
