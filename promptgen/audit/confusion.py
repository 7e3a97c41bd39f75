"""Confusion tables: where a classifier errs, from labelled images or from its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptgen.audit.labelling import Indices, read_table
from promptgen.config.models import CardModel, JointModel, ReaderSpec
from promptgen.errors import DataError
from promptgen.model_files.cards import find_card


@dataclass(frozen=True)
class Confusion:
    """How the labels that somebody reads go with the true ones.

    Attributes:
        attribute: what was labelled.
        labels: its classes.
        counts: labelled images by true class (rows) and class read, (K, K).

    Raises:
        DataError: the counts are of another number of classes.
    """

    attribute: str
    labels: Sequence[str]
    counts: Indices

    def __post_init__(self) -> None:
        if self.counts.shape != (expected := (len(self.labels), len(self.labels))):
            classes = f"{self.attribute} ({', '.join(self.labels)})"
            raise DataError(f"the confusion table of {classes} must be of shape {expected}, got {self.counts.shape}")

    def ordered(self, labels: Sequence[str]) -> Indices:
        """Return the counts with their classes in another order.

        Raises:
            DataError: these are not the table's classes.
        """
        if sorted(labels) != sorted(self.labels):
            known, wanted = ", ".join(self.labels), ", ".join(labels)
            raise DataError(f"the confusion table of {self.attribute} has the classes {known}, expected {wanted}")
        order = [list(self.labels).index(label) for label in labels]
        return np.asarray(self.counts[np.ix_(order, order)])


def card_confusions(spec: ReaderSpec, attributes: Mapping[str, Sequence[str]], models: Path) -> dict[str, Confusion]:
    """Return the confusion tables on the cards of a classifier, by attribute.

    A classifier by words has none: its classes are the user's, whatever was measured of its network.

    Args:
        spec: the classifier.
        attributes: class labels of each attribute it knows, in the order of the tables.
        models: folder of the weight files.

    Raises:
        ConfigError: there is no such card.
        DataError: a table has another number of classes than the classifier.
    """
    found = {}
    for part in spec.classifiers if isinstance(spec, JointModel) else [spec]:
        figures_by_attribute = find_card(part.model, models).quality if isinstance(part, CardModel) else {}
        for attribute, figures in figures_by_attribute.items():
            if attribute in attributes and isinstance(figures, Mapping) and "confusion" in figures:
                found[attribute] = Confusion(attribute, attributes[attribute], np.array(figures["confusion"]))
    return found


def read_confusion(path: Path) -> Confusion:
    """Return the confusion table of a CSV file.

    The first line has the name of the attribute and then the classes read; each other line has a true class, and then
    how many labelled images of it were read as each class.

    Raises:
        DataError: the file is no such table.
    """
    (attribute, *read), rows = read_table(path)
    true = [row[0] for row in rows]
    if sorted(read) != sorted(true):
        raise DataError(f"{path}: read are {', '.join(read)}, true are {', '.join(true)}; name the same classes")
    try:
        counts = np.array([[int(cell) for cell in row[1:]] for row in rows], dtype=np.int64)
    except ValueError as error:
        raise DataError(f"{path}: a count is no whole number ({error})") from error
    return Confusion(attribute, read, counts[[true.index(label) for label in read]])
