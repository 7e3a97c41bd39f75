"""What classifier, judge, and who knows the truth say of samples that come in batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from promptgen.build import build_classifier
from promptgen.energies.base import Sample
from promptgen.generators.base import Generator, HasTruth, conditioned_truth
from promptgen.perception.labels import probabilities
from steps.common import Pass


class Reading:
    """Labels and probabilities of all samples so far; the images themselves are not kept.

    Args:
        this: the pass that the samples are of.
        generator: what they are drawn from, which may know the truth.

    Attributes:
        attributes: labels of each attribute, by who reads them.
        n: samples read.
        images: images that the generator has made for that.

    Raises:
        ModelFileError: a weight file is missing or damaged.
    """

    def __init__(self, this: Pass, generator: Generator) -> None:
        debias, models = this.params.debias, this.project.models
        self.generator = generator
        self.attribute = debias.attribute
        self.readers = {
            "classifier": build_classifier(debias.classifier, models),
            "judge": build_classifier(debias.judge, models),
        }
        self.attributes: dict[str, dict[str, list[str]]] = {
            reader: {name: list(labels) for name, labels in classifier.attributes.items()}
            for reader, classifier in self.readers.items()
        }
        self.n = self.images = 0
        self._batches: defaultdict[str, list[Tensor]] = defaultdict(list)

    def add(self, sample: Sample) -> None:
        """Read one batch."""
        image = sample.image.clamp(0, 1)  # as a viewer sees it
        for reader, classifier in self.readers.items():
            logits = classifier(image)
            self._keep(reader, {name: part.argmax(dim=1) for name, part in logits.items()})
            self._batches[f"probability.{reader}"].append(probabilities(logits, self.attribute))
        if isinstance(self.generator, HasTruth):
            self._keep("truth", conditioned_truth(self.generator, sample.latent, sample.context))
        self.n += len(image)
        self.images += len(image)

    def _keep(self, reader: str, labels: Mapping[str, Tensor]) -> None:
        for name, indices in labels.items():
            self._batches[f"{reader}.{name}"].append(indices.to(torch.int16))
        if reader == "truth":  # which has no labels of its own: its classes are in the classifier's order
            known = self.attributes["classifier"]
            self.attributes["truth"] = {name: known[name] for name in labels if name in known}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that was read, by name: `READER.ATTRIBUTE`, (N,), and `probability.READER`, (N, K)."""
        return {name: torch.cat(batches).numpy() for name, batches in self._batches.items()}
