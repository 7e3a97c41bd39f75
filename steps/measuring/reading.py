"""The labels of the samples of a pass by classifier, judge and truth; an engine reads the samples in blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from promptgen.config.build import identities
from promptgen.energies.base import Sample
from promptgen.errors import DataError
from promptgen.flows.sampling import BLOCK, draw
from promptgen.generators.base import HasTruth, conditioned_truth, truth_classes
from promptgen.labels import probabilities
from promptgen.networks.finite import require_finite
from promptgen.perception.base import Classifier
from promptgen.perception.reading import read_logits
from promptgen.tracking import Tracker
from steps.measuring.counting import reader_specs
from steps.measuring.samples import Samples, SampleWriter
from steps.shared.common import Pass
from steps.shared.recipes import PassRecipe


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


@dataclass(frozen=True)
class Block:
    """Samples of a pass that are drawn and read together.

    Attributes:
        stream: name of the random stream.
        start: number of the first one.
        stop: number after the last one.
    """

    stream: str
    start: int
    stop: int


@dataclass
class Part:
    """What was read of some samples; their images are not kept.

    Attributes:
        arrays: what was read, by name: `READER.ATTRIBUTE`, (N,), `probability.READER`, (N, K), and so on.
        attributes: labels of each attribute, by reader.
        n: samples read.
        images: images that the generator has made for them.
    """

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    attributes: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    n: int = 0
    images: int = 0


def blocks(run_pass: Pass, stream: str) -> list[Block]:
    """Return the blocks of as many samples as are measured of a pass, from the stream of that name."""
    n = run_pass.params.evaluation.samples
    return [Block(stream, start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]


def read(
    recipe: PassRecipe[Any, Part], shards: Sequence[Block | str], folder: Path, tracker: Tracker
) -> tuple[Samples, int]:
    """Let the engine of a pass read blocks of samples and draw sheets of pictures; write both.

    Args:
        recipe: builds the reader.
        shards: the blocks, and the names of the sheets.
        folder: folder of the step, for the samples and the sheets.
        tracker: receives the number of samples done.

    Returns:
        The samples, and the number of images that the generator has made for them.

    Raises:
        DataError: an image, a logit or a true class is no proper number.
        EngineError: the engine's workers fail.
        ModelFileError: a weight file is missing or damaged.
        StorageError: the folder cannot be written.
    """
    n, images, labels = 0, 0, dict[str, dict[str, list[str]]]()
    writer, sheets = SampleWriter(folder), dict[str, NDArray[Any]]()
    for number, part in recipe.run_pass.project.engine.map(recipe, shards):
        if isinstance(shard := shards[number], Block):
            writer.add(shard.start, part.arrays)
        else:
            sheets |= part.arrays
        labels |= part.attributes
        n, images = n + part.n, images + part.images
        tracker.progress(n, recipe.run_pass.params.evaluation.samples, "samples")
    return writer.finish(labels, sheets), images


@dataclass(frozen=True)
class ReadingRecipe(PassRecipe[Block, Part]):
    """Builds a `Reading` of a pass."""

    def inputs(self) -> Mapping[str, str]:
        """Return the sha256 of the flows."""
        return self.run_pass.generator_inputs()

    def build(self) -> Reading:
        """Return the generator and the readers."""
        return Reading(self.run_pass)


class Reading:
    """Draws blocks of samples of a pass and reads them.

    Args:
        run_pass: the pass that the samples are of.

    Raises:
        ModelFileError: a weight file is missing or damaged.
    """

    def __init__(self, run_pass: Pass) -> None:
        self.run_pass, self.generator = run_pass, run_pass.generator(sampling=True)
        self.attribute = run_pass.params.debias.attribute
        project = run_pass.project
        self.readers: dict[str, Classifier] = {
            name: project.reader(spec) for name, spec in reader_specs(run_pass).items()
        }
        self.attributes: dict[str, dict[str, list[str]]] = {
            reader: {name: list(labels) for name, labels in classifier.attributes.items()}
            for reader, classifier in self.readers.items()
        }
        self.drawn = run_pass.params.generator.drawn(project.models)
        self.n = self.images = 0
        self._batches: defaultdict[str, list[Tensor]] = defaultdict(list)

    @torch.inference_mode()
    def __call__(self, block: Block) -> Part:
        """Draw and read a block."""
        self.n, self.images, self._batches = block.start, 0, defaultdict(list)
        for sample in draw(
            self.generator,
            block.stop,
            seed=self.run_pass.seed,
            stream=block.stream,
            batch=self.run_pass.params.evaluation.batch,
            start=block.start,
        ):
            self.add(sample)
        arrays = {name: torch.cat(batches).numpy() for name, batches in self._batches.items()}
        return Part(arrays, self.attributes, self.n - block.start, self.images)

    def add(self, sample: Sample) -> None:
        """Read one batch.

        Raises:
            DataError: an image, a logit or a true class is no proper number.
        """
        image = shown(sample.image, self.n)
        for reader, classifier in self.readers.items():
            logits = read_logits(classifier, image, sample.latent, f"the {reader}", self.n)
            self._keep(reader, {name: part.argmax(dim=1) for name, part in logits.items()})
            self._batches[f"probability.{reader}"].append(probabilities(logits, self.attribute).cpu())
        if isinstance(self.generator, HasTruth):
            truth = conditioned_truth(self.generator, sample.latent, sample.context)
            truth_labels = self._truth_classes(self.generator, truth)
            if self.drawn:
                truth = {**truth, self.drawn.name: self.drawn.indices(sample.latent)}
                truth_labels[self.drawn.name] = list(self.drawn.labels)
            self._keep("truth", truth)
            self.attributes["truth"] = truth_labels
        self.n += len(image)
        self.images += len(image)

    def _keep(self, reader: str, labels: Mapping[str, Tensor]) -> None:
        for name, indices in labels.items():
            if indices.is_floating_point():
                raise DataError(f"the {reader} of {name} must be class indices, got {indices.dtype}; return int64")
            self._batches[f"{reader}.{name}"].append(indices.to("cpu", torch.int16))

    def _truth_classes(self, generator: HasTruth, truth: Iterable[str]) -> dict[str, list[str]]:
        """Return the labels of the true attributes that the classifier has with the same labels.

        A generator that does not name its classes has them in the order of the classifier's.
        """
        attributes = self.attributes["classifier"]
        named = truth_classes(generator) or attributes
        both = [name for name in truth if name in attributes and name in named]
        return {name: list(named[name]) for name in both if set(named[name]) == set(attributes[name])}


def shown(image: Tensor, first: int) -> Tensor:
    """Return images, (B, 3, H, W), in [0, 1] as a viewer sees them.

    Args:
        image: images of a generator, nominally in [0, 1].
        first: number of the first image of the batch.

    Raises:
        DataError: an image has a NaN or an infinite number, which a viewer would show as black or white.
    """
    return require_finite(image, "the generator's pixels", first).clamp(0, 1)
