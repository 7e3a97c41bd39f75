"""Image files and their labels, which an engine reads in shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from promptgen.audit.images import ImageBatch, Unread, read_batches
from promptgen.audit.labelling import Labeller, label
from promptgen.audit.labels import Labels
from promptgen.audit.spelling import visible
from promptgen.config.build import build_classifier, identities
from promptgen.config.models import ReaderSpec
from promptgen.engine.base import Recipe
from promptgen.errors import DataError
from promptgen.perception.base import Classifier
from steps.shared.recipes import bring, code_sha256

SHARD = 256
"""Files per shard."""


@dataclass(frozen=True)
class LabelledFiles:
    """What became of a shard of files.

    Attributes:
        seen: names of those that were read and labelled.
        labels: their labels by each reader; empty if there are none.
        unread: those that could not be read as images.
        unlabelled: those that a reader gave no proper numbers for.
    """

    seen: list[str]
    labels: list[Labels]
    unread: list[Unread]
    unlabelled: list[Unread]


@dataclass(frozen=True)
class LabellingRecipe(Recipe[tuple[str, ...], LabelledFiles]):
    """Makes what reads and labels files of a folder.

    Attributes:
        folder: the folder.
        readers: names of the classifiers, and what they are, in the order of the labels.
        wanted: names of the attributes to keep.
        models: folder of the weight files.
        device: device on which the classifiers run.
        batch: images at a time.
        size: pixels to resize images to; None keeps their size.
    """

    folder: Path
    readers: tuple[tuple[str, ReaderSpec], ...]
    wanted: frozenset[str]
    models: Path
    device: str = "cpu"
    batch: int = 32
    size: int | None = None

    def prepare(self) -> None:
        """Fetch the weight files that are missing on this machine."""
        for _, spec in self.readers:
            for name in spec.cards():
                bring(name, self.models)

    def identity(self) -> dict[str, str]:
        """Return the sha256 of the code and of the classifiers, by name."""
        return {"version of promptgen": code_sha256(), **identities((spec for _, spec in self.readers), self.models)}

    def build(self) -> Callable[[tuple[str, ...]], LabelledFiles]:
        """Return what labels the files of a shard."""
        return self.labelling([build_classifier(spec, self.models) for _, spec in self.readers])

    def labelling(self, classifiers: Sequence[Classifier]) -> Callable[[tuple[str, ...]], LabelledFiles]:
        """Return the same with classifiers that are there already, as many as readers or more."""
        return _Labelling(self, classifiers).label


@dataclass(frozen=True)
class _Labelling:
    recipe: LabellingRecipe
    classifiers: Sequence[Classifier]

    def label(self, names: tuple[str, ...]) -> LabelledFiles:
        recipe, seen, unread, unlabelled = self.recipe, list[str](), list[Unread](), list[Unread]()
        labellers = [
            Labeller(classifier, device=recipe.device, name=name, wanted=recipe.wanted)
            for (name, _), classifier in zip(recipe.readers, self.classifiers, strict=False)
        ]
        batches = read_batches(recipe.folder, names, batch=recipe.batch, size=recipe.size, unread=unread.append)
        for batch in batches:
            left_out = _label(labellers, batch)
            unlabelled += [Unread(batch.names[index], reason) for index, reason in left_out.items()]
            seen += [name for index, name in enumerate(batch.names) if index not in left_out]
        return LabelledFiles(seen, [each.compute() for each in labellers] if seen else [], unread, unlabelled)


def shards(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return files in shards."""
    return [tuple(names[start : start + SHARD]) for start in range(0, len(names), SHARD)]


def _label(labellers: Sequence[Labeller], batch: ImageBatch) -> dict[int, str]:
    """Label a batch of images and return which are left out, and why; an error names the first file of the batch."""
    try:
        return label(labellers, batch.images)
    except DataError as error:
        raise DataError(f"{visible(batch.names[0])}: {error}; see --size and --batch") from error
