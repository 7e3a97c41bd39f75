"""Confusion tables of classifiers, read from a CSV file or from a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptgen.audit.labels import Indices
from promptgen.config.models import CardModel, JointModel, ReaderSpec
from promptgen.csv_file import read_csv
from promptgen.errors import DataError
from promptgen.model_files.cards import find_card


@dataclass(frozen=True)
class Confusion:
    """Confusion table of a classifier: labels as read against true labels.

    Attributes:
        attribute: name of the labelled attribute.
        labels: its classes.
        counts: number of labelled images by true class (rows) and predicted class (columns), (K, K).

    Raises:
        DataError: the shape of `counts` does not match the number of classes.
    """

    attribute: str
    labels: Sequence[str]
    counts: Indices

    def __post_init__(self) -> None:
        if self.counts.shape != (expected := (len(self.labels), len(self.labels))):
            classes = f"{self.attribute} ({', '.join(self.labels)})"
            raise DataError(f"the confusion table of {classes} must be of shape {expected}, got {self.counts.shape}")

    def ordered(self, labels: Sequence[str]) -> Indices:
        """Return the counts with rows and columns in the order of `labels`.

        Raises:
            DataError: `labels` are not the classes of the table.
        """
        if sorted(labels) != sorted(self.labels):
            own, expected = ", ".join(self.labels), ", ".join(labels)
            raise DataError(f"the confusion table of {self.attribute} has the classes {own}, expected {expected}")
        order = [list(self.labels).index(label) for label in labels]
        return np.asarray(self.counts[np.ix_(order, order)])


def card_confusions(spec: ReaderSpec, attributes: Mapping[str, Sequence[str]], models: Path) -> dict[str, Confusion]:
    """Return the confusion tables on the cards of a classifier, by attribute.

    A classifier by text has none, because the user defines its classes.

    Args:
        spec: the classifier.
        attributes: class labels of each of its attributes, in the order of the tables.
        models: folder of the weight files.

    Raises:
        ConfigError: there is no such card.
        DataError: the number of classes of a table differs from that of the classifier.
    """
    tables = {}
    for part in spec.classifiers if isinstance(spec, JointModel) else [spec]:
        figures_by_attribute = find_card(part.model, models).quality if isinstance(part, CardModel) else {}
        for attribute, figures in figures_by_attribute.items():
            if attribute in attributes and isinstance(figures, Mapping) and "confusion" in figures:
                tables[attribute] = Confusion(attribute, attributes[attribute], np.array(figures["confusion"]))
    return tables


def read_confusion(path: Path) -> Confusion:
    """Return the confusion table of a CSV file.

    The first line names the attribute and then the predicted classes. Each further line names a true class, followed by
    the number of its labelled images that were read as each class.

    Raises:
        DataError: the file is not a confusion table.
    """
    table = read_csv(path)
    (attribute, *predicted), rows = table.names, table.rows
    true = [row[0] for row in rows]
    if not attribute:
        raise DataError(f"{path}: the first cell is empty; write the attribute there")
    if sorted(predicted) != sorted(true):
        raise DataError(
            f"{path}: the columns are {', '.join(predicted)}, the rows {', '.join(true)}; name the same classes in both"
        )
    try:
        counts = np.array([[int(cell) for cell in row[1:]] for row in rows], dtype=np.int64)
    except ValueError as error:
        raise DataError(f"{path}: expected whole numbers ({error})") from error
    return Confusion(attribute, predicted, counts[[true.index(label) for label in predicted]])
