"""What classifier, judge, and who knows the truth say of samples that come in batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from promptgen.config.build import build_classifier, identities
from promptgen.energies.base import Sample
from promptgen.errors import DataError
from promptgen.finite import require_finite
from promptgen.flows.sampling import draw
from promptgen.generators.base import Generator, HasTruth, conditioned_truth, truth_classes
from promptgen.labels import probabilities
from promptgen.perception.base import Classifier
from promptgen.perception.reading import read_logits
from promptgen.tracking import Tracker
from steps.measuring.counting import reader_specs
from steps.shared.common import Pass


def reading_params(run_pass: Pass) -> dict[str, Any]:
    """Return all parameters that the reading of a pass's samples depends on."""
    return {
        "seed": run_pass.seed,
        "condition": dict(run_pass.params.condition.ranges),
        "generator": run_pass.params.generator.model_dump(),
        "readers": {name: spec.model_dump() for name, spec in reader_specs(run_pass).items()},
        "attribute": run_pass.params.debias.attribute,
        **run_pass.params.evaluation.model_dump(include={"samples", "batch"}),
    }


def reading_inputs(run_pass: Pass) -> dict[str, str]:
    """Return the sha256 of all files that the reading of a pass's samples depends on.

    Raises:
        DataError: the flow of this pass is not trained yet.
    """
    return run_pass.generator_inputs() | identities(reader_specs(run_pass).values(), run_pass.project.models)


class Reading:
    """Labels and probabilities of all samples so far; the images themselves are not kept.

    Args:
        run_pass: the pass that the samples are of.
        generator: what they are drawn from, which may know the truth.

    Attributes:
        attributes: labels of each attribute, by who reads them.
        n: samples read.
        images: images that the generator has made for that.

    Raises:
        ModelFileError: a weight file is missing or damaged.
    """

    def __init__(self, run_pass: Pass, generator: Generator) -> None:
        self.run_pass, self.generator = run_pass, generator
        self.attribute = run_pass.params.debias.attribute
        project = run_pass.project
        self.readers: dict[str, Classifier] = {
            name: project.placed(build_classifier(spec, project.models))
            for name, spec in reader_specs(run_pass).items()
        }
        self.attributes: dict[str, dict[str, list[str]]] = {
            reader: {name: list(labels) for name, labels in classifier.attributes.items()}
            for reader, classifier in self.readers.items()
        }
        self.n = self.images = 0
        self._batches: defaultdict[str, list[Tensor]] = defaultdict(list)

    def draw(self, stream: str, tracker: Tracker) -> None:
        """Draw as many samples as are measured of a pass, from the stream of that name, and read them."""
        n, batch = self.run_pass.params.evaluation.samples, self.run_pass.params.evaluation.batch
        for sample in draw(self.generator, n, seed=self.run_pass.seed, stream=stream, batch=batch):
            self.add(sample)
            tracker.progress(self.n, n, "samples")

    def add(self, sample: Sample) -> None:
        """Read one batch.

        Raises:
            DataError: an image, a logit or a true class is no proper number.
        """
        image = shown(sample.image, self.n)
        for reader, classifier in self.readers.items():
            logits = read_logits(classifier, image, f"the {reader}", self.n)
            self._keep(reader, {name: part.argmax(dim=1) for name, part in logits.items()})
            self._batches[f"probability.{reader}"].append(probabilities(logits, self.attribute).cpu())
        if isinstance(self.generator, HasTruth):
            truth = conditioned_truth(self.generator, sample.latent, sample.context)
            self._keep("truth", truth)
            self.attributes["truth"] = self._truth_classes(self.generator, truth)
        self.n += len(image)
        self.images += len(image)

    def _keep(self, reader: str, labels: Mapping[str, Tensor]) -> None:
        for name, indices in labels.items():
            if indices.is_floating_point():
                raise DataError(f"the {reader} of {name} must be class indices, got {indices.dtype}; return int64")
            self._batches[f"{reader}.{name}"].append(indices.to("cpu", torch.int16))

    def _truth_classes(self, generator: HasTruth, truth: Iterable[str]) -> dict[str, list[str]]:
        """Return the labels of what is truly known and the classifier knows too, by the same labels.

        A generator that does not name its classes has them in the order of the classifier's.
        """
        attributes = self.attributes["classifier"]
        named = truth_classes(generator) or attributes
        both = [name for name in truth if name in attributes and name in named]
        return {name: list(named[name]) for name in both if set(named[name]) == set(attributes[name])}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that was read, by name: `READER.ATTRIBUTE`, (N,), and `probability.READER`, (N, K)."""
        return {name: torch.cat(batches).numpy() for name, batches in self._batches.items()}


def shown(image: Tensor, first: int) -> Tensor:
    """Return images, (B, 3, H, W), in [0, 1] as a viewer sees them.

    Args:
        image: images of a generator, nominally in [0, 1].
        first: number of the first image of the batch.

    Raises:
        DataError: an image has a NaN or an infinite number, which a viewer would show as black or white.
    """
    return require_finite(image, "the generator's pixels", first).clamp(0, 1)
