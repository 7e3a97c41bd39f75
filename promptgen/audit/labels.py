"""Labels of a set of images, one class or none of each attribute. Labels of people are *perceived* labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptgen.labels import classes, factors, knows
from promptgen.metrics.estimate import Vector
from promptgen.metrics.shares import class_counts, joint_labels

Indices = NDArray[np.signedinteger[Any]]

NO_LABEL = -1
"""Class index of an image that has no label of an attribute."""


@dataclass(frozen=True)
class Labels:
    """Labels of a set of images.

    Attributes:
        attributes: class labels of each attribute.
        indices: class index of each image, (N,), by attribute; `NO_LABEL` where it has none.
        probabilities: class probabilities of each image, (N, K), by attribute; empty without a classifier.
        groups: name of each image's group, (N,), such as the occupation in its prompt, or an empty name; empty without
            groups.
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
        labelled = {name: indices[indices != NO_LABEL] for name, indices in self.indices.items()}
        return [name for name, indices in labelled.items() if indices.size and np.bincount(indices).max() > 1]

    def knows(self, attribute: str) -> bool:
        """Return whether there are labels for all factors of an attribute."""
        return knows(self.attributes, attribute)

    def counts(self, attribute: str) -> Indices:
        """Return the number of images in each class of `attribute`, which may be a product, (K,).

        Images that have no label of a factor are not counted.

        Raises:
            ConfigError: there are no labels for a factor.
        """
        k, names = len(classes(self.attributes, attribute)), factors(self.attributes, attribute)
        sizes = [len(self.attributes[name]) for name in names]
        table = np.stack([self.indices[name] for name in names])
        labelled = table[:, (table != NO_LABEL).all(axis=0)]
        return class_counts(joint_labels(list(labelled), sizes), k)

    def soft(self, attribute: str) -> Vector | None:
        """Return the class probabilities of each image, (N, K); None without a classifier.

        The factors of a product are assumed to be independent given the image.
        """
        if not knows(self.probabilities, attribute):
            return None
        rows = [self.probabilities[name] for name in factors(self.probabilities, attribute)]
        return reduce(lambda a, b: np.asarray((a[:, :, None] * b[:, None, :]).reshape(len(a), -1)), rows)

    @classmethod
    def of_parts(cls, parts: Sequence[Labels], groups: Sequence[str] = ()) -> Labels:
        """Return the labels of all parts of a set of images, by the same classes, in groups if there are any."""
        first = parts[0]
        return cls(
            first.attributes,
            {name: np.concatenate([part.indices[name] for part in parts]) for name in first.indices},
            {name: np.concatenate([part.probabilities[name] for part in parts]) for name in first.probabilities},
            groups,
        )

    def extended(self, also: Mapping[str, Sequence[str]]) -> Labels:
        """Return the labels with additional, empty classes; all classes are sorted.

        Args:
            also: additional classes by attribute; attributes without labels are ignored.
        """
        attributes = {name: tuple(sorted({*labels, *also.get(name, ())})) for name, labels in self.attributes.items()}
        return self._moved(attributes, {})

    def renamed(self, names: Mapping[str, Mapping[str, str]]) -> Labels:
        """Return the labels under other names, and labels under the same name as one class; all classes are sorted.

        Args:
            names: new name of each label, by attribute.
        """
        attributes = {
            name: tuple(sorted({names[name][label] for label in labels})) for name, labels in self.attributes.items()
        }
        return self._moved(attributes, names)

    def joined(self, attribute: str) -> Labels:
        """Return the labels with a product of attributes as an attribute of its own, of the classes that occur.

        Raises:
            ConfigError: there are no labels for a factor.
        """
        labels, names = classes(self.attributes, attribute), factors(self.attributes, attribute)
        table = np.stack([self.indices[name] for name in names])
        labelled = (table != NO_LABEL).all(axis=0)
        joint = joint_labels(list(table[:, labelled]), [len(self.attributes[name]) for name in names])
        occurring, positions = np.unique(joint, return_inverse=True)
        combinations = tuple(labels[index] for index in occurring)
        indices = small_indices(np.full(self.n, NO_LABEL), len(combinations))
        indices[labelled] = positions
        return replace(
            self,
            attributes={**self.attributes, attribute: combinations},
            indices={**self.indices, attribute: indices},
        )

    def _moved(self, attributes: Mapping[str, tuple[str, ...]], names: Mapping[str, Mapping[str, str]]) -> Labels:
        """Return the same labels, under their new `names` if they have any, as classes of `attributes`."""
        moved = {}
        for name, labels in self.attributes.items():
            position = {label: index for index, label in enumerate(attributes[name])}
            new = [position[names.get(name, {}).get(label, label)] for label in labels]
            positions = small_indices([*new, NO_LABEL], len(attributes[name]))  # the last one is at -1, too
            moved[name] = positions[self.indices[name]]
        return replace(self, attributes=attributes, indices=moved, probabilities={})

    def grouped(self, attribute: str) -> Labels:
        """Return the labels with the classes of one attribute as groups; images without a label of it are in none.

        Raises:
            ConfigError: the attribute is unknown.
        """
        names = (*classes(self.attributes, attribute), "")
        return replace(self, groups=[names[index] for index in self.indices[attribute]])

    def by_group(self) -> dict[str, Labels]:
        """Return the labels of each group, sorted by its name."""
        positions: dict[str, int] = {}
        group = np.array([positions.setdefault(name, len(positions)) for name in self.groups], dtype=np.int32)
        images = np.split(np.argsort(group, kind="stable"), np.bincount(group).cumsum()[:-1])
        return {name: self._part(images[positions[name]]) for name in sorted(positions) if name}

    def _part(self, chosen: NDArray[np.int64]) -> Labels:
        indices = {name: values[chosen] for name, values in self.indices.items()}
        return Labels(self.attributes, indices, {name: rows[chosen] for name, rows in self.probabilities.items()})


def small_indices(values: Sequence[int] | NDArray[np.int64], k: int) -> Indices:
    """Return class indices of `k` classes, (N,), in the smallest integers that hold them and `NO_LABEL`."""
    return np.asarray(values).astype(np.min_scalar_type(-max(k, 1)))
