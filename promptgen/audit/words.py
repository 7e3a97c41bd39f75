"""Sentences of an audit: the audited images, the results, the warnings and the method.

All functions are pure and return plain text; the page escapes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptgen.audit.figures import Audit, Sampling
from promptgen.audit.images import Unread
from promptgen.audit.label_file import DIFFERENT
from promptgen.audit.spelling import visible
from promptgen.reporting.text.formats import class_name, count, listing, percent, percent_range, wanted

NAMED = 5
"""Number of unreadable files that the text names; the JSON lists all of them."""

PERCEIVED = (
    "Labels of people are perceived labels: what a classifier, or an observer, would say about an image. They say "
    "nothing about who a person is."
)


@dataclass(frozen=True)
class ImageSet:
    """A set of audited images.

    Attributes:
        name: the folder or the file of labels, as the user named it.
        n: number of images.
        unread: files that could not be read as images.
        unlabelled: images that classifier or judge gave no proper numbers for.
        missing: lines of a file of labels that have no label of an attribute, by attribute.
        headless: columns of a file of labels whose name is one of their labels.
    """

    name: str
    n: int
    unread: Sequence[Unread] = ()
    unlabelled: Sequence[Unread] = ()
    missing: Mapping[str, Sequence[int]] = field(default_factory=dict)
    headless: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return all figures as plain dicts."""
        left_out = {"unread": self.unread, "unlabelled": self.unlabelled}
        files = {name: {file.name: file.reason for file in images} for name, images in left_out.items()}
        missing = {name: list(lines) for name, lines in self.missing.items()}
        return {"name": self.name, "n": self.n, **files, "missing": missing, "headless": list(self.headless)}


@dataclass(frozen=True)
class AuditRun:
    """Results of an audit.

    Attributes:
        images: the audited images.
        audits: figures of each attribute.
        sampling: settings of intervals and tests.
        classifier: the classifier; None if the labels came from a file.
        judge: the second classifier; None without one.
        other: the images of the comparison; None without one.
        not_counted: why columns of a file of labels were not counted, by name.
        alike: labels that differ only in spelling, by attribute.
        one_sided: labels that only one of two files has, by attribute and file.
    """

    images: ImageSet
    audits: Sequence[Audit]
    sampling: Sampling
    classifier: str | None = None
    judge: str | None = None
    other: ImageSet | None = None
    not_counted: Mapping[str, str] = field(default_factory=dict)
    alike: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    one_sided: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return all figures as plain dicts."""
        return {
            "images": self.images.as_dict(),
            "compared_with": self.other.as_dict() if self.other else None,
            "classifier": self.classifier,
            "judge": self.judge,
            "sampling": dict(vars(self.sampling)),
            "not_counted": dict(self.not_counted),
            "alike": {name: [list(group) for group in groups] for name, groups in self.alike.items()},
            "one_sided": {name: dict(files) for name, files in self.one_sided.items()},
            "attributes": {audit.attribute: audit.as_dict() for audit in self.audits},
        }


def headline(run: AuditRun) -> str:
    """Return the outcome in one sentence."""
    off = [audit.attribute for audit in run.audits if audit.off_target]
    on = [audit.attribute for audit in run.audits if not audit.off_target]
    parts = [f"off target in {listing(off)}"] if off else []
    parts += [f"on target in {listing(on)}, as far as {_several(run.images.n, 'image')} can tell"] if on else []
    return f"{run.images.name} is {', and '.join(parts)}"


def context(run: AuditRun) -> str:
    """Return the sentences below the headline: the images, the classifier and the judge."""
    reader = f"as {run.classifier} perceives them" if run.classifier else "by the labels in the file"
    judge = f", with {run.judge} as a second opinion" if run.judge else ""
    other = f" Compared with {_several(run.other.n, 'image')} of {run.other.name}." if run.other else ""
    return f"{_several(run.images.n, 'image')} of {run.images.name}, {reader}{judge}.{other}"


def _several(n: int, noun: str) -> str:
    return f"1 {noun}" if n == 1 else f"{count(n)} {noun}s"


def verdict(audit: Audit) -> str:
    """Return the result for one attribute, with the class whose share is furthest from its target."""
    shares = zip(audit.labels, audit.bias.shares, audit.bias.target, strict=True)
    label, share, goal = max(shares, key=lambda row: abs(row[1].value - row[2]))
    name = class_name(audit.attribute, label)
    shown = f"{percent(share.value)} {name} ({percent_range(share.low, share.high)}), wanted {wanted(goal)}"
    further = "further" if audit.off_target else "no further"
    return f"{shown}; all shares together are {further} from the target than chance explains."


def doubts(run: AuditRun) -> list[str]:
    """Return the warnings about the figures; empty if there are none."""
    warnings = [sentence for images in (run.images, run.other) if images for sentence in _left_out(images)]
    warnings += _of_labels(run)
    warnings += [sentence for audit in run.audits for sentence in _disputes(audit)]
    warnings += [_impossible(audit) for audit in run.audits if audit.impossible]
    if run.judge and (alone := [audit.attribute for audit in run.audits if audit.judge is None]):
        warnings.append(f"{run.judge} lacks the same classes of {listing(alone)}, so no judge checks the classifier.")
    if run.judge and run.judge == run.classifier:
        warnings.append(f"{run.judge} is both classifier and judge, so the judge is not an independent check.")
    return warnings


def _left_out(images: ImageSet) -> Iterator[str]:
    """Yield what a set lacks: files that could not be read or labelled, and labels; the first few by name."""
    if images.unread:
        files = _several(len(images.unread), "file")
        yield f"Skipped {files} of {images.name} that could not be read: {_named(images.unread)}."
    if images.unlabelled:
        files = _several(len(images.unlabelled), "file")
        yield f"Left out {files} of {images.name} that could not be labelled: {_named(images.unlabelled)}."
    if images.headless:
        yield (
            f"The first line of {images.name} names {listing([*images.headless])}, which are also labels: if the file "
            "has no header, its first row is lost; write the names of the columns above it."
        )
    for name, lines in images.missing.items():
        rows, where = _several(len(lines), "row"), "line" if len(lines) == 1 else "lines"
        numbers = _first([str(line) for line in lines])
        yield f"Left out {rows} of {images.name} without a label of {name}: {where} {numbers}."


def _named(files: Sequence[Unread]) -> str:
    """Return the first few files, each with its reason, and the number of the others."""
    return _first([f"{file.name} ({file.reason})" for file in files])


def _first(items: list[str]) -> str:
    """Return the first few items and the number of the others."""
    return listing([*items[:NAMED], *([f"{count(len(items) - NAMED)} more"] if len(items) > NAMED else [])])


def _of_labels(run: AuditRun) -> Iterator[str]:
    """Yield what is doubtful about files of labels."""
    for name, groups in run.alike.items():
        for group in groups:
            labels = listing([f'"{visible(label)}"' for label in group])
            yield f"The labels {labels} of {name} may be spellings of one class: write them alike, or add --normalise."
    for name, files in run.one_sided.items():
        for file, only in files.items():
            labels = f"{'label' if len(only) == 1 else 'labels'} {_first([*only])}"
            yield f"Only {file} has the {labels} of {name}, which the shares and a uniform target of both sets include."
    for audit in run.audits:
        if audit.groups and audit.groups.empty:
            yield f"No image of {_first([*audit.groups.empty])} has a label of {audit.attribute}: no group there."
    unexpected = {name: reason for name, reason in run.not_counted.items() if reason != DIFFERENT}
    if unexpected:
        columns = listing([f"{name} ({reason})" for name, reason in unexpected.items()])
        yield f"Not counted, because not asked for: {columns}; --attribute counts any column."


def _disputes(audit: Audit) -> Iterator[str]:
    """Yield a sentence per class on which classifier and judge disagree."""
    for label in audit.disputed:
        assert audit.judge is not None  # a class is disputed only with a judge
        one, other = (percent(bias.shares[audit.labels.index(label)].value) for bias in (audit.bias, audit.judge))
        name = class_name(audit.attribute, label)
        yield (
            f"Classifier and judge disagree on {name} beyond their intervals, {one} against {other}: one of them is "
            "wrong, and an interval covers sampling error alone."
        )


def _impossible(audit: Audit) -> str:
    """Return which counts the confusion table cannot produce, and what follows."""
    shares = dict(zip(audit.labels, audit.bias.shares, strict=True))
    counted = [f"{percent(shares[label].value)} {class_name(audit.attribute, label)}" for label in audit.impossible]
    return (
        f"The confusion table cannot produce the counted {listing(counted)} for any true shares, beyond what chance "
        f"explains: it does not apply to these images, and the corrected shares of {audit.attribute} are not reliable."
    )


def method(run: AuditRun) -> list[str]:
    """Return how the figures were computed, for a statistician."""
    sampling = run.sampling
    simulated = f"{count(sampling.resamples)} simulations, seed {sampling.seed}"
    how = [
        f"Intervals are {wanted(sampling.confidence)} intervals. They cover sampling error, not the errors of a "
        "classifier.",
        "Shares: Wilson's score interval. Mean probabilities: the same, with the size implied by their variance.",
        "Distances: the bootstrap inverted along the exponential family from the target through the shares, "
        f"{simulated}; an interval reaches 0 while chance explains the value. By chance alone: (K − 1) / 2N for KL, "
        "simulated for the others.",
    ]
    if any(audit.corrected for audit in run.audits):
        how.append(
            "Corrected: inverse of the confusion table; table and shares drawn from posteriors with Jeffreys' prior; "
            f"a test at the level {1 - sampling.confidence:.4g}, for all classes of an attribute together, tells "
            "whether the table can produce the counts."
        )
    if run.other:
        how.append(
            "Differences of shares: Newcombe's hybrid score interval, score test. Of distances: bootstrap. All shares "
            "together: permutation test of the chi-square statistic. P-values are not corrected for multiple testing."
        )
    return how
