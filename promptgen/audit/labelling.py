"""Labels of a set of images, and how a classifier gives them. Labels of people are *perceived* labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.labels import classes, factors, knows
from promptgen.metrics.estimate import Vector
from promptgen.metrics.shares import class_counts, joint_labels
from promptgen.networks.devices import find_device, placed
from promptgen.networks.finite import unclear
from promptgen.perception.base import Classifier, logits_of_files
from promptgen.perception.reading import promised

Indices = NDArray[np.int64]

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
        return [name for name, indices in labelled.items() if len(np.unique(indices)) < len(indices)]

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
        indices = np.full(self.n, NO_LABEL, dtype=np.int64)
        indices[labelled] = positions
        attributes = {**self.attributes, attribute: tuple(labels[index] for index in occurring)}
        return replace(self, attributes=attributes, indices={**self.indices, attribute: indices})

    def _moved(self, attributes: Mapping[str, tuple[str, ...]], names: Mapping[str, Mapping[str, str]]) -> Labels:
        """Return the same labels, under their new `names` if they have any, as classes of `attributes`."""
        moved = {}
        for name, labels in self.attributes.items():
            position = {label: index for index, label in enumerate(attributes[name])}
            new = [position[names.get(name, {}).get(label, label)] for label in labels]
            moved[name] = np.array([*new, NO_LABEL], dtype=np.int64)[self.indices[name]]  # the last one is at -1, too
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
        groups = np.array(self.groups)
        return {str(name): self._part(groups == name) for name in np.unique(groups) if name}

    def _part(self, chosen: NDArray[np.bool_]) -> Labels:
        indices = {name: values[chosen] for name, values in self.indices.items()}
        return Labels(self.attributes, indices, {name: rows[chosen] for name, rows in self.probabilities.items()})


class Labeller:
    """Collects a classifier's labels and probabilities over batches of images from files, without keeping the images.

    A network that prepares files in another way than generated images does so, see
    `promptgen.perception.base.ReadsFiles`.

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
            logits = logits_of_files(self.classifier, image.to(self.device))
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
