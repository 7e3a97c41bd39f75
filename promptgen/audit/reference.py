"""Target shares that a classifier reads off a folder of images."""

from __future__ import annotations

from pathlib import Path

from promptgen.audit.folder import label_files, labelled_folder
from promptgen.audit.images import find_files
from promptgen.audit.labelling import Labeller
from promptgen.errors import ConfigError
from promptgen.figures import Interval, ReferenceImages
from promptgen.labels import classes, factors
from promptgen.metrics.shares import share_estimates
from promptgen.perception.base import Classifier

LEAST_IMAGES = 30
"""Fewest images whose shares can be a target."""


def reference_shares(
    folder: Path, classifier: Classifier, attribute: str, *, batch: int, confidence: float, name: str = "the classifier"
) -> ReferenceImages:
    """Return the shares of an attribute in a folder of images.

    Args:
        folder: the folder; its files are read as by an audit.
        classifier: labels the images.
        attribute: attribute or product of attributes.
        batch: images at a time.
        confidence: level of the intervals.
        name: what errors call the classifier.

    Raises:
        ConfigError: the attribute is unknown, the folder has too few images, or no image is of some class.
        DataError: the folder is missing or has no readable image.
    """
    labels = classes(classifier.attributes, attribute)
    labeller = Labeller(classifier, name=name, wanted=set(factors(classifier.attributes, attribute)))
    read = labelled_folder(folder, [label_files(folder, find_files(folder), [labeller], batch=batch)])
    counts = read.labels[0].counts(attribute)
    n, left_out = int(counts.sum()), [*read.images.unread, *read.images.unlabelled]
    if n < LEAST_IMAGES:
        first = f"; {left_out[0].name}: {left_out[0].reason}" if left_out else ""
        raise ConfigError(f"{folder} has {n} labelled images, expected at least {LEAST_IMAGES} for a target{first}")
    if missing := [label for label, count in zip(labels, counts, strict=True) if not count]:
        raise ConfigError(
            f"{name} sees no {attribute} {' or '.join(missing)} in the {n} images of {folder}, but a target needs "
            "some of every class: add images, or give the shares yourself"
        )
    estimates = map(Interval.of, share_estimates(counts, confidence))
    return ReferenceImages(
        folder=folder.name, n=n, left_out=len(left_out), shares=dict(zip(labels, estimates, strict=True))
    )
