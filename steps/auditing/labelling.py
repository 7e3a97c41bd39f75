"""Labels of image files, which an engine reads in shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from promptgen.audit.folder import LabelledFiles, label_files
from promptgen.audit.labelling import Labeller
from promptgen.config.build import build_classifier, identities
from promptgen.config.models import ReaderSpec
from promptgen.engine.base import Recipe
from promptgen.perception.base import Classifier
from steps.shared.code import all_code_sha256
from steps.shared.recipes import bring

SHARD = 256
"""Files per shard."""


@dataclass(frozen=True)
class LabellingRecipe(Recipe[tuple[str, ...], LabelledFiles]):
    """Builds the labeller of the files of a folder.

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
        return {
            "version of promptgen": all_code_sha256(),
            **identities((spec for _, spec in self.readers), self.models),
        }

    def build(self) -> Callable[[tuple[str, ...]], LabelledFiles]:
        """Return what labels the files of a shard."""
        return self.labelling([build_classifier(spec, self.models) for _, spec in self.readers])

    def labelling(self, classifiers: Sequence[Classifier]) -> Callable[[tuple[str, ...]], LabelledFiles]:
        """Return the same from classifiers that have been built, in the order of `readers`; others are ignored."""

        def label(names: tuple[str, ...]) -> LabelledFiles:
            labellers = [
                Labeller(classifier, device=self.device, name=name, wanted=self.wanted)
                for (name, _), classifier in zip(self.readers, classifiers, strict=False)
            ]
            return label_files(self.folder, names, labellers, batch=self.batch, size=self.size)

        return label


def shards(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return files in shards."""
    return [tuple(names[start : start + SHARD]) for start in range(0, len(names), SHARD)]
