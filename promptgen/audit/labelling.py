"""Labels of a set of images, from a classifier or a CSV file. Labels of people are *perceived* labels."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptgen.devices import find_device, placed
from promptgen.errors import DataError, TooFewSamplesError
from promptgen.finite import unclear
from promptgen.labels import classes, factors, knows
from promptgen.metrics.estimate import Vector
from promptgen.metrics.shares import class_counts, joint_labels
from promptgen.perception.base import Classifier
from promptgen.perception.reading import promised

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Labels:
    """Labels of a set of images.

    Attributes:
        attributes: class labels of each attribute.
        indices: class index of each image, (N,), by attribute.
        probabilities: class probabilities of each image, (N, K), by attribute; empty without a classifier.
        groups: name of each image's group, (N,), such as the occupation in its prompt; empty without groups.
    """

    attributes: Mapping[str, tuple[str, ...]]
    indices: Mapping[str, Indices]
    probabilities: Mapping[str, Vector] = field(default_factory=dict)
    groups: Sequence[str] = ()

    @property
    def n(self) -> int:
        """Number of images."""
        return len(next(iter(self.indices.values())))

    def repeated(self) -> list[str]:
        """Return the attributes in which at least two images share a class; this excludes columns of file names."""
        return [name for name, indices in self.indices.items() if len(np.unique(indices)) < len(indices)]

    def knows(self, attribute: str) -> bool:
        """Return whether there are labels for all factors of an attribute."""
        return knows(self.attributes, attribute)

    def counts(self, attribute: str) -> Indices:
        """Return the number of images in each class of `attribute`, which may be a product, (K,).

        Raises:
            ConfigError: there are no labels for a factor.
        """
        k, names = len(classes(self.attributes, attribute)), factors(self.attributes, attribute)
        sizes = [len(self.attributes[name]) for name in names]
        return class_counts(joint_labels([self.indices[name] for name in names], sizes), k)

    def soft(self, attribute: str) -> Vector | None:
        """Return the class probabilities of each image, (N, K); None without a classifier.

        The factors of a product are assumed to be independent given the image.
        """
        if not knows(self.probabilities, attribute):
            return None
        rows = [self.probabilities[name] for name in factors(self.probabilities, attribute)]
        return reduce(lambda a, b: np.asarray((a[:, :, None] * b[:, None, :]).reshape(len(a), -1)), rows)

    def extended(self, also: Mapping[str, Sequence[str]]) -> Labels:
        """Return the labels with additional, empty classes; all classes are sorted.

        Args:
            also: additional classes by attribute; attributes without labels are ignored.
        """
        attributes = {name: tuple(sorted({*labels, *also.get(name, ())})) for name, labels in self.attributes.items()}
        moved = {
            name: np.array([attributes[name].index(label) for label in labels], dtype=np.int64)[self.indices[name]]
            for name, labels in self.attributes.items()
        }
        return replace(self, attributes=attributes, indices=moved, probabilities={})

    def grouped(self, attribute: str) -> Labels:
        """Return the labels with the classes of one attribute as groups.

        Raises:
            ConfigError: the attribute is unknown.
        """
        labels = classes(self.attributes, attribute)
        return replace(self, groups=[labels[index] for index in self.indices[attribute]])

    def by_group(self) -> dict[str, Labels]:
        """Return the labels of each group, sorted by its name."""
        groups = np.array(self.groups)
        return {str(name): self._part(groups == name) for name in np.unique(groups)}

    def _part(self, chosen: NDArray[np.bool_]) -> Labels:
        indices = {name: values[chosen] for name, values in self.indices.items()}
        return Labels(self.attributes, indices, {name: rows[chosen] for name, rows in self.probabilities.items()})


class Labeller:
    """Collects a classifier's labels and probabilities over batches of images, without keeping the images.

    Args:
        classifier: the classifier; a network is moved to `device`.
        device: device on which the classifier runs.
        name: what errors call the classifier.
        wanted: names of the attributes to keep, as far as the classifier knows them; None means all.

    Raises:
        ConfigError: the device is not available.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        device: str = "cpu",
        name: str = "the classifier",
        wanted: Collection[str] | None = None,
    ) -> None:
        self.device = find_device(device)
        self.classifier: Classifier = placed(classifier, self.device)
        self.name, self.wanted = name, wanted
        self._read: defaultdict[str, list[Tensor]] = defaultdict(list)

    def update(self, image: Tensor) -> None:
        """Classify a batch of images, (B, 3, H, W) in [0, 1].

        Raises:
            DataError: the classifier does not accept images of this size, the batch does not fit into memory, or a
                logit is NaN or infinite.
        """
        logits = self.logits(image)
        for index, reason in unclear(logits).items():
            raise DataError(f"{self.name}'s {reason} for image {index} of the batch; leave it out")
        self.keep(logits, torch.ones(len(image), dtype=torch.bool))

    @torch.no_grad()
    def logits(self, image: Tensor) -> dict[str, Tensor]:
        """Return the logits, (B, K) float64 on the CPU, of each attribute; they may be NaN or infinite.

        Raises:
            DataError: the classifier does not accept images of this size, the batch does not fit into memory, or an
                attribute lacks logits.
        """
        height, width = image.shape[2:]
        try:
            logits = self.classifier(image.to(self.device))
        except torch.OutOfMemoryError as error:
            raise DataError(f"{len(image)} images do not fit into memory; choose a smaller batch") from error
        except RuntimeError as error:
            raise DataError(f"the classifier rejects images of {width} x {height} ({error}); resize them") from error
        parts = promised(self.classifier, logits, len(image), self.name)
        kept = {name: part for name, part in parts.items() if self.wanted is None or name in self.wanted}
        return {name: part.double().cpu() for name, part in (kept or parts).items()}

    def keep(self, logits: Mapping[str, Tensor], chosen: Tensor) -> None:
        """Collect the labels and probabilities of those images of a batch that a mask, (B,), chooses."""
        for name, part in logits.items():
            self._read[name].append(part[chosen].softmax(dim=1))

    def compute(self) -> Labels:
        """Return the labels of all images so far.

        Raises:
            TooFewSamplesError: no image has been classified.
        """
        if not self._read:
            raise TooFewSamplesError("no image has been classified; give at least one")
        rows = {name: torch.cat(parts) for name, parts in self._read.items()}
        return Labels(
            attributes={name: tuple(self.classifier.attributes[name]) for name in rows},
            indices={name: p.argmax(dim=1).numpy() for name, p in rows.items()},
            probabilities={name: p.numpy() for name, p in rows.items()},
        )


def label(labellers: Sequence[Labeller], image: Tensor) -> dict[int, str]:
    """Label a batch of images, (B, 3, H, W), with each labeller, except those that one of them cannot read.

    An image with a NaN or an infinite logit is left out by all, so that their labels are of the same images.

    Returns:
        Why an image is left out, by its position in the batch.

    Raises:
        DataError: as of `Labeller.logits`.
    """
    logits = [labeller.logits(image) for labeller in labellers]
    left_out: dict[int, str] = {}
    for labeller, parts in zip(labellers, logits, strict=True):
        for index, reason in unclear(parts).items():
            left_out.setdefault(index, f"{labeller.name}'s {reason}")
    chosen = torch.tensor([index not in left_out for index in range(len(image))])
    for labeller, parts in zip(labellers, logits, strict=True):
        labeller.keep(parts, chosen)
    return dict(sorted(left_out.items()))


def read_labels(path: Path) -> Labels:
    """Return the labels of a CSV file with one column per attribute and one row per image.

    The first line names the attributes. The classes are the labels that occur, sorted.

    Raises:
        DataError: the file is not such a table, or a row lacks a label.
    """
    names, rows = read_table(path)
    attributes, indices = {}, {}
    for name, column in zip(names, zip(*rows, strict=True), strict=True):
        labels, position = np.unique(np.array(column), return_inverse=True)
        attributes[name], indices[name] = tuple(map(str, labels)), position.astype(np.int64)
    return Labels(attributes, indices)


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the column names and the rows of a CSV file, with surrounding blanks removed.

    Raises:
        DataError: the file is not a CSV table, has no rows, has a column without a unique name, or has an empty cell.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[cell.strip() for cell in row] for row in csv.reader(file, strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path} ({error}); give a CSV file in UTF-8") from error
    if len(lines) < 2:
        raise DataError(f"{path} has no rows; write the column names in the first line, then one row per image")
    names, *rows = lines
    if len(set(names)) < len(names) or "" in names:
        raise DataError(f"{path}: the columns are {', '.join(names)}; give each a name of its own")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names) or "" in row:
            raise DataError(f"{path}: row {number} has {sum(map(bool, row))} of {len(names)} cells; fill it in")
    return names, rows
